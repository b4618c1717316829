"""Sparsity inside training: from structures and criteria to the Sparsifier that owns the masks. Knows no BERT."""
