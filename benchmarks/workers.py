"""What several workers of one machine gain: a sweep of short runs, as a whole command, on one worker and on several.

The commands take turns, each in a folder of its own, and what is compared is their time from start to end: Python,
imports and the report of the sweep are part of it. One worker has all cores for its products; several have a share
each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import Row, options_of, print_table, rows_of, with_task, write

ONE = "local"


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    several = f"local:{options.workers}"
    samples: dict[str, list[float]] = {ONE: [], several: []}
    with tempfile.TemporaryDirectory() as home:
        recipe = recipe_in(Path(home), options)
        for turn in range(options.rounds):
            for on, found in samples.items():
                found.append(seconds_of(recipe, Path(home) / f"{turn}-{on}", on, options) * 1000)
    case = {"runs": options.runs, "steps": options.steps, "cores": len(os.sched_getaffinity(0))}
    rows = rows_of(case, samples, {several: [ONE]})
    print(f"{options.runs} runs of {options.steps} steps on {case['cores']} cores, {options.rounds} rounds\n")
    print_ratios(rows)
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_task(options_of(__doc__, workers=2, runs=6, steps=60, batch=32, length=64, rounds=3))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--examples", type=int, default=1000, help="rows to train on; default 1000")
    return parser.parse_args(argv)


def recipe_in(home: Path, options: argparse.Namespace) -> Path:
    """A short fine-tuning, without timings: those of runs beside each other would say nothing."""
    values = {
        "kind": "finetune",
        "training": {"max_steps": options.steps, "batch_size": options.batch},
        "max_length": options.length,
        "train_examples": options.examples,
        "measure": {"timed": False},
    }
    file = home / "short.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    return file


def seconds_of(recipe: Path, out: Path, on: str, options: argparse.Namespace) -> float:
    """How long the whole command takes; its seeds are the runs."""
    data = [] if options.data is None else ["--data", str(options.data)]
    sweep = ["sweep", str(recipe), "--seeds", str(options.runs), "--model", str(options.model)]
    command = [sys.executable, "-m", "sparsebert", *sweep, "--task", options.task, *data, "-o", str(out), "--on", on]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def print_ratios(rows: Sequence[Row]) -> None:
    """The time of several workers over that of one in the same round."""
    lines = []
    for row in rows:
        found, ratio = row["times"], ""
        if row["baseline"] is not None:
            least, middle, most = (1 / found[key] for key in ("speedup_q75", "speedup", "speedup_q25"))
            ratio = f"{middle:.2f} ({least:.2f}–{most:.2f})"
        seconds = [found[key] / 1000 for key in ("median_ms", "q25_ms", "q75_ms")]
        lines.append([row["variant"], "{:.1f} ({:.1f}–{:.1f})".format(*seconds), ratio])
    print_table(["--on", "s, median (quartiles)", f"over {ONE}, median (quartiles)"], lines)


if __name__ == "__main__":
    main()
