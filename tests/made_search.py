"""Trials that train nothing: each leaves a record whose scores follow from the values of its recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from example_record import example_record
from sparsebert.errors import UserError
from sparsebert.records import Evaluation, Record, Score, TrainingRun, write_record
from sparsebert.runs.trials import TrialEnd, TrialJob

HELD = 200


def made_record(job: TrialJob, best_rate: float = 1e-4) -> Record:
    """Accuracy falls with the distance from the best learning rate, in orders of magnitude; cosine adds a little."""
    plain = job.recipe.plain()
    training = plain["training"]
    away = abs(math.log10(training["learning_rate"] / best_rate))
    accuracy = round(max(0.5, 0.9 - 0.15 * away**2) + 0.004 * (training["lr_schedule"] == "cosine"), 4)
    split = "validation" if job.recipe.hold_out is None else "held_out"
    score = Score(
        metric="accuracy",
        value=accuracy - 0.01 * (split == "validation") + 0.002 * job.recipe.seed,
        split=split,
        examples=HELD,
        low=accuracy - 0.04,
        high=min(1.0, accuracy + 0.035),
        baseline=0.5,
    )
    rise = 30 + 40 * away
    steps = [
        Evaluation(
            step=step, split="held_out", scores={"accuracy": 0.5 + (accuracy - 0.5) * (1 - math.exp(-step / rise))}
        )
        for step in range(20, 201, 20)
    ]
    run = TrainingRun(
        steps=200, epochs=2, examples=3000, seconds=9, dtype="float32", teacher=False, evaluations=tuple(steps)
    )
    base = example_record()
    slower = (1 + accuracy) * (1.3 if training["lr_schedule"] == "cosine" else 1)
    timings = tuple(one.model_copy(update={"median_ms": one.median_ms * slower}) for one in base.models[0].timings)
    model = base.models[0].model_copy(
        update={"name": "finetuned", "folder": "finetuned", "scores": (score,), "training": run, "timings": timings}
    )
    return base.model_copy(
        update={
            "kind": "finetune",
            "recipe": plain,
            "recipe_hash": job.recipe.hash,
            "seed": job.recipe.seed,
            "main_metric": "accuracy",
            "models": (model,),
        }
    )


@dataclass
class MadeTrials:
    """What carries out trials; remembers which, and fails, crashes or is killed at those it is told."""

    fails: tuple[int, ...] = ()
    killed_at: int = -1
    best_rate: float = 1e-4

    def __post_init__(self) -> None:
        self.done: list[TrialJob] = []

    def __call__(self, job: TrialJob) -> TrialEnd:
        if job.number == self.killed_at:
            raise KeyboardInterrupt
        self.done.append(job)
        if job.number in self.fails:
            raise UserError("The training loss became nan at step 3")
        job.folder.mkdir(parents=True, exist_ok=True)
        write_record(made_record(job, self.best_rate), job.folder)
        return TrialEnd("finished")

    @property
    def trials(self) -> list[int | None]:
        """Numbers of the trials that were carried out, apart from the runs of what was chosen."""
        return [job.number for job in self.done if job.recipe.hold_out is not None]
