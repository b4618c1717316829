"""The files by which SetFit makes a classifier of a sentence-transformers model: a pickled head, and what it is about.

A pickle runs code when it is opened. Nothing here opens one; `runs/check_heads.py` does, where the user says so.
"""

from __future__ import annotations

from pathlib import Path

from sparsebert.files import write_bytes_atomically

HEADS = ("model_head.pkl", "model_head.joblib")
SETTINGS = "config_setfit.json"


def head_file(folder: Path) -> Path | None:
    """The head of a SetFit model; None in any other folder."""
    return next((folder / name for name in HEADS if (folder / name).is_file()), None)


def carry_head(source: Path, folder: Path) -> bool:
    """Put SetFit's files of `source` beside another model, byte for byte; whether there is a head among them."""
    head, settings = head_file(source), source / SETTINGS
    if head is None:
        return False
    for file in (head, *([settings] if settings.is_file() else [])):
        write_bytes_atomically(folder / file.name, file.read_bytes())
    return True
