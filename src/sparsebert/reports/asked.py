"""Targets as a report says them. One of somebody's own is shown by its name: reading a record imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert import registry

if TYPE_CHECKING:
    from sparsebert.pruning.target_kinds import TargetKind


def known_target(kind: str | None) -> TargetKind | None:
    """The rules of a registered kind; None without a target, and for any other."""
    return registry.get("target", kind) if kind in registry.names("target") else None


def target_text(kind: str | None, value: float | None, long: bool = False) -> str:
    """A target in words: `4× faster`, `8 ms`, `25% of bytes`, `90% sparse`; empty without a target."""
    if kind is None or value is None:
        return ""
    known = known_target(kind)
    if known is None:
        return f"{kind} {value:g}"
    return known.long_text(value) if long else known.text(value)


def target_label(kind: str, value: float) -> str:
    """Short: `4x`."""
    known = known_target(kind)
    return f"{kind} {value:g}" if known is None else f"{value:g}{known.suffix}"
