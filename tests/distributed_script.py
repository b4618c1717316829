"""Trains tiny models in several processes, one a rule; each process saves its masks and weights.

Arguments: rules by name as JSON, then folders, each with the step to stop at (0 = never). A stop of the last rule is
a kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainingArguments

from sparsebert.recipe.schema import Rule
from sparsebert.training.trainer import SparseTrainer
from tiny import tiny_model
from toy import toy_collate, toy_rows


class Stop(TrainerCallback):
    """Ends the training, or the process, at a step of which there is no checkpoint."""

    def __init__(self, step: int, kill: bool) -> None:
        self.step, self.kill = step, kill

    def on_step_end(self, args, state, control, **kwargs):
        """After the optimiser's step."""
        if state.global_step == self.step and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == self.step:
            raise KeyboardInterrupt


def train(folder: Path, rule: Rule, stop: Stop | None) -> None:
    """Train, from the last checkpoint if there is one."""
    model = tiny_model("bert", num_labels=2)
    trainer = SparseTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=8,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            save_steps=3,
            report_to=[],
            use_cpu=True,
            ddp_backend="gloo",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=toy_rows(32),
        data_collator=lambda rows: {key: value for key, value in toy_collate(rows).items() if key != "rows"},
        rules=[rule],
        callbacks=[stop] if stop else [],
    )
    last = sorted(folder.glob("checkpoint-*"), key=lambda file: int(file.name.split("-")[1]))
    trainer.train(resume_from_checkpoint=str(last[-1]) if last else None)
    masks = {f"mask/{name}": mask.contiguous() for name, mask in trainer.masks.items()}
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    save_file(masks | weights, folder / f"rank{os.environ['RANK']}.safetensors")


def main() -> None:
    """All rules one after the other, in one folder after the other."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rules: dict[str, dict[str, object]] = json.loads(sys.argv[1])
    for folder, step in zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True):
        for name, values in rules.items():
            stop = Stop(step, kill=name == list(rules)[-1]) if step else None
            with suppress(KeyboardInterrupt):
                train(Path(folder) / name, Rule.model_validate(values), stop)
