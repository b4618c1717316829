"""Removing whole units once, by what calibration examples say: statistics, criteria, budgets. Knows nothing of BERT."""
