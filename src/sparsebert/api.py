"""The package as functions: what the command line calls, and what scripts and notebooks call.

Each gives a `RunResult`; the same call again goes on from what is on disk, or reads what has finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.progress import busy, silent
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe, setting
from sparsebert.records import Record, read_record, record_files
from sparsebert.result import BenchResult, RunResult, SearchResult

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from sparsebert.runs.glue_results import GlueResult

    Model = str | Path | PreTrainedModel
    Data = str | Path | Dataset | Mapping[str, Dataset]
    Run = str | Path | RunResult

RUNS = Path("runs")
OWN_TASK = "custom"
Numbers = float | Sequence[float]


def compress(
    model: Model | None = None,
    *,
    speedup: Numbers = (),
    latency_ms: Numbers = (),
    size: Numbers = (),
    sparsity: Numbers = (),
    max_drop: float | None = None,
    **given: Any,
) -> RunResult:
    """Make a family of smaller, faster models, one a target, or the smallest that loses at most `max_drop` points.

    `speedup` is of the encoder, `latency_ms` of a forward pass, `size` a part of the bytes on disk, `sparsity` a part
    of the encoder's linear weights, 0-1. All else is as `run_recipe` takes it, or is a key of the recipe.
    """
    goals = {"speedup": speedup, "latency_ms": latency_ms, "size": size, "sparsity": sparsity}
    targets = targets_of(goals)
    if targets:
        given["targets"] = targets
    if max_drop is not None:
        given["max_drop"] = max_drop
    return run_recipe("compress", model, **given)


def targets_of(goals: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Targets as plain values, kind by kind, the weakest of a kind first."""
    return [
        {"kind": kind, "value": value}
        for kind, values in goals.items()
        for value in sorted(_several(values), reverse=registry.get("target", kind).falling)
    ]


def train(model: Model | None = None, **given: Any) -> RunResult:
    """Train a model sparse, by the phases and rules of a recipe (`recipe=` or `phases=`)."""
    return run_recipe("train", model, **given)


def finetune(model: Model | None = None, **given: Any) -> RunResult:
    """Fine-tune a model for a task without a change of its shape; zeros that it has are held."""
    return run_recipe("finetune", model, **given)


def prune_curve(model: Model | None = None, **given: Any) -> RunResult:
    """Remove more and more of a fine-tuned network without retraining, and score it at each point.

    The curves are the `prune_study` of the record's one model.
    """
    return run_recipe("prune-curve", model, **given)


def multitask(model: Model | None = None, **given: Any) -> RunResult:
    """Train one encoder with the three heads of CS224N's project; `data` is the folder of the course's files."""
    return run_recipe("multitask", model, **{"task": "cs224n", **given})


def pretrain(model: Model | None = None, *, text: str | Path | Sequence[str | Path] = (), **given: Any) -> RunResult:
    """Pretrain a masked language model on text, from new weights (`config=`) or on from a model.

    `text` are files and folders, or hub:NAME. All else is as `run_recipe` takes it, or is a key of the recipe.
    """
    paths = [str(one) for one in ([text] if isinstance(text, str | Path) else text)]
    return run_recipe("pretrain", model, **({"text": paths} if paths else {}), **given)


def fff(model: Model | None = None, *, trees: int | None = None, depth: int | None = None, **given: Any) -> RunResult:
    """Put fast feedforward layers in place of dense ones, distilled from the model itself, beside controls.

    `trees` side by side in a layer, each with 2^(depth+1)-1 neurons; `depth` none = as many neurons as there were.
    """
    layer = {key: value for key, value in (("trees", trees), ("depth", depth)) if value is not None}
    if "recipe" not in given or given["recipe"] is None:
        layer = {"trees": 1, **layer}
    given |= {f"trees.{key}": value for key, value in layer.items()}
    return run_recipe("fff", model, **given)


