"""Checkpoints that can be trusted: which of them are whole and unharmed, and of which training they are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from sparsebert.files import differing_files, digests, remove_folder, write_text_atomically
from sparsebert.progress import line

MANIFEST = "whole.json"


class _Manifest(BaseModel):
    """Written into a checkpoint when all of its files are there: their SHA-256, and of which training they are."""

    start: str
    files: dict[str, str]


class Checkpoints(TrainerCallback):
    """Marks a checkpoint as whole, then removes those before it. `start` tells one training from another.

    It takes the place of `save_total_limit`, which removes the older ones before a new one is known to be whole.
    """

    def __init__(self, folder: Path, start: str) -> None:
        self._folder = folder
        self._start = start

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """All files of the checkpoint have been written."""
        if not state.is_world_process_zero:
            return
        saved = self._folder / f"checkpoint-{state.global_step}"
        manifest = _Manifest(start=self._start, files=digests([saved], saved))
        write_text_atomically(saved / MANIFEST, manifest.model_dump_json())
        best = Path(state.best_model_checkpoint) if state.best_model_checkpoint else saved
        for other in self._folder.glob("checkpoint-*"):
            if other.name not in (saved.name, best.name):
                remove_folder(other)

    def last(self) -> str | None:
        """The newest checkpoint that is whole and of this training; others that are newer are removed."""
        while self._folder.is_dir() and (found := get_last_checkpoint(str(self._folder))):
            why = self._fault(Path(found))
            if why is None:
                return found
            line(f"{Path(found).name} {why}, so training starts before it")
            remove_folder(Path(found))
        return None

    def _fault(self, checkpoint: Path) -> str | None:
        """What is wrong with a checkpoint."""
        file = checkpoint / MANIFEST
        if not file.is_file():
            return "was not finished"
        try:
            manifest = _Manifest.model_validate_json(file.read_bytes())
        except ValidationError:
            return "is not readable"
        if manifest.start != self._start:
            return "is of another training"
        differing = differing_files(manifest.files, checkpoint)
        return f"is damaged ({', '.join(differing)})" if differing else None
