"""What a training costs in energy, over all of its starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.energy import NOTHING, EnergyMeter, Spent, measured_energy
from sparsebert.files import write_text_atomically

FILE = "energy.json"


class _Kept(BaseModel):
    joules: dict[str, float] | None = None
    missing: str | None = None


class TrainingEnergy(TrainerCallback):
    """Every checkpoint in `folder` has what was spent until then, and a training that goes on from it adds to that.

    What an interrupted training did after its last checkpoint is lost, and not counted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: Spent = NOTHING
        self._meter: EnergyMeter | None = None

    @contextmanager
    def measured(self, args: TrainingArguments, checkpoint: str | None) -> Iterator[None]:
        """Measure the block, which begins anew or at a checkpoint, on the device of the arguments."""
        self._before = NOTHING if checkpoint is None else _kept(Path(checkpoint) / FILE)
        if args.world_size > 1:
            self._before = Spent(None, f"{args.world_size} processes train together, and each sees its own machine")
        with measured_energy(args.device) as self._meter:
            yield

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """To be called before a checkpoint is said to be whole."""
        if self._meter is not None and state.is_world_process_zero:
            spent = self._before.plus(self._meter.look())
            kept = _Kept(joules=None if spent.joules is None else dict(spent.joules), missing=spent.missing)
            write_text_atomically(self._folder / f"checkpoint-{state.global_step}" / FILE, kept.model_dump_json())

    def facts(self) -> dict[str, Any]:
        """What a TrainingRun says of energy."""
        spent = self._before if self._meter is None else self._before.plus(self._meter.spent)
        if spent.total == 0:
            spent = Spent(None, "the counters stood still")
        return {"energy_kwh": spent.kwh, "energy_source": spent.source, "energy_missing": spent.missing}


def _kept(file: Path) -> Spent:
    """What was spent until a checkpoint; unknown for one of before it was kept."""
    try:
        kept = _Kept.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return Spent(None, "an earlier part of the training was not measured")
    return Spent(kept.joules, kept.missing)