def search(
    recipe: Path | str | Recipe,
    space: Sequence[str] | Mapping[str, Mapping[str, Any]],
    *,
    objective: Sequence[str] = (),
    of: str | None = None,
    trials: int = 20,
    seed: int = 0,
    sampler: str = "tpe",
    prune: str | None = None,
    storage: str | None = None,
    on: str | None = None,
    repeats: int = 3,
    keep_models: bool = False,
    settings: Sequence[str] = (),
    output: Path | str | None = None,
    restart: bool = False,
    report_to: str | Sequence[str] = (),
    progress: bool = True,
    command: str = "a Python script",
    **values: Any,
) -> SearchResult:
    """Search for the best values of a recipe (a file, a name, a Recipe, or a run type with its defaults) by trials.

    `space` holds ranges (`low`, `high`, perhaps `log` or `step`) and `choices` by dotted key, or texts as `--space`
    takes them. `objective` names metrics and quantities, none = the main metric; of several the Pareto front is the
    answer. Trials are scored on held-out train rows; what was chosen is trained on all of them, with `repeats` seeds,
    and scored on validation. `values`, `settings` and `report_to` as `run_recipe` takes them. Raises UserError for all
    that the caller can mend.
    """
    from sparsebert.recipe.space import read_space, space_of

    base = _base_recipe(recipe, values, settings)
    read = space_of(space, "the space") if isinstance(space, Mapping) else read_space(space)
    with silent(not progress):
        with busy("Starting"):
            from sparsebert.models.source import quiet
            from sparsebert.runs.hyperparameters import search as run_trials
            from sparsebert.runs.search_definition import SearchPlan, default_name
        asked = tuple(objective)
        plan = SearchPlan(
            base, read, asked, of, trials, seed, sampler, prune, storage, on, repeats, keep_models, _texts(report_to)
        )
        folder = home_of(str(output or RUNS / default_name(plan)))
        with quiet():
            record = run_trials(plan, folder, command, restart)
        return SearchResult(record, folder.resolve(), report_searches([folder]))


def report_searches(
    folders: Sequence[Path], output: Path | str | None = None, thresholds: Sequence[float] = ()
) -> Path:
    """Write the page about searches, side by side if they are several, with folders of other runs if there are any.

    `thresholds` are scores whose steps are counted (accuracy 0-1), none = such as all have reached.
    """
    from sparsebert.reports.search_page import write_search_page
    from sparsebert.reports.searched import read_searched
    from sparsebert.studies.thresholds import threshold_rows

    found = read_searched(folders)
    page = Path(output) if output else default_page(folders)
    pictures = page.parent / "plots" if output is None else page.with_name(f"{page.stem}-plots")
    return write_search_page(found, threshold_rows(found, thresholds), page, pictures)


def glue(
    model: str | Path | None = None,
    *,
    tasks: Sequence[str] = (),
    runs: int = 1,
    plan: str | Path = "quick",
    data: str | Path | None = None,
    recipe: Path | str | None = None,
    settings: Sequence[str] = (),
    baseline: str | None = None,
    test: bool = False,
    keep_models: bool = False,
    on: str | None = None,
    output: Path | str | None = None,
    restart: bool = False,
    report_to: str | Sequence[str] = (),
    progress: bool = True,
    command: str = "a Python script",
) -> GlueResult:
    """Train and score a model on the tasks of GLUE, `runs` seeds each, and put the scores together.

    `tasks` none given = those of the `plan`, a shipped one or a YAML file. `recipe` none = that of `finetune`; `data`
    none = the hub. `baseline` is a model's name or a folder of other runs. With `test` the best run of each task also
    answers its test set. `on` says where runs go, as `--on` does; `report_to` is as `run_recipe` takes it. A run that
    fails does not stop the others; the result names it. Raises UserError, before anything is trained, for data that are
    missing and for settings that cannot be.
    """
    from sparsebert.models.source import quiet
    from sparsebert.runs.glue import GlueRun, carry_out_glue, check_glue, glue_points
    from sparsebert.runs.glue_plan import glue_plan
    from sparsebert.runs.glue_results import finish_glue, reference_of

    if runs < 1:
        raise UserError("A GLUE run needs at least one run a task", got=runs)
    given = {"model": model, "data": data}
    own = [setting(key, str(value)) for key, value in given.items() if value is not None]
    with silent(not progress), quiet():
        chosen = glue_plan(plan)
        wanted, points = glue_points(recipe, chosen, tasks, runs, [*own, *settings])
        logs = _texts(report_to)
        whole = GlueRun(tuple(points), chosen, tuple(wanted), runs, test, keep_models, on, report_to=logs)
        folder, reference = home_of(str(output or RUNS / whole.folder_name)), reference_of(baseline)
        rows = check_glue(whole)
        made = {point.name: record for point, record in carry_out_glue(whole, folder, command, restart, rows)}
        return finish_glue(whole, folder, made, baseline, reference)


