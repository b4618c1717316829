"""`sparsebert bench`: models in, a table of times, an output check and a verdict in words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    JsonOption,
    RecipeOption,
    SeedOption,
    SetOption,
    ThreadsOption,
)
from sparsebert.cli.settings import recipe_of

if TYPE_CHECKING:
    from sparsebert.measurement.bench import BenchRow, Setting
    from sparsebert.models.source import ModelSource
    from sparsebert.recipe.base import Recipe

LENGTH = 128
ALL = "all"


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
    """Compare the speed and the outputs of models, in interleaved rounds."""
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
        _put(_measured(models, made, batch or [], length or [], runtime or [], natural, memory), output, as_json)


def _measured(
    names: Sequence[str],
    recipe: Recipe,
    batches: Sequence[int],
    lengths: Sequence[int],
    runtimes: Sequence[str],
    natural: bool,
    memory: bool,
) -> list[BenchRow]:
    """Every batch with every length, or the settings of the recipe where neither is given.

    `natural`: a length that is not given is the median of the task's validation texts, not 128.
    """
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.measurement.bench import bench as measure
    from sparsebert.models.named import open_model, sources
    from sparsebert.progress import busy

    with quiet_libraries(), busy("Loading the models") as update:
        found = sources(names)
        settings = _settings(recipe, batches, lengths, next(iter(found.values())) if natural else None)
        rows = measure(
            {name: open_model(source) for name, source in found.items()},
            settings,
            _runtimes(runtimes),
            rounds=recipe.measure.rounds,
            threads=recipe.measure.threads,
            seed=recipe.seed,
            energy=recipe.measure.energy,
            progress=update,
        )
        if memory:
            update("Measuring memory")
            rows = [_with_memory(row, found) for row in rows]
    return rows


def _settings(
    recipe: Recipe, batches: Sequence[int], lengths: Sequence[int], model: ModelSource | None
) -> list[Setting]:
    from sparsebert.measurement.bench import Setting

    wanted = recipe.measure
    pairs: list[tuple[int, int | None]] = [(wanted.batch, wanted.length), *wanted.also]
    if batches or lengths:
        pairs = list(product(batches or [wanted.batch], lengths or [wanted.length]))
    usual = LENGTH
    if model is not None and any(length is None for _, length in pairs):
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
    apart = task_kind(task.spec.kind).apart
    rows = encode(task.validation, load_tokenizer(model), recipe.max_length, *limits, apart).dataset
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
