"""Training: fine-tune, distil, evaluate."""
