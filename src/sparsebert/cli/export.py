"""`sparsebert export`: a model in, a folder of programs for ONNX Runtime and OpenVINO out, checked and scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import (
    COMMON,
    DATA,
    HOW,
    DataOption,
    DebugOption,
    DelimiterOption,
    EncodingOption,
    JsonOption,
    KindOption,
    LabelColumnOption,
    RecipeOption,
    SetOption,
    TaskOption,
    TextColumnOption,
)
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.deployment.manifest import Manifest
    from sparsebert.recipe.base import Recipe

# Kinds of runs whose models have a head for labelled rows, and the keys of their recipes that say which rows these are.
LABELLED = ("compress", "train", "fff", "finetune", "prune-curve")
WHICH_ROWS = ("task", "data", "columns", "data_seed", "train_examples", "hold_out")
# Points of the main metric that 8 bits may take without a word.
MUCH = 0.5
# The runtime of an engine at a precision; ONNX Runtime has none for bfloat16 on the CPU.
RUNTIMES = {
    ("onnx", "fp32"): "onnx",
    ("onnx", "int8"): "onnx-int8",
    ("openvino", "fp32"): "openvino",
    ("openvino", "bf16"): "openvino-bf16",
    ("openvino", "int8"): "openvino-int8",
}


def export(
    model: Annotated[str, typer.Argument(help="Folder or hub name: plain, shrunk, packed, or with trees.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the programs.", rich_help_panel=COMMON)
    ],
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="ENGINE", help="onnx or openvino; repeatable. Default onnx.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="NAME", help="fp32, bf16 or int8; repeatable. Default fp32."),
    ] = None,
    task: TaskOption = None,
    data: DataOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    no_data: Annotated[
        bool,
        typer.Option("--no-data", help="Check on texts that ship with the package; no scores.", rich_help_panel=DATA),
    ] = False,
    calibration: Annotated[
        int,
        typer.Option(min=1, metavar="TEXTS", help="Train rows that set the scales of int8.", rich_help_panel=DATA),
    ] = 300,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", help="Write nothing if a program loses more of the main metric.", rich_help_panel=HOW
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS", help="Longest text. Default: what the model was trained at.", rich_help_panel=DATA
        ),
    ] = None,
    keep_fp32: Annotated[
        int,
        typer.Option(
            "--keep-fp32",
            min=0,
            metavar="N",
            help="Linear layers that int8 leaves in float32: those whose rounding changes answers to train rows most.",
            rich_help_panel=HOW,
        ),
    ] = 0,
    recipe: RecipeOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a model as programs that run without torch, each checked against it and scored.

    The task and its data are those of the run that made the model, where they are not given. With them every program
    is scored on the validation rows, and train rows set the scales of int8.
    """
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, quiet_libraries, remark, say
        from sparsebert.cli.settings import task_settings
        from sparsebert.progress import busy
        from sparsebert.reports.usage import asking
        from sparsebert.runs.export import Wish
        from sparsebert.runs.export import export as make

        given = task_settings(task, data, text_column, label_column, kind, delimiter, encoding)
        runtimes = _runtimes(to or ["onnx"], precision or ["fp32"])
        wanted = None if no_data else _recipe(model, recipe, given, settings or [])
        if wanted is None and max_drop is not None:
            raise UserError("--max-drop needs rows to score on", fix="give --task or --data, and not --no-data")
        wish = Wish(model, output, runtimes, wanted, calibration, max_drop, max_length, keep_fp32)
        with quiet_libraries(), busy("Reading the model and the data") as update:
            made = make(wish, update)
        if as_json:
            put_json(made.model_dump(mode="json", exclude_none=True))
            return
        _show(made)
        for line in _losses(made):
            remark(line)
        for note in made.notes:
            remark(f"Note: {note}")
        # What is fine-tuned for no task gives outputs, which `predict` has no words for.
        ready = "" if made.kind is None else f" Next: {asking(str(output), made.kind == 'spans')}"
        say(f"Written to {output}.{ready}")


def _runtimes(engines: Sequence[str], precisions: Sequence[str]) -> tuple[str, ...]:
    """Every engine at every precision. Raises UserError for what there is none of."""
    pairs = [(engine, precision) for engine in engines for precision in precisions]
    for pair in pairs:
        if pair not in RUNTIMES:
            allowed = ", ".join(" ".join(known) for known in RUNTIMES)
            raise UserError("There is no such program", got=" ".join(pair), allowed=allowed)
    return tuple(dict.fromkeys(RUNTIMES[pair] for pair in pairs))


def _recipe(model: str, file: Path | None, given: dict[str, object], settings: Sequence[str]) -> Recipe | None:
    """The recipe that says task and data: the user's, or that of the run which made the model; none = no data."""
    from sparsebert.cli.settings import as_settings, recipe_of
    from sparsebert.files import home_of
    from sparsebert.models.named import record_beside
    from sparsebert.recipe.load import load_recipe, setting

    if file is not None or given["task"] is not None or given["data"] is not None:
        return recipe_of(file, given, settings)
    record = record_beside(home_of(model)) if home_of(model).is_dir() else None
    if record is None or record.kind not in LABELLED:
        if settings or any(value is not None for value in given.values()):
            raise UserError("Nothing says which task the model is for", fix="give --task or --data")
        return None
    own = [setting(key, record.recipe[key]) for key in WHICH_ROWS if key in record.recipe]
    return load_recipe(None, [*own, *as_settings(given), *settings])


def _show(made: Manifest) -> None:
    from sparsebert.cli.output import say, show, table
    from sparsebert.reports import values as v

    main = made.scores[0].metric if made.scores else None
    drawn = table("Program", "File", "MB", "Apart", "Alike", *([main, "Change"] if main else []), right=range(2, 7))
    before = made.scores[0].value if made.scores else None
    for one in made.programs:
        row = [one.runtime, one.file, f"{one.bytes_on_disk / 1e6:.1f}", f"{one.relative_difference:.1e}"]
        row.append(v.DASH if one.agreement is None else f"{one.agreement:.1%}")
        if before is not None:
            score = one.scores[0]
            row += [v.fraction(score.value), f"{100 * (score.value - before):+.2f}"]
        drawn.add_row(*row)
    show(drawn)
    texts = made.programs[0].texts
    said = f"Apart: the largest difference from torch in float32 on {texts} texts, over the largest output."
    if any(one.agreement is not None for one in made.programs):
        said += " Alike: the part of them that is decided alike."
    if before is not None:
        said += f" Torch has {main} {v.fraction(before)} on {made.scores[0].examples} rows; changes are in points."
    for one in made.programs:
        if one.way is not None:
            said += f" {one.runtime} is {one.way}, of {len(one.divergences)} ways the nearest to torch on train rows."
        if one.kept:
            said += f" {one.runtime} keeps in float32: {', '.join(one.kept)}."
    say(said)


def _losses(made: Manifest) -> list[str]:
    """A line for each program in int8 that loses more than it should, with what may help."""
    if not made.scores or made.scores[0].value is None:
        return []
    lines = list[str]()
    for one in made.programs:
        now = one.scores[0].value
        lost = None if now is None else 100 * (made.scores[0].value - now)
        if one.precision == "int8" and lost is not None and lost > MUCH:
            more = "A higher --keep-fp32" if one.kept else "--keep-fp32 2"
            lines.append(f"{one.runtime} loses {lost:.2f} points. {more} may help, and costs some speed.")
    return lines
