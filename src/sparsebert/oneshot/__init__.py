"""Removing whole units once, by what calibration examples say: evidence, criteria, budgets. Knows nothing of BERT."""
