"""What the benchmarks share: their options, the form of a row, the table and the JSON file that they write.

A row is one variant in one case against one baseline: `{"case": {...}, "variant": ..., "baseline": ..., "times": ...}`
with times as in `sparsebert.records.TimeSummary`. A file holds rows, and where and with which options they were
measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sparsebert.cli.output import quiet_libraries
from sparsebert.environment import environment
from sparsebert.files import write_text_atomically
from sparsebert.kernels import native
from sparsebert.records import Record, write_record
from sparsebert.runs.sweep import Point, sweep
from sparsebert.timing import Variant, times

Row = dict[str, Any]
Layer = Callable[[torch.Tensor], Any]
Samples = Mapping[str, Sequence[float]]


def options_of(description: str | None, **numbers: int) -> argparse.ArgumentParser:
    """A parser with `--output` and an option for each number."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--output", type=Path, help="also write what was found here")
    return parser


def with_threads(parser: argparse.ArgumentParser, default: int | None = None) -> argparse.ArgumentParser:
    """The parser with `--threads`."""
    parser.add_argument("--threads", type=int, default=default, help="none = as torch has it")
    return parser


def with_task(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with what training on a task needs."""
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", help="the folder of the data; none = the hub")
    return parser


def shape(text: str) -> tuple[int, int]:
    """Inputs and outputs of a matrix, from a text such as 768x3072."""
    inputs, _, outputs = text.partition("x")
    return int(inputs), int(outputs)


def has_bf16() -> bool:
    """Whether the processor multiplies bf16, so that dense products in it are worth running."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(environment().cpu_flags)


def on_distinct_inputs(name: str, layer: Layer, pool: Sequence[torch.Tensor]) -> Variant:
    """Calls of the layer that each get the next tensor of the pool, of those as long as the first."""
    given = itertools.cycle([x for x in pool if len(x) == len(pool[0])])
    return Variant(name, lambda: layer(next(given)))


def rows_of(case: Mapping[str, Any], samples: Samples, baselines: Mapping[str, Sequence[str]]) -> list[Row]:
    """A row for each variant and each of its baselines, and one with times alone for a variant that has none."""
    return [
        {
            "case": dict(case),
            "variant": name,
            "baseline": base,
            "times": times(own, None if base is None else samples[base]).model_dump(exclude_none=True),
        }
        for name, own in samples.items()
        for base in baselines.get(name) or (None,)
    ]


def print_rows(rows: Sequence[Row]) -> None:
    """A table with a line for each case and variant and a column for each baseline: median (quartiles)."""
    bases = list(dict.fromkeys(row["baseline"] for row in rows if row["baseline"] is not None))
    cases = list(dict.fromkeys(key for row in rows for key in row["case"]))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = (*(_text(row["case"].get(name)) for name in cases), row["variant"])
        cells = lines.setdefault(key, {"ms": _spread(row["times"], "median_ms", "q25_ms", "q75_ms")})
        if row["baseline"] is not None:
            cells[row["baseline"]] = _spread(row["times"], "speedup", "speedup_q25", "speedup_q75")
    print_table(
        [*cases, "variant", "ms", *(f"times as fast as {base}" for base in bases)],
        [[*key, cells["ms"], *(cells.get(base, "") for base in bases)] for key, cells in lines.items()],
    )


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table in Markdown on stdout."""
    for cells in (header, ["---"] * len(header), *lines):
        print(f"| {' | '.join(cells)} |")


def write(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], threads: int | None = None) -> None:
    """Write the rows to `--output`, if it was given; `threads` are those in use, where they were set for this."""
    if options.output is None:
        return
    given = {key: value for key, value in vars(options).items() if key != "output"}
    where = environment().model_dump(exclude_none=True) | ({"threads": threads} if threads else {})
    plain = {"environment": where, "native": native.isa(), "options": given, "rows": list(rows)}
    write_text_atomically(options.output, json.dumps(plain, indent=1, default=str) + "\n")


def records_of(todo: Sequence[Point], folder: Path, command: str, keep_models: bool) -> list[tuple[Point, Record]]:
    """Run every point in `folder`, or find it finished, and give the records."""
    with quiet_libraries():
        return list(sweep(todo, folder, command, keep_models))


def keep_records(found: Mapping[str, Record], folder: Path | None) -> None:
    """Write each record into a folder of its name in `--output`, if it was given."""
    if folder is not None:
        for name, record in found.items():
            write_record(record, folder / name)


def main_score(record: Record, scores: Sequence[Any]) -> float:
    """The task's main metric, in percent."""
    return 100 * next(score.value for score in scores if score.metric == record.main_metric)


def _spread(found: Mapping[str, float], middle: str, low: str, high: str) -> str:
    return f"{found[middle]:.4g} ({found[low]:.4g}–{found[high]:.4g})"


def _text(value: object) -> str:
    return "" if value is None else str(value)
