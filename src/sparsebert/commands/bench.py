"""`sparsebert bench`: models in, a table of times, an output check and a verdict in words out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sparsebert import registry
from sparsebert.commands.models import open_model, sources
from sparsebert.commands.output import put_json, quiet_libraries, say, show, write_json
from sparsebert.data.encode import encode
from sparsebert.data.load import load_task
from sparsebert.measurement.bench import BenchRow, Match, Setting, backend_verdict, verdict
from sparsebert.measurement.bench import bench as measure
from sparsebert.measurement.memory import peak_memory
from sparsebert.models.limits import position_limit, segment_types
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import ModelSource
from sparsebert.progress import busy
from sparsebert.recipe.base import Recipe
from sparsebert.records import Timing
from sparsebert.reports import values as v

LENGTH = 128
ALL = "all"


def bench(
    names: Sequence[str],
    recipe: Recipe,
    batches: Sequence[int],
    lengths: Sequence[int],
    backends: Sequence[str],
    natural: bool,
    memory: bool,
    output: Path | None,
    json_wanted: bool,
) -> None:
    """Measure and print; every batch with every length, or the settings of the recipe where neither is given.

    `natural`: a length that is not given is the median of the task's validation texts, not 128.
    """
    with quiet_libraries(), busy("Loading the models") as update:
        found = sources(names)
        settings = _settings(recipe, batches, lengths, next(iter(found.values())) if natural else None)
        models = {name: open_model(source) for name, source in found.items()}
        rows = measure(
            models,
            settings,
            _backends(backends),
            rounds=recipe.measure.rounds,
            threads=recipe.measure.threads,
            seed=recipe.seed,
            progress=update,
        )
        if memory:
            update("Measuring memory")
            rows = [_with_memory(row, found) for row in rows]
    plain = {"rows": [row.model_dump(exclude_none=True) for row in rows], "verdicts": _verdicts(rows)}
    if output:
        write_json(plain, output)
    if json_wanted:
        put_json(plain)
    else:
        _print(rows, plain["verdicts"])


def _settings(
    recipe: Recipe, batches: Sequence[int], lengths: Sequence[int], model: ModelSource | None
) -> list[Setting]:
    wanted = recipe.measure
    pairs: list[tuple[int, int | None]] = [(wanted.batch, wanted.length), *wanted.also]
    if batches or lengths:
        pairs = list(product(batches or [wanted.batch], lengths or [wanted.length]))
    usual = LENGTH
    if model is not None and any(length is None for _, length in pairs):
        usual = _natural_length(recipe, model)
    return list(dict.fromkeys(Setting(batch, usual if length is None else length) for batch, length in pairs))


def _natural_length(recipe: Recipe, model: ModelSource) -> int:
    task = load_task(recipe.task, recipe.data, recipe.columns, recipe.data_seed)
    config = load_config(model)
    takes = (recipe.max_length, position_limit(config), config.vocab_size, segment_types(config))
    rows = encode(task.validation, load_tokenizer(model), *takes).dataset
    return int(np.median(list(rows["length"])))


def _backends(given: Sequence[str]) -> list[str]:
    if ALL in given:
        return registry.names("backend")
    return list(dict.fromkeys(given)) or registry.names("backend")[:1]


def _with_memory(row: BenchRow, found: Mapping[str, ModelSource]) -> BenchRow:
    """Memory is that of plain loading and running, so it belongs to the rows of that back end only."""
    if row.backend != registry.names("backend")[0]:
        return row
    peak = peak_memory(found[row.model].path, row.batch, row.length)
    return row.model_copy(update={"peak_memory_mb": peak})


def _verdicts(rows: Sequence[BenchRow]) -> list[str]:
    baseline, first = rows[0].model, rows[0].backend
    said: list[str] = []
    for row in rows:
        headline = row.timing("encoder") or row.timing("model")
        if row.unavailable:
            said.append(f"{row.model} on {row.backend} was not measured: {row.unavailable}")
        elif row.model != baseline and headline:
            said.append(verdict(row.model, baseline, headline))
        over = backend_verdict(row, first)
        said += [over] if over else []
    return said


def _print(rows: Sequence[BenchRow], verdicts: Sequence[str]) -> None:
    for setting in dict.fromkeys((row.batch, row.length) for row in rows):
        shown = [row for row in rows if (row.batch, row.length) == setting and row.timings]
        if shown:
            for table in tables(shown):
                show(table)
                say("")
    for text in verdicts:
        say(text)
    say("Times: medians of interleaved rounds, with quartiles. Speedups: medians of paired rounds, with 95% intervals.")
    matches = [match for row in rows if (match := _match(row))]
    if matches:
        count = f"{matches[0].sequences} random sequence{'s' if matches[0].sequences > 1 else ''}"
        say(f"Outputs: largest difference over the largest output of what they are compared with, on {count}.")


def tables(rows: Sequence[BenchRow]) -> list[Table]:
    """Of one setting: how fast, and what else. Two, so that no number is broken at 80 columns."""
    whole = rows[0].timings[0]
    title = f"Batch {whole.batch}, {whole.length} tokens, threads {whole.threads}, {_rounds(rows)} rounds"
    times = _table(["Model, ms", "Speedup", "Encoder, ms", "Speedup"], title)
    for row in rows:
        whole, encoder = row.timing("model"), row.timing("encoder")
        times.add_row(Text(row.model), row.backend, _ms(whole), _speedup(whole), _ms(encoder), _speedup(encoder))
    columns: dict[str, Callable[[BenchRow], str]] = {
        "Tokens/s": _rate,
        "Outputs\ndiffer by": lambda row: _check(_match(row)),
    }
    if any(row.backend_speedup is not None for row in rows):
        columns[f"Over\n{rows[0].backend}"] = _over_first
    if any(row.peak_memory_mb is not None for row in rows):
        columns["Peak\nmemory"] = _memory
    rest = _table(columns)
    for row in rows:
        rest.add_row(Text(row.model), _how(row), *(make(row) for make in columns.values()))
    return [times, rest]


def _table(numbers: Iterable[str], title: str | None = None) -> Table:
    """Names of models may be broken where there is no room, and nothing else."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.add_column("Model", overflow="fold")
    table.add_column("Back end", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rounds(rows: Sequence[BenchRow]) -> str:
    return " and ".join(map(str, dict.fromkeys(row.timings[0].rounds for row in rows)))


def _match(row: BenchRow) -> Match | None:
    return row.against_baseline or row.against_first_backend


def _how(row: BenchRow) -> str:
    return f"{row.backend}\n{row.timings[0].dtype}, {row.timings[0].attention}"


def _rate(row: BenchRow) -> str:
    return f"{row.timings[0].tokens_per_s:,.0f}"


def _ms(timing: Timing | None) -> str:
    if timing is None:
        return v.DASH
    return f"{v.digits(timing.median_ms)}\n{v.digits(timing.q25_ms)}–{v.digits(timing.q75_ms)}"


def _speedup(timing: Timing | None) -> str:
    return v.DASH if timing is None else _ratio(timing.speedup, timing.speedup_low, timing.speedup_high)


def _over_first(row: BenchRow) -> str:
    return _ratio(row.backend_speedup, row.backend_speedup_low, row.backend_speedup_high)


def _ratio(middle: float | None, low: float | None, high: float | None) -> str:
    """With its interval, which few rounds do not have."""
    if middle is None:
        return v.DASH
    return v.times(middle) if low is None or high is None else f"{v.times(middle)}\n{low:.2f}–{high:.2f}"


def _check(match: Match | None) -> str:
    if match is None:
        return v.DASH
    differs = f"{100 * match.relative_difference:.2g}%"
    if match.agreement is None:
        return differs
    return f"{differs}\n{round(match.agreement * match.sequences)} of {match.sequences} agree"


def _memory(row: BenchRow) -> str:
    return v.DASH if row.peak_memory_mb is None else f"{row.peak_memory_mb:,.0f} MB"