def bench(
    models: Run | Sequence[Run] | Mapping[str, PreTrainedModel],
    *,
    batch: int | Sequence[int] = 1,
    length: int | Sequence[int] = 128,
    runtimes: str | Sequence[str] = ("eager",),
    rounds: int = 15,
    threads: int | None = None,
    seed: int = 0,
    energy: bool = False,
    texts: Sequence[str] | None = None,
    progress: bool = True,
) -> BenchResult:
    """Time models in interleaved rounds; the first is the baseline. Every `batch` with every `length` in tokens.

    With `texts` not random tokens but those are timed, each as long as it is; `length` means nothing then, and models
    must be folders or hub names, which have tokenizers. With `energy` also joules of 1,000 texts, where the machine can
    tell. `models` are folders, hub names or runs, which stand for all their models, or model objects by name. Of
    several runtimes each has a process of its own, which gets the models exactly as they are here; a class of the
    script itself is not found there. Raises UserError for what cannot be loaded or run, and for less than one round.
    """
    from sparsebert.measurement.bench import bench as measure
    from sparsebert.measurement.setting import Setting, real_texts
    from sparsebert.measurement.verdicts import verdicts
    from sparsebert.models.named import open_model, sources
    from sparsebert.models.source import quiet

    if rounds < 1:
        raise UserError("A benchmark needs at least one round", got=rounds)
    if texts is not None and (isinstance(models, Mapping) or not texts):
        raise UserError("Texts need models with tokenizers", allowed="folders or hub names, and at least one text")
    runtimes = [runtimes] if isinstance(runtimes, str) else runtimes
    with silent(not progress), quiet(), busy("Loading the models") as update:
        found = {} if isinstance(models, Mapping) else sources([str(path) for path in _places(models)])
        opened = models if isinstance(models, Mapping) else {k: open_model(v) for k, v in found.items()}
        shapes = ([one] if isinstance(one, int) else one for one in (batch, length))
        settings = [Setting(*pair) for pair in product(*shapes)]
        real = None if texts is None else real_texts(found, texts, None)
        how: dict[str, Any] = {"threads": threads, "seed": seed, "energy": energy, "texts": real, "progress": update}
        rows = measure(opened, settings, runtimes, rounds=rounds, **how)
    return BenchResult(tuple(rows), tuple(verdicts(rows)))


def report(runs: Run | Sequence[Run], output: str | Path | None = None) -> Path:
    """Write one HTML page about runs, with its figures beside it, and give its path.

    Without `output` it is `report.html` in the folder of a single run, else here. Raises UserError where there is no
    run.
    """
    return report_records(runs, output)[0]


def report_records(runs: Run | Sequence[Run], output: str | Path | None) -> tuple[Path, list[Path], list[Record]]:
    """As `report`; the page, the files of the records that it is about, and these."""
    from sparsebert.reports import write_report
    from sparsebert.reports.glue_page import blocks_of

    folders = [Path(path) for path in _places(runs)]
    if not folders:
        raise UserError("A report needs at least one run", fix="give folders of runs, or what compress and others give")
    files = [file for folder in folders for file in record_files(folder)]
    records = [read_record(file) for file in files]
    page = Path(output) if output else default_page(folders)
    # Pages that are asked for by name may share a folder, with each other or with a run's own page.
    pictures = page.parent / "plots" if output is None else page.with_name(f"{page.stem}-plots")
    first = blocks_of(folders[0], records) if len(folders) == 1 else []
    return write_report(records, page, pictures, files, first), files, records


