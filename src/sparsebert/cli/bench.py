"""`sparsebert bench`: models in, a table of times, an output check and a verdict in words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert import registry
from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    COMMON,
    HOW,
    SPEED,
    DataOption,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    RecipeOption,
    SeedOption,
    SetOption,
    TextColumnOption,
    ThreadsOption,
)
from sparsebert.cli.settings import recipe_of
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.cli.texts import Texts
    from sparsebert.measurement.bench import BenchRow
    from sparsebert.measurement.setting import Setting
    from sparsebert.models.source import ModelSource
    from sparsebert.recipe.base import Recipe

LENGTH = 128
ALL = "all"
MOST_TEXTS = 200


def bench(
    models: Annotated[list[str], typer.Argument(help="Models or run folders; the first model is the baseline.")],
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Repeatable: every batch with every length. Default 1.", rich_help_panel=SPEED),
    ] = None,
    length: Annotated[
        list[int] | None, typer.Option(metavar="TOKENS", help="Repeatable. Default 128.", rich_help_panel=SPEED)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Measure at the median length of this task's validation texts.", rich_help_panel=SPEED),
    ] = None,
    data: DataOption = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            help=f"Measure on your texts, each as long as it is, not on random tokens: a text a line, or .csv, .tsv, "
            f".jsonl, .parquet. Of more than {MOST_TEXTS}, so many by the seed.",
            rich_help_panel=SPEED,
        ),
    ] = None,
    text_column: TextColumnOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(registry.names('runtime'))}, or all; repeatable. Default eager.",
            rich_help_panel=HOW,
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Interleaved rounds after warm-up. Default 15.", rich_help_panel=HOW)
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also peak memory, each in a process of its own.", rich_help_panel=HOW)
    ] = False,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy",
            help="Also joules of 1,000 texts, where the machine can tell (some 7 s a model).",
            rich_help_panel=HOW,
        ),
    ] = False,
    threads: ThreadsOption = None,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write the result here.", rich_help_panel=COMMON),
    ] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare speed and outputs of models, in interleaved rounds."""
    options = {
        "task": task,
        "data": data,
        "measure.rounds": rounds,
        "measure.threads": threads,
        "measure.energy": energy or None,
        "seed": seed,
    }
    with cli_errors(debug):
        made = recipe_of(recipe, options, settings or [])
        named = any(setting.startswith(("task=", "data=")) for setting in settings or [])
        natural = named or any(given is not None for given in (task, data, recipe))
        shape = _Shape(batch or [], length or [], natural)
        chosen = _texts(texts, text_column or [], (delimiter, encoding), shape, memory, made.seed)
        _put(_measured(models, made, shape, chosen, runtime or [], memory), output, as_json)


@dataclass(frozen=True)
class _Shape:
    """Every batch with every length, or the settings of the recipe where neither is given.

    `natural`: a length that is not given is the median of the task's validation texts, not 128.
    """

    batches: Sequence[int]
    lengths: Sequence[int]
    natural: bool


def _texts(
    file: Path | None,
    columns: Sequence[str],
    written: tuple[str | None, str | None],
    shape: _Shape,
    memory: bool,
    seed: int,
) -> Texts | None:
    """The texts of a file without its blank ones, or some of them; none where no file is given."""
    import random

    from sparsebert.cli.texts import Texts, texts_of
    from sparsebert.data.text import Written

    if file is None:
        if columns or any(written):
            raise UserError("--text-column, --delimiter and --encoding need --texts")
        return None
    if shape.lengths or shape.natural:
        raise UserError("Texts have lengths of their own", fix="leave out --length, --task, --data and --recipe")
    if memory:
        raise UserError("--memory measures inputs of one shape", fix="leave out --texts, and name --length")
    found = texts_of([], file, columns, None, Written(*written), "--texts")
    rows = [row for row, text in enumerate(found.first) if text.strip()]
    rows = sorted(random.Random(seed).sample(rows, min(len(rows), MOST_TEXTS)))
    most = max(shape.batches, default=1)
    if len(rows) < most:
        raise UserError("There are fewer texts than go into a batch", got=len(rows), allowed=f"at least {most}")
    second = None if found.second is None else [found.second[row] for row in rows]
    return Texts([found.first[row] for row in rows], second, rows)


def _measured(
    names: Sequence[str], recipe: Recipe, shape: _Shape, texts: Texts | None, runtimes: Sequence[str], memory: bool
) -> list[BenchRow]:
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.measurement.bench import bench as measure
    from sparsebert.measurement.setting import real_texts
    from sparsebert.models.named import open_model, sources
    from sparsebert.progress import busy

    with quiet_libraries(), busy("Loading the models") as update:
        found = sources(names)
        settings = _settings(recipe, shape, next(iter(found.values())))
        rows = measure(
            {name: open_model(source) for name, source in found.items()},
            settings,
            _runtimes(runtimes),
            rounds=recipe.measure.rounds,
            threads=recipe.measure.threads,
            seed=recipe.seed,
            energy=recipe.measure.energy,
            texts=None if texts is None else real_texts(found, texts.first, texts.second),
            progress=update,
        )
        if memory:
            update("Measuring memory")
            rows = [_with_memory(row, found) for row in rows]
    return rows


def _settings(recipe: Recipe, shape: _Shape, model: ModelSource) -> list[Setting]:
    from sparsebert.measurement.setting import Setting

    wanted = recipe.measure
    pairs: list[tuple[int, int | None]] = [(wanted.batch, wanted.length), *wanted.also]
    if shape.batches or shape.lengths:
        pairs = list(product(shape.batches or [wanted.batch], shape.lengths or [wanted.length]))
    usual = LENGTH
    if shape.natural and any(length is None for _, length in pairs):
        usual = _natural_length(recipe, model)
    return list(dict.fromkeys(Setting(batch, usual if length is None else length) for batch, length in pairs))


def _natural_length(recipe: Recipe, model: ModelSource) -> int:
    import numpy as np

    from sparsebert.data.encode import encode
    from sparsebert.data.load import load_task
    from sparsebert.models.limits import token_limits
    from sparsebert.models.load import load_config, load_tokenizer
    from sparsebert.tasks.kind import task_kind

    task = load_task(recipe.task, recipe.data, recipe.columns, recipe.data_seed)
    limits = token_limits(load_config(model))
    kind = task_kind(task.spec.kind)
    rows = encode(task.validation, load_tokenizer(model), recipe.max_length, *limits, kind).dataset
    return int(np.median(list(rows["length"])))


def _runtimes(given: Sequence[str]) -> list[str]:
    if ALL in given:
        return registry.names("runtime")
    return list(dict.fromkeys(given)) or registry.names("runtime")[:1]


def _with_memory(row: BenchRow, found: Mapping[str, ModelSource]) -> BenchRow:
    from sparsebert.measurement.memory import peak_memory

    if not row.timings:
        return row
    how = row.backend, row.timings[0].threads
    peak = peak_memory(found[row.model].path, row.batch, row.length, *how)
    return row.model_copy(update={"peak_memory_mb": peak})


def _put(rows: Sequence[BenchRow], output: Path | None, json_wanted: bool) -> None:
    from sparsebert.cli.bench_tables import print_rows
    from sparsebert.cli.output import put_json, write_json
    from sparsebert.measurement.verdicts import verdicts

    said = verdicts(rows)
    plain = {"rows": [row.model_dump(exclude_none=True) for row in rows], "verdicts": said}
    if output:
        write_json(plain, output)
    if json_wanted:
        put_json(plain)
    else:
        print_rows(rows, said)
