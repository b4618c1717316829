"""How masks moved while a model was trained, from the film beside its record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sparsebert.errors import UserError
from sparsebert.records import MASK_FILM, ModelResult
from sparsebert.records.film import PICTURE, PRUNED, RETURNED, STEPS, WENT
from sparsebert.reports.training import phase_spans

COUNTED = (PRUNED, WENT, RETURNED)


@dataclass(frozen=True)
class FilmPart:
    """The frames of one phase, whose `start` is the steps before it.

    `steps` [frames] are of the phase; `pruned`, `went`, `returned` [frames] are parts of the weights that its rules
    cover; `pictures` [frames, rows, columns] shares of zeros by matrix, 0-255.
    """

    phase: str
    start: int
    steps: np.ndarray
    pruned: np.ndarray
    went: np.ndarray
    returned: np.ndarray
    pictures: dict[str, np.ndarray]

    @property
    def counted(self) -> tuple[np.ndarray, ...]:
        """What is said of each frame in numbers."""
        return self.pruned, self.went, self.returned


def read_film(record: Path, model: ModelResult) -> list[FilmPart]:
    """The parts of the film beside a record file, by the model's phases; empty without one.

    Raises UserError for a file that is damaged.
    """
    file = record.parent / MASK_FILM
    if not model.phases or not file.is_file():
        return []
    try:
        return list(_parts(load_file(file), model))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} is damaged or cut short: {error}", fix="delete it, and its picture is left out"
        ) from None


def _parts(tensors: dict[str, np.ndarray], model: ModelResult) -> Iterator[FilmPart]:
    for span in phase_spans(model):
        before = f"{span.name}/"
        own = {key.removeprefix(before): value for key, value in tensors.items() if key.startswith(before)}
        if own:
            pictures = {key.removeprefix(PICTURE): one for key, one in own.items() if key.startswith(PICTURE)}
            if not _fit(own[STEPS], [own[name] for name in COUNTED], list(pictures.values())):
                raise ValueError(f"the frames of phase {span.name} do not fit each other")
            pruned, went, returned = (own[name] for name in COUNTED)
            yield FilmPart(span.name, span.start, own[STEPS], pruned, went, returned, pictures)


def _fit(steps: np.ndarray, counted: Sequence[np.ndarray], pictures: Sequence[np.ndarray]) -> bool:
    """Whether these are frames: steps that go on, parts of the weights, and pictures of bytes, of each as many."""
    if steps.ndim != 1 or not len(steps) or not pictures or (np.diff(steps) <= 0).any():
        return False
    if any(one.shape != steps.shape or not np.isfinite(one).all() for one in counted):
        return False
    return all(one.ndim == 3 and one.size and len(one) == len(steps) and one.dtype == np.uint8 for one in pictures)
