"""How long the fuzzers look: SPARSEBERT_FUZZ examples a test, the same ones every time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("SPARSEBERT_FUZZ", "40"))
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def assert_short(error: object) -> None:
    """An error of the user is one line that a person reads to its end."""
    text = str(error)
    assert text and "\n" not in text and len(text) < 6000, text


def tree(folder: Path) -> dict[str, Any]:
    """The files in a folder, to be compared with those there later."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