def _places(given: Run | Sequence[Run]) -> list[str | Path]:
    """One run or model, or several: their folders and names."""
    several = [given] if isinstance(given, str | Path | RunResult) else given
    return [one.folder if isinstance(one, RunResult) else one for one in several]


def default_page(runs: Sequence[Path]) -> Path:
    """Where the page about some runs goes if nothing else is said."""
    if len(runs) > 1:
        return Path("report.html")
    return (runs[0] if runs[0].is_dir() else runs[0].parent) / "report.html"


def run_recipe(
    kind: str | None,
    model: Model | None = None,
    /,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: str | None = None,
    data: Data | None = None,
    recipe: Path | str | Recipe | None = None,
    settings: Sequence[str] = (),
    output: Path | str | None = None,
    restart: bool = False,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    report_to: str | Sequence[str] = (),
    command: str = "a Python script",
    **values: Any,
) -> RunResult:
    """Carry out a recipe of a kind, in `output` or a folder named after the recipe.

    `model` is a folder, a hub name, or a model with its `tokenizer`; `data` a path, a `datasets.Dataset`, or a mapping
    of them with `train` and `validation`; `recipe` a YAML file, the name of a shipped one, or a Recipe. `values` are
    keys of the recipe, a mapping for a part of it (`finetune={"epochs": 3}`), and win over the recipe; `settings` are
    `key=value` texts, which win over all. `callbacks` of transformers take part in every training, and `report_to`
    (`tensorboard`, `wandb`, `mlflow`) are where it is logged; neither changes the recipe. Raises UserError for all that
    the caller can mend.
    """
    loggers_wanted = _texts(report_to)
    if loggers_wanted:
        from sparsebert.training.loggers import loggers

        loggers(loggers_wanted)
    home = (home_of(str(output)).parent if output else RUNS) / "inputs"
    with silent(not progress):
        if tokenizer is not None or not all(isinstance(one, str | Path | None) for one in (model, data)):
            from sparsebert.runs.given import data_path, model_name

            model = None if model is None else model_name(model, tokenizer, home)
            data = data_path(data, home)
        task = task or (OWN_TASK if data is not None and recipe is None else None)
        chosen = {"model": model, "task": task, "data": data}
        values = {key: str(value) for key, value in chosen.items() if value is not None} | values
        made = _recipe(kind, recipe, values, settings)
        folder = home_of(str(output or default_folder(made)))
        with busy("Starting"):
            from sparsebert.models.source import quiet
            from sparsebert.runs.run import run
        with quiet():
            record = run(made, folder, command, restart=restart, callbacks=callbacks, report_to=loggers_wanted)
            return RunResult(record, folder.resolve())


def default_folder(recipe: Recipe) -> Path:
    """`runs/MODEL-TASK-HASH`: the same recipe always finds the same folder."""
    model = home_of(recipe.model)
    name = (model.resolve() if model.is_dir() else model).name
    return RUNS / f"{name}-{recipe.task}-{recipe.hash}"


def _recipe(
    kind: str | None, recipe: Path | str | Recipe | None, values: Mapping[str, Any], settings: Sequence[str]
) -> Recipe:
    given = [setting(key, value) for key, value in _dotted(values)]
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, [*given, *settings], kind=kind)
    own = [setting(key, value) for key, value in recipe.plain().items()]
    return load_recipe(None, [*own, *given, *settings], kind=kind)


def _base_recipe(recipe: Path | str | Recipe, values: Mapping[str, Any], settings: Sequence[str]) -> Recipe:
    """A recipe, or the defaults of a run type, with values and settings."""
    is_kind = isinstance(recipe, str | Path) and str(recipe) in registry.names("recipe") and not Path(recipe).is_file()
    return _recipe(str(recipe), None, values, settings) if is_kind else _recipe(None, recipe, values, settings)


def _dotted(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A mapping changes the keys that it names, and leaves the others of its part alone."""
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{key}.{inner}", one) for inner, one in _dotted(value)]
        else:
            found.append((key, value))
    return found


def _several(values: Numbers) -> Sequence[float]:
    return [values] if isinstance(values, int | float) else list(values)


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
