"""Where trainings are logged besides their own checkpoints: TensorBoard, Weights & Biases, MLflow.

All of them through the callbacks of transformers, whose environment variables hold too, except for where TensorBoard
writes. Every training is a run of its own there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import MLflowCallback, TensorBoardCallback, WandbCallback

from sparsebert import registry
from sparsebert.errors import UserError

NAME_OF_FOLDER = "logs"


@dataclass(frozen=True)
class TrainingLogger:
    """A logger: the package on PyPI that it needs, and its callback for one training, which may write to a folder."""

    package: str
    callback: Callable[[Path], TrainerCallback]


def loggers(names: Sequence[str]) -> list[TrainingLogger]:
    """By their registered names. Raises UserError for an unknown one, and for one whose package is not installed."""
    return [_installed(name, registry.get("logger", name)) for name in dict.fromkeys(names)]


def _installed(name: str, found: TrainingLogger) -> TrainingLogger:
    try:
        # Not by an import: W&B leaves a folder of its name where it ran, which would be taken for the package.
        metadata.version(found.package)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{found.package}, which --report-to {name} needs, is not installed", fix=f"pip install {found.package}"
        ) from None
    return found


def logging_callbacks(names: Sequence[str], folder: Path, title: str) -> list[TrainerCallback]:
    """The callbacks of one training, which is called `title` there. Raises UserError as `loggers` does."""
    found = loggers(names)
    return [_Titled(title), *(logger.callback(folder) for logger in found)] if found else []


class _Titled(TrainerCallback):
    """Says what a training is called before the loggers ask."""

    def __init__(self, title: str) -> None:
        self._title = title

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        args.run_name = self._title


class _InFolder(TensorBoardCallback):
    """Writes to a folder; what a training logged after the checkpoint that it goes on from is taken back."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.tb_writer = self._SummaryWriter(str(self._folder), purge_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)


class _OneRunEach(WandbCallback):
    """Ends the run of a training with it; one that a failed training left open would take what the next one logs."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._wandb.finish()
        super().on_train_begin(args, state, control, model, **kwargs)

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, model, processing_class, **kwargs)
        self._wandb.finish()


TENSORBOARD = TrainingLogger("tensorboard", _InFolder)
WANDB = TrainingLogger("wandb", lambda folder: _OneRunEach())
MLFLOW = TrainingLogger("mlflow", lambda folder: MLflowCallback())
