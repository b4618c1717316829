"""Of two SetFit models: how many texts get another class, by heads that the user trusts."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.deployment.manifest import is_exported
from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.models.setfit import SETTINGS, head_file
from sparsebert.models.source import resolve
from sparsebert.records import Flip
from sparsebert.runs.checked import CheckResult
from sparsebert.runs.scoring import MOST_FLIPS, shortened
from sparsebert.tasks.embeddings import directions

# What a pickle that does not fit what is installed here, or is none, ends in. Nothing but this error is taken from the
# module: joblib reads the file.
_BROKEN = (pickle.UnpicklingError, ImportError, AttributeError, EOFError, LookupError, OSError, TypeError, ValueError)


@dataclass(frozen=True)
class OpenHead:
    """A classifier of scikit-learn over vectors, the names of its classes, and whether vectors get length 1 first."""

    file: Path
    classifier: Any
    labels: tuple[str, ...]
    normalised: bool

    def classes(self, vectors: np.ndarray) -> list[str]:
        """The class of each vector [texts, numbers], or its labels, by name. Raises UserError for other vectors."""
        given = directions(vectors).astype(vectors.dtype) if self.normalised else vectors
        try:
            said = np.asarray(self.classifier.predict(given))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"The head does not take these vectors ({reason})", got=self.file) from None
        return [self._name(one) if np.ndim(one) == 0 else self._names(one) for one in said]

    def _name(self, number: Any) -> str:
        known = isinstance(number, np.integer) and 0 <= number < len(self.labels)
        return self.labels[int(number)] if known else str(number)

    def _names(self, chosen: np.ndarray) -> str:
        return ", ".join(self._name(place) for place in np.flatnonzero(chosen)) or "none"


def untrusted_note(models: Sequence[str]) -> tuple[str, ...]:
    """A line where models have heads that nobody has said may be opened."""
    found = dict.fromkeys(file.name for name in models if (file := head_file(_home(name))) is not None)
    if not found:
        return ()
    return (
        f"Classes are not compared: {', '.join(found)} is a pickle, which runs code when it is opened; --trust-head "
        "opens it, if you trust its maker",
    )


def open_head(model: str) -> OpenHead:
    """Open the pickled head of a SetFit model, which runs whatever code is in it: only call this if it is trusted.

    Raises UserError for a model without one, for one that is no classifier of scikit-learn, and for damaged files.
    """
    import joblib
    from sklearn.base import ClassifierMixin

    file = head_file(_home(model))
    if file is None:
        raise UserError(f"{model} has no head of SetFit", fix="leave out --trust-head")
    try:
        found = joblib.load(file)
    except _BROKEN as error:
        raise UserError(f"The head cannot be opened here: {type(error).__name__}: {error}", got=file) from None
    if not isinstance(found, ClassifierMixin):
        raise UserError("The head is no classifier of scikit-learn", got=type(found).__name__)
    return OpenHead(file, found, *_settings(file.parent / SETTINGS))


def with_classes(
    found: CheckResult, heads: tuple[OpenHead, OpenHead], vectors: Sequence[np.ndarray], texts: Sequence[str]
) -> CheckResult:
    """The same with the part of the texts that both give the same class, and some of the others."""
    before, after = (head.classes(rows) for head, rows in zip(heads, vectors, strict=True))
    alike = np.array([one == other for one, other in zip(before, after, strict=True)])
    flips = [
        Flip(text=shortened(str(texts[row])), label=before[row], dense=before[row], own=after[row])
        for row in np.flatnonzero(~alike)[:MOST_FLIPS].tolist()
    ]
    return found.model_copy(update={"agreement": float(alike.mean()), "flips": tuple(flips), "by_head": True})


def _settings(file: Path) -> tuple[tuple[str, ...], bool]:
    """The names of classes, none where they have none, and whether vectors are normalised."""
    if not file.is_file():
        return (), False
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        return tuple(map(str, held.get("labels") or ())), bool(held.get("normalize_embeddings"))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({type(error).__name__})", fix="download it again") from None


def _home(model: str) -> Path:
    folder = home_of(model)
    return folder if is_exported(folder) else resolve(model).path
