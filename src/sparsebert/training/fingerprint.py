"""What a model is, as a digest: names, types, shapes and bits of its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 in hex of named tensors in their order, on any device."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
