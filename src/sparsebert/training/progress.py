"""A rich progress bar for training: step, sparsity, loss, time left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.progress import console, line
from sparsebert.training.clock import NEVER

SPEEDS = ("runtime", "per_second")
SMOOTHING = 0.98


class ProgressBar(TrainerCallback):
    """One bar a training, on the first process only. `sparsity` is shown from when it is set."""

    def __init__(self, title: str) -> None:
        self._title = title
        self.sparsity: float | None = None
        self._loss: float | None = None
        self._speaks = False
        self._progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Open the bar at the step that training starts or resumes from."""
        if not state.is_world_process_zero:
            return
        self._speaks = True
        if not console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._progress.start()
        total = state.max_steps if state.max_steps < NEVER else None
        self._task = self._progress.add_task(self._title, total=total, completed=state.global_step, said="")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move the bar."""
        if self._progress is None:
            return
        said = [] if self._loss is None else [f"loss {self._loss:.3f}"]
        if self.sparsity is not None:
            said.append(f"sparsity {self.sparsity:.1%}")
        self._progress.update(self._task, completed=state.global_step, said="  ".join(said))

    def note_loss(self, loss: float) -> None:
        """Show the running mean of the losses noted so far, the last ones weighing most."""
        before = loss if self._loss is None else self._loss
        self._loss = SMOOTHING * before + (1 - SMOOTHING) * loss

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A line an evaluation; where there is no terminal, and so no bar, also one for each logged loss."""
        logs: Mapping[str, Any] = kwargs["logs"]
        scores = {key: value for key, value in logs.items() if key.startswith("eval_") and not key.endswith(SPEEDS)}
        said = scores or {key: logs[key] for key in ("loss", "sparsity") if "loss" in logs and key in logs}
        if not said or (console.is_terminal and not scores):
            return
        values = "  ".join(f"{key} {value:.4g}" for key, value in said.items() if isinstance(value, int | float))
        of = f" of {state.max_steps}" if state.max_steps < NEVER else ""
        self.say(f"step {state.global_step}{of}: {values}")

    def say(self, said: str) -> None:
        """Print a line, above the bar if there is one, on the first process only."""
        if self._speaks:
            line(f"{self._title}: {said}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the bar off the screen."""
        self.close()

    def close(self) -> None:
        """Take the bar off the screen, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
