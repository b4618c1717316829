"""Folders of records for the explorer, made in code: with everything, hostile, damaged, and not finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from example_record import example_record, failed_record, full_record, train_record, tree_record
from sparsebert.records import (
    MASK_FILM,
    RECIPE_FILE,
    VISITS,
    PruneCurve,
    PrunePoint,
    PruneStudy,
    Record,
    Score,
    Sparsity,
    WeightHistogram,
    write_record,
)
from sparsebert.sparse.film import MaskFilm
from tiny_run import save_tiny

EVIL = "<img src=x onerror=alert(1)></script><script>window.hurt=1</script>"
EVIL_FOLDER = "<b><img src=x onerror='window.hurt=1'>"


def runs_of(home: Path, **records: Record) -> Path:
    """A folder with a run for each record."""
    for name, record in records.items():
        write_record(record, home / name)
    return home


def several(home: Path) -> Path:
    """Two seeds of one recipe, another criterion, a sparse training, and trees with their visits."""
    trees = tree_record()
    runs_of(
        home,
        obs0=full_record(0),
        obs1=full_record(1),
        magnitude=full_record(0, criterion="magnitude", accuracy_shift=-0.03, shape="layers"),
        trees=trees,
    )
    filmed(home / "sparse")
    visits = np.array([8, 8, 0, 6, 2, 0, 0], dtype=np.int64)
    save_file({f"layer.{fit.layer}.tree.0": visits for fit in trees.models[1].trees}, home / "trees" / VISITS)
    return home


def filmed(run: Path, still: Sequence[int] = ()) -> Path:
    """The run of a sparse training with a film of its first phase: three frames of two matrices, and `still` more."""
    record = train_record()
    write_record(record, run)
    film = MaskFilm()
    for step, gone in ((2, []), (4, [0, 1]), *((step, [0, 2, 3]) for step in (6, *still))):
        mask = torch.ones(8, dtype=torch.bool)
        mask[gone] = False
        film.end(step, {f"bert.encoder.layer.{layer}.output.dense.weight": mask.view(4, 2) for layer in range(2)})
    phase = next(iter(record.models[-1].phases))
    save_tensors({f"{phase}/{key}": value for key, value in film.tensors().items()}, run / MASK_FILM)
    return run


def curve_run(folder: Path, scores: Sequence[float]) -> Path:
    """A run of `prune-curve`: validation scores with 0 to 90 % of the weights removed, and a level train score."""
    points = tuple(_point(place / 10, score) for place, score in enumerate(scores))
    histogram = WeightHistogram(kind="query", reach=1.0, counts=(50, 50), below=0, above=0, zeros=0)
    curve = PruneCurve(method="unstructured", criterion="l1", points=points)
    made = PruneStudy(within=0.5, loss_examples=10, curves=(curve,), weights=(histogram,))
    record = example_record()
    model = record.models[0].model_copy(update={"prune_study": made})
    write_record(record.model_copy(update={"models": (model,)}), folder)
    return folder


def _point(asked: float, score: float) -> PrunePoint:
    return PrunePoint(
        asked=asked,
        sparsity=Sparsity(encoder_linear=asked, whole_model=asked / 2, bytes_on_disk=0),
        bytes_on_disk=100,
        losses={"validation": 1.0},
        scores=tuple(
            Score(metric="accuracy", value=value, split=split, examples=10)
            for value, split in ((score, "validation"), (0.9, "train"))
        ),
    )


def with_bad_company(home: Path) -> Path:
    """The same beside a run that goes on, one that failed, a record of another schema, and one cut short."""
    several(home)
    runs_of(home, failed=failed_record())
    for name, text in (("other", '{"schema_version": 99}'), ("short", '{"schema_version": 1, "kin')):
        (home / name).mkdir()
        (home / name / "record.json").write_text(text, encoding="utf-8")
    (home / "going").mkdir()
    (home / "going" / RECIPE_FILE).write_text("{}", encoding="utf-8")
    return home


def hostile(home: Path) -> Path:
    """Markup in every text that a user could have written, the folder's name among them, beside a good run.

    Names of models are folders' names, which records do not take with markup in them.
    """
    record = full_record()
    where = record.environment.model_copy(update={"cpu": EVIL, "packages": {EVIL: EVIL}, "commit": EVIL})
    recipe = record.recipe | {"name": EVIL, "model": EVIL, "data": f"'\"{EVIL}"}
    texts = {"command": f"\"'{EVIL}", "task": EVIL, "notes": (EVIL,), "environment": where, "recipe": recipe}
    scores = tuple(
        {"scores": tuple(one.model_copy(update={"metric": EVIL}) for one in model.scores)} for model in record.models
    )
    models = tuple(model.model_copy(update=own) for model, own in zip(record.models, scores, strict=True))
    evil = record.model_copy(update=texts | {"models": models, "main_metric": EVIL})
    return runs_of(home, **{EVIL_FOLDER: evil, "two": full_record()})


def with_models(home: Path) -> Path:
    """`several`, and of one run the dense model and one that is left of it, which has a layer less."""
    several(home)
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    save_tiny(home / "obs0" / "dense", **names)
    save_tiny(home / "obs0" / "4x", num_hidden_layers=2, **names)
    return home
