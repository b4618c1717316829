"""Kernels that make sparsity pay: plain PyTorch references, and the native library where it was built."""
