"""Sparsity as mathematics over tensors and Groups: evidence, criteria, budgets. Knows nothing of BERT."""
