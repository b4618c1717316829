"""The one error a user should ever see: what went wrong, what was given, what is allowed, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Letters of what was given that an error repeats.
LONGEST = 300


class UserError(Exception):
    """A mistake the user can mend, told on one line. The command line prints it and exits with code 2."""

    def __init__(self, what: str, *, got: object = None, allowed: object = None, fix: str = "") -> None:
        parts = [what.rstrip(".")]
        if got is not None:
            parts.append(f"got {_short(got)}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(fix)
        # Names of files and words of libraries may hold line breaks.
        message = " ".join("; ".join(parts).splitlines())
        super().__init__(message if message.endswith("?") else f"{message}.")


def _short(got: object) -> str:
    text = str(got)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


class BusyError(UserError):
    """Another process works in the folder; what lies there is its own."""


class UnreachableError(UserError):
    """A target that no shape of this model meets."""


class DivergedError(UserError):
    """The loss became NaN or infinite; carries the optimiser step at which it happened."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"The training loss became {loss} at step {step}",
            fix="lower the learning rate (--set finetune.learning_rate=...) or look for bad rows in the data",
        )
        self.step = step


def unknown(kind: str, got: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a closed list, with the nearest name as a hint."""
    choices = list(allowed)
    near = difflib.get_close_matches(str(got), choices, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {kind} '{_short(got)}'", allowed=", ".join(choices) or "none", fix=hint)
