"""`sparsebert pack`: a model with zeros in, a smaller file out, checked by loading it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, HOW, DebugOption, JsonOption
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparsebert.models.load import Packing
    from sparsebert.models.source import ModelSource


def pack(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model with many zeros.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the packed model.", rich_help_panel=COMMON)
    ],
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Round matrices to bfloat16: half the bytes.", rich_help_panel=HOW)
    ] = False,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="The other way round: write plain safetensors.", rich_help_panel=HOW)
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make the file of a model with zeros small: bits for places, and only the values that are left."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json

        facts = _pack(model, output, bf16, unpack)
        if as_json:
            put_json(facts)
        else:
            _print(facts, unpack)


def _pack(name: str, output: Path, bf16: bool, unpack: bool) -> dict[str, Any]:
    """Write `output` and give what it saves: other weight files, and all that lay beside them.

    Raises UserError if the folder is taken, or holds what cannot be carried over; then nothing is left behind.
    """
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.models.load import Packing
    from sparsebert.models.named import carried_files
    from sparsebert.models.source import resolve
    from sparsebert.progress import busy

    if bf16 and unpack:
        raise UserError("A plain file keeps its numbers", got="--bf16 with --unpack", fix="leave one of them out")
    if output.exists():
        raise UserError("The output folder exists already", got=output, fix="choose another --output")
    source = resolve(name)
    _check_head(source)
    beside = carried_files(source.path)
    with quiet_libraries(), busy("Packing"):
        return _write(source, beside, output, None if unpack else Packing(bf16))


def _check_head(source: ModelSource) -> None:
    from sparsebert.models.heads import CLASSIFIER, LANGUAGE_MODEL, unknown_head
    from sparsebert.models.load import load_config

    head = unknown_head(load_config(source))
    if head is not None:
        raise UserError("A model with this head cannot be packed", got=head, allowed=f"{CLASSIFIER}, {LANGUAGE_MODEL}")


def _write(source: ModelSource, beside: Sequence[Path], output: Path, packing: Packing | None) -> dict[str, Any]:
    """The folder appears under its name when it is whole and has been read again."""
    from sparsebert.files import folder_beside
    from sparsebert.models.companions import carry_over
    from sparsebert.models.load import load_model, save_model
    from sparsebert.models.surgeon import shrink

    model = load_model(source)
    small, rounded = shrink(model, {}), packing is not None and packing.bf16
    try:
        with folder_beside(output) as place:
            made = place / output.name
            save_model(small, None, made, packing)
            carried = carry_over(source.path, beside, made)
            exact = _compare(small, load_model(made), rounded)
            facts = _facts(model, source, made, rounded)
            os.replace(made, output)
    except OSError as error:
        raise UserError(f"The model could not be written: {error}", got=output, fix="free some disk space") from None
    return facts | {"exact": exact, "carried_over": [str(file) for file in carried], "output": str(output)}


def _compare(before: PreTrainedModel, after: PreTrainedModel, rounded: bool) -> bool:
    """Whether every tensor came back bit for bit; with rounding, whether as bfloat16 has it."""
    import torch

    own, exact = after.state_dict(), True
    for name, tensor in before.state_dict().items():
        if not torch.equal(tensor, own[name]):
            exact = False
            if not rounded or not torch.equal(tensor.to(torch.bfloat16).to(tensor.dtype), own[name]):
                raise RuntimeError(f"{name} did not come back from the packed file")
    return exact


def _facts(model: PreTrainedModel, source: ModelSource, made: Path, bf16: bool) -> dict[str, Any]:
    from sparsebert.models.layout import encoder_linear_names
    from sparsebert.models.pack import packed_bytes
    from sparsebert.models.source import disk_bytes

    weights = {name: model.get_parameter(name).detach() for name in encoder_linear_names(model)}
    count = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return {
        "bytes_before": disk_bytes(source.path),
        "bytes_after": disk_bytes(made),
        "encoder_zeros": zeros / count if count else None,
        "encoder_packed_part": packed_bytes(weights, bf16) / (4 * count) if count else None,
    }


def _print(facts: dict[str, Any], unpack: bool) -> None:
    from sparsebert.cli.output import say
    from sparsebert.reports.values import megabytes

    say(
        f"{megabytes(facts['bytes_before'] / 1e6)} -> {megabytes(facts['bytes_after'] / 1e6)}, loads again, "
        + ("bit for bit." if facts["exact"] else "matrices rounded to bfloat16.")
    )
    if not unpack and facts["encoder_zeros"] is not None:
        say(
            f"Encoder matrices: {facts['encoder_zeros']:.1%} zeros, "
            f"{facts['encoder_packed_part']:.1%} of their dense fp32 bytes."
        )
    say(f"Other files that came along: {', '.join(facts['carried_over']) or 'none'}")
    say(f"Model: {facts['output']}")
