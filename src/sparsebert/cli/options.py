"""The options that several commands share, each declared once, and the panels of the help that options stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA, HOW = "Data", "How"
SPEED, COMMON = "Setting that speed is about", "Common to all commands"


def shipped() -> list[str]:
    """Names of the recipes that come with the package, for shells that complete words."""
    from sparsebert.recipe.load import shipped_recipes

    return shipped_recipes()


ModelArgument = Annotated[str | None, typer.Argument(help="Folder or hub name.", show_default="the recipe's")]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Recipe in YAML, or a name of `sparsebert recipes`.",
        autocompletion=shipped,
        rich_help_panel=COMMON,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any value of the recipe; wins over all else.", rich_help_panel=COMMON
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Default 0.", rich_help_panel=COMMON)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel=COMMON)]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error, and warnings.", rich_help_panel=COMMON)
]
OutputFolderOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Default runs/MODEL-TASK-RECIPE_HASH.", rich_help_panel=COMMON),
]
RestartOption = Annotated[
    bool,
    typer.Option(
        "--restart", help="Remove what an earlier run left in the output folder first.", rich_help_panel=COMMON
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(help="A name of `sparsebert tasks`, or any other name with --data.", rich_help_panel=DATA),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Your own file (.csv, .tsv, .jsonl, .parquet; .txt where there are no labels; .conll and the like for "
        "tokens) or folder with train.* and validation.*; "
        "for a GLUE task a folder DIR/TASK/*.parquet, else the hub; for CS224N the folder of the course's files.",
        rich_help_panel=DATA,
    ),
]
TextColumnOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Text column of your file; twice for pairs of texts.", rich_help_panel=DATA),
]
LabelColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Label column of your file; of multilabel also several of 0 and 1, one a label.",
        rich_help_panel=DATA,
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="NAME",
        help="What labels are: classification (default), regression, multilabel, tokens (a tag for each word), spans "
        "(answers to questions in texts); of pairs whose sides are read apart pair_classification, pair_similarity; "
        "embeddings, embedding_pairs, ranking and masked_lm have none.",
        rich_help_panel=DATA,
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        metavar="NAME",
        help="Of embeddings, for a model whose folder does not say it: mean, cls, max, mean_sqrt_len_tokens, "
        "weightedmean, lasttoken.",
        rich_help_panel=DATA,
    ),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(metavar="CHAR", help="Between the values of your CSV file. Default: found out.", rich_help_panel=DATA),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Of your file, such as cp1252. Default: by its mark, or UTF-8.", rich_help_panel=DATA
    ),
]
TrainExamplesOption = Annotated[
    int | None, typer.Option(metavar="N", help="Use only N training rows.", rich_help_panel=DATA)
]
ReportToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--report-to",
        metavar="NAME",
        help="Also log every training to tensorboard (in the run's folder), wandb or mlflow; repeatable.",
        rich_help_panel=COMMON,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="bf16|int8|int4",
        help="Store weights in so many bits; what loads, in float32, is what is scored.",
        rich_help_panel=HOW,
    ),
]
EmbeddingWeightsOption = Annotated[
    str | None,
    typer.Option(
        "--embedding-weights",
        metavar="bf16|int8|int4",
        help="The same for tables of embeddings alone. Default: as --weights.",
        rich_help_panel=HOW,
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(help="Default: what torch takes.", rich_help_panel=SPEED)]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="Where runs go: local (one after the other), local:N (N processes of this machine), ray (the cluster of "
        "RAY_ADDRESS, else this machine) or ray://HOST:PORT. Default local.",
        rich_help_panel=HOW,
    ),
]
