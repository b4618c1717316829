"""`sparsebert study`: checkpoints in, the answer to one question about them out."""

from __future__ import annotations

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
    SeedOption,
    TaskOption,
    TextColumnOption,
)
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.reports.study import StudyResult


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The study; without it all are listed.", show_default=False)
    ] = None,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Folders or hub names of models, or run folders, which stand for all their models.",
            show_default=False,
        ),
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(
            metavar="PART",
            help="Look at the masks that pruning each matrix by magnitude would give at this sparsity, 0-1, instead of "
            "at the zeros that are there; repeatable.",
            rich_help_panel=HOW,
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SIZE",
            help="Count weights of a smaller magnitude than this; repeatable. Default 0.001, 0.01, 0.1.",
            rich_help_panel=HOW,
        ),
    ] = None,
    criterion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare this criterion of pruning, or package.module:name of yours; twice or more. Default all.",
            rich_help_panel=HOW,
        ),
    ] = None,
    task: TaskOption = None,
    data: DataOption = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your texts, without labels: a text a line, or .csv, .tsv, .jsonl, .parquet.",
            rich_help_panel=DATA,
        ),
    ] = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    kind: KindOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    examples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use only N texts, drawn with the seed.", rich_help_panel=DATA),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Also write the table as Markdown, the figure as PNG and the numbers as JSON there.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer one question about checkpoints with a table, a figure and a sentence; without a name, list them."""
    with cli_errors(debug):
        if name is None:
            _list(as_json)
            return
        from sparsebert.cli.output import quiet_libraries
        from sparsebert.cli.settings import recipe_of, task_settings
        from sparsebert.progress import busy
        from sparsebert.reports.study_files import check_folder
        from sparsebert.studies.study import StudyOptions

        if output is not None:
            check_folder(output)
        own = task_settings(task, data, *_of_task(texts, text_column, label_column, kind, delimiter, encoding))
        made = recipe_of(None, own, [])
        first, second = _texts(texts, text_column or [], delimiter, encoding) if texts else ((), ())
        options = StudyOptions(
            task=made.task if any(value is not None for value in own.values()) else None,
            data=made.data,
            columns=made.columns,
            texts=first,
            second=second,
            examples=examples,
            sparsity=tuple(sparsity or ()),
            threshold=tuple(threshold or ()),
            criterion=tuple(criterion or ()),
            seed=seed or 0,
        )
        with quiet_libraries(), busy("Asking") as update:
            from sparsebert.studies.ask import study as ask

            found = ask(name, checkpoints or [], options, update)
        _show(found, output, as_json)


def _list(json_wanted: bool) -> None:
    from sparsebert import registry
    from sparsebert.cli.output import put_json, show, table
    from sparsebert.studies.study import CheckpointStudy, RecordStudy

    known: dict[str, CheckpointStudy | RecordStudy] = {
        name: registry.get("study", name) for name in registry.names("study")
    }
    if json_wanted:
        put_json([{"name": name, "question": one.summary, "options": list(one.takes)} for name, one in known.items()])
        return
    rows = table("Study", "Asks", "Options", whole=(0,))
    for name, one in known.items():
        rows.add_row(name, one.summary, ", ".join(f"--{option}" for option in one.takes))
    show(rows)


def _texts(
    file: Path, columns: list[str], delimiter: str | None, encoding: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both sides of the texts of a file that hold a letter; the second may be empty."""
    from sparsebert.cli.texts import texts_of
    from sparsebert.data.text import Written

    found = texts_of([], file, columns, None, Written(delimiter, encoding), "--texts")
    kept = [row for row, text in enumerate(found.first) if text.strip()]
    if not kept:
        raise UserError("There is no text in the file", got=file)
    second = () if found.second is None else tuple(found.second[row] for row in kept)
    return tuple(found.first[row] for row in kept), second


def _of_task(
    texts: Path | None,
    text: list[str] | None,
    label: list[str] | None,
    kind: str | None,
    delimiter: str | None,
    encoding: str | None,
) -> tuple[list[str] | None, list[str] | None, str | None, str | None, str | None]:
    """What of it says where a task's rows are; how the file of --texts is written is no part of that."""
    return (text, label, kind, delimiter, encoding) if texts is None else (None, label, kind, None, None)


def _show(found: StudyResult, output: Path | None, json_wanted: bool) -> None:
    from sparsebert.cli.output import put_json, say, show
    from sparsebert.cli.runs import command_line
    from sparsebert.reports import as_rich
    from sparsebert.reports.study import study_json, study_table
    from sparsebert.reports.study_files import write_study

    files = write_study(found, output, command_line()) if output is not None else []
    if json_wanted:
        put_json(study_json(found) | ({"files": [str(file) for file in files]} if files else {}))
        return
    show(as_rich(study_table(found)))
    say(found.answer)
    for file in files:
        say(f"Written: {file}")
