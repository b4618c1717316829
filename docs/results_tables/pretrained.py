"""Tables of encoders that were pretrained from new weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from results_tables.values import RESULTS, main_score, score, table
from sparsebert.records import Record, read_record, record_files

STUDY = "trees-pretrained"
# Neurons of a block that training has, and how many of them a token uses.
ENCODERS = {
    "512x0": ("dense", 512, 512),
    "32x3": ("32 trees of depth 3", 480, 128),
    "4x6": ("4 trees of depth 6", 508, 28),
    "1x8": ("1 tree of depth 8", 511, 9),
    "dense-128": ("dense", 128, 128),
    "dense-28": ("dense", 28, 28),
    "dense-9": ("dense", 9, 9),
    "none": ("no block", 0, 0),
}
TASKS = {"cola": "CoLA, Matthews", "mrpc": "MRPC, F1", "sst2": "SST-2, accuracy", "stsb": "STS-B, Pearson"}


def encoders() -> str:
    """Loss and scores of every encoder, best loss first; seeds one after the other, with a comma."""
    found = {name: _seeds(name) for name in ENCODERS}
    present = [name for name, runs in found.items() if runs]
    lines = [_line(name, found[name]) for name in sorted(present, key=lambda name: fmean(_losses(found[name])))]
    header = ["block", "neurons", "used by a token", "held-out loss, nats a hidden token"]
    return table([*header, *TASKS.values(), "mean of four"], lines)


def _seeds(name: str) -> list[Path]:
    return sorted((RESULTS / STUDY / "records" / "encoders").glob(f"{name}_seed=*"))


def _losses(runs: Sequence[Path]) -> list[float]:
    return [score(_record(run).models[-1].scores, "loss") / 100 for run in runs]


def _record(run: Path) -> Record:
    (file,) = record_files(run)
    return read_record(file)


def _line(name: str, runs: Sequence[Path]) -> list[str]:
    kind, neurons, used = ENCODERS[name]
    said = name if name[0].isdigit() else ""
    scores = [_scores(run) for run in runs]
    columns = [[one[task] for one in scores if task in one] for task in TASKS]
    means = [fmean(one.values()) for one in scores if len(one) == len(TASKS)]
    block = f"{kind} (`{said}`)" if said else kind
    losses = ", ".join(f"{loss:.2f}" for loss in _losses(runs))
    return [block, f"{neurons:,}", f"{used:,}", losses, *(_said(values) for values in (*columns, means))]


def _scores(run: Path) -> dict[str, float]:
    """By task the main score of the model that was fine-tuned from the encoder of a run."""
    home = RESULTS / STUDY / "records" / "glue" / run.name
    found = {task: home / task for task in TASKS if (home / task).is_dir()}
    return {task: main_score(own, own.models[-1]) for task, own in ((task, _record(at)) for task, at in found.items())}


def _said(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) or "–"
