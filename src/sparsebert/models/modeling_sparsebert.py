"""Configurations and models made smaller by sparsebert, for transformers' `trust_remote_code`.

A copy of this file lies in the folder of every such model, so that a process that never imported sparsebert can load
it. It holds no model: those are in the package (`pip install sparsebert`), in the version that is installed.
"""

from __future__ import annotations

from typing import Any

import sparsebert.models.shrunk


def __getattr__(name: str) -> Any:
    if not name.startswith("Sparse"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(sparsebert.models.shrunk, name)
