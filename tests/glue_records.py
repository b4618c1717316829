"""Records of GLUE tasks with scores that are given, made in code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from example_record import example_record
from sparsebert.records import Inputs, Record, Score, SplitOf
from sparsebert.tasks.glue import GLUE

# As published for a dense BERT-base of 100,000 steps, the best of several trials on dev: by task the metrics in the
# order of GLUE, of MNLI the two dev sets (numenta/nupic.research, projects/transformers/results).
DENSE = {
    "cola": (32.14,),
    "mnli": (78.24, 79.05),
    "mrpc": (86.49, 80.39),
    "qnli": (87.33,),
    "qqp": (83.28, 87.85),
    "rte": (60.29,),
    "sst2": (88.07,),
    "stsb": (86.65, 86.44),
    "wnli": (56.34,),
}
SPARSE_90 = {
    "cola": (37.30,),
    "mnli": (78.39, 79.44),
    "mrpc": (88.16, 83.09),
    "qnli": (86.88,),
    "qqp": (84.90, 88.91),
    "rte": (61.73,),
    "sst2": (88.88,),
    "stsb": (83.82, 83.71),
    "wnli": (56.34,),
}


def glue_record(
    task: str,
    values: Sequence[float] | None = None,
    seed: int = 0,
    models: Mapping[str, Sequence[float]] | None = None,
    train_rows: int | None = None,
    trained_rows: int | None = None,
    more: Sequence[Score] = (),
    **recipe: object,
) -> Record:
    """A finished run of one model, `finetuned`, or of the `models` by name; values are 0-100, see DENSE."""
    base = example_record(seed)
    rows = GLUE[task].train_rows if train_rows is None else train_rows
    training = base.models[1].training
    assert training is not None
    training = training.model_copy(update={"examples": rows if trained_rows is None else trained_rows})
    by_name = models or {"finetuned": values or DENSE[task]}
    made = tuple(
        base.models[0].model_copy(
            update={
                "name": name,
                "folder": name,
                "scores": (*_scores(task, own), *more),
                "timings": (),
                "training": training,
            }
        )
        for name, own in by_name.items()
    )
    inputs = Inputs(
        model={},
        teachers={},
        data={"train": SplitOf(rows=rows, sha256="0")},
        labels=(),
        packages={},
        threads=1,
        cpu="none",
    )
    told = {**base.recipe, "model": "tiny/bert", "task": task, "seed": seed, **recipe}
    return base.model_copy(update={"task": task, "seed": seed, "models": made, "inputs": inputs, "recipe": told})


def all_nine(values: Mapping[str, Sequence[float]] = DENSE, seed: int = 0, **more: object) -> list[Record]:
    """One run of every task."""
    return [glue_record(task, own, seed, **more) for task, own in values.items()]  # type: ignore[arg-type]


def failed_glue(task: str, seed: int = 0) -> Record:
    """A run that came to nothing."""
    return glue_record(task, seed=seed).model_copy(update={"status": "failed", "models": (), "message": "nan"})


def _scores(task: str, values: Sequence[float]) -> list[Score]:
    spec = GLUE[task]
    places = [(metric, split) for metric in spec.metrics for split in spec.dev_rows]
    return [
        Score(
            metric=metric,
            value=value / 100,
            split=split,
            examples=rows,
            low=value / 100 - 0.02,
            high=value / 100 + 0.02,
        )
        for (metric, (split, rows)), value in zip(places, values, strict=False)
    ]
