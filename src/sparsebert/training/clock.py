"""A training of so many hours: its learning rate and its end follow the clock, over all of its starts."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.files import write_text_atomically
from sparsebert.training.rates import rate_at
from sparsebert.training.together import same

FILE = "clock.json"
NEVER = 10**9
"""Steps: more than any training takes, where the clock ends it."""


class _Kept(BaseModel):
    seconds: float


class WallClock(TrainerCallback):
    """Ends a training after so many hours; checkpoints in `folder` have what was used until then.

    What an interrupted training did after its last checkpoint is lost, and not counted.
    """

    def __init__(self, folder: Path, hours: float, schedule: str) -> None:
        self._folder, self._budget, self._schedule = folder, hours * 3600, schedule
        self._before, self._start, self._share = 0.0, 0.0, 0.0

    def begin(self, checkpoint: str | None) -> None:
        """Start the clock, where a checkpoint left it."""
        self._before = 0.0 if checkpoint is None else _used(Path(checkpoint) / FILE)
        self._start = time.monotonic()
        self._share = min(1.0, self._before / self._budget)

    def cycle(self, optimizer: torch.optim.Optimizer, warmup: int, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the rates; `warmup` is that part of `steps` that is also warm-up's part of the time."""
        part = warmup / steps
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(self._schedule, self._share, part))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the clock of the first process, so that all of them end at the same step."""
        self._share = same(lambda: min(1.0, self._used() / self._budget))
        if self._share >= 1:
            control.should_training_stop = True
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """To be called before a checkpoint is said to be whole."""
        if state.is_world_process_zero:
            kept = _Kept(seconds=self._used())
            write_text_atomically(self._folder / f"checkpoint-{state.global_step}" / FILE, kept.model_dump_json())

    def _used(self) -> float:
        return self._before + time.monotonic() - self._start


def _used(file: Path) -> float:
    try:
        return _Kept.model_validate_json(file.read_bytes()).seconds
    except (OSError, ValidationError):
        return math.inf
