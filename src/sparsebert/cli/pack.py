"""`sparsebert pack`: a model with zeros in, a smaller file out, checked by loading it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, HOW, DebugOption, EmbeddingWeightsOption, JsonOption, WeightsOption
from sparsebert.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparsebert.models.source import ModelSource
    from sparsebert.models.storage import Packing
    from sparsebert.recipe.storing import Weights


def pack(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model with many zeros.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the packed model.", rich_help_panel=COMMON)
    ],
    weights: WeightsOption = None,
    embedding_weights: EmbeddingWeightsOption = None,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="The other way round: write plain safetensors.", rich_help_panel=HOW)
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make the file of a model small: zeros as bits for places, and if asked for weights in fewer bits."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json

        facts = _pack(model, output, weights, embedding_weights, unpack)
        if as_json:
            put_json(facts)
        else:
            _print(facts, unpack)


def _pack(name: str, output: Path, weights: str | None, embeddings: str | None, unpack: bool) -> dict[str, Any]:
    """Write `output` and give what it saves: other weight files, and all that lay beside them.

    Raises UserError if the folder is taken, or holds what cannot be carried over; then nothing is left behind.
    """
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.models.named import carried_files
    from sparsebert.models.source import resolve
    from sparsebert.models.storage import Packing
    from sparsebert.progress import busy

    packing = Packing(_checked("--weights", weights), _checked("--embedding-weights", embeddings), plain=unpack)
    if output.exists():
        raise UserError("The output folder exists already", got=output, fix="choose another --output")
    source = resolve(name)
    _check_head(source)
    beside = carried_files(source.path)
    with quiet_libraries(), busy("Packing"):
        return _write(source, beside, output, packing)


def _check_head(source: ModelSource) -> None:
    from sparsebert.models.heads import CLASSIFIER, LANGUAGE_MODEL, unknown_head
    from sparsebert.models.load import load_config

    head = unknown_head(load_config(source))
    if head is not None:
        raise UserError("A model with this head cannot be packed", got=head, allowed=f"{CLASSIFIER}, {LANGUAGE_MODEL}")


def _write(source: ModelSource, beside: Sequence[Path], output: Path, packing: Packing) -> dict[str, Any]:
    """The folder appears under its name when it is whole and has been read again."""
    from sparsebert.files import folder_beside
    from sparsebert.models.companions import carry_over
    from sparsebert.models.load import load_model, save_model
    from sparsebert.models.surgeon import shrink

    model = load_model(source)
    small = shrink(model, {})
    try:
        with folder_beside(output) as place:
            made = place / output.name
            save_model(small, None, made, packing)
            carried = carry_over(source.path, beside, made)
            exact = _compare(small, load_model(made), packing)
            facts = _facts(model, source, made, packing)
            os.replace(made, output)
    except OSError as error:
        raise UserError(f"The model could not be written: {error}", got=output, fix="free some disk space") from None
    return facts | {"exact": exact, "carried_over": [str(file) for file in carried], "output": str(output)}


def _checked(option: str, given: str | None) -> Weights | None:
    from sparsebert.recipe.storing import Weights

    found: Weights | None = next((known for known in get_args(Weights) if known == given), None)
    if given is not None and found is None:
        raise UserError(f"There is no such {option}", got=given, allowed=", ".join(get_args(Weights)))
    return found


def _compare(before: PreTrainedModel, after: PreTrainedModel, packing: Packing) -> bool:
    """Whether every tensor came back bit for bit, and not only as it was rounded."""
    import torch

    from sparsebert.models.pack import pack, unpack
    from sparsebert.models.storage import rounding_of

    # A matrix that two parts share is in the file under the first of its names, and rounded as that one is.
    names = {name for name, _ in (*before.named_parameters(), *before.named_buffers())}
    given = {name: tensor for name, tensor in before.state_dict().items() if name in names}
    own = after.state_dict()
    expected = unpack(*pack(given, rounding_of(before, packing)))
    wrong = [name for name, tensor in expected.items() if not torch.equal(tensor, own[name])]
    if wrong:
        raise RuntimeError(f"{wrong[0]} did not come back from the file")
    return all(torch.equal(tensor, own[name]) for name, tensor in given.items())


def _facts(model: PreTrainedModel, source: ModelSource, made: Path, packing: Packing) -> dict[str, Any]:
    from sparsebert.models.layout import encoder_linear_names
    from sparsebert.models.pack import packed_bytes
    from sparsebert.models.source import disk_bytes
    from sparsebert.models.storage import rounding_of

    weights = {name: model.get_parameter(name).detach() for name in encoder_linear_names(model)}
    count = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return {
        "bytes_before": disk_bytes(source.path),
        "bytes_after": disk_bytes(made),
        "encoder_zeros": zeros / count if count else None,
        "encoder_packed_part": packed_bytes(weights, rounding_of(model, packing)) / (4 * count) if count else None,
    }


def _print(facts: dict[str, Any], unpack: bool) -> None:
    from sparsebert.cli.output import say
    from sparsebert.reports.values import megabytes

    say(
        f"{megabytes(facts['bytes_before'] / 1e6)} -> {megabytes(facts['bytes_after'] / 1e6)}, loads again, "
        + ("bit for bit." if facts["exact"] else "weights rounded.")
    )
    if not unpack and facts["encoder_zeros"] is not None:
        say(
            f"Encoder matrices: {facts['encoder_zeros']:.1%} zeros, "
            f"{facts['encoder_packed_part']:.1%} of their dense fp32 bytes."
        )
    say(f"Other files that came along: {', '.join(facts['carried_over']) or 'none'}")
    say(f"Model: {facts['output']}")
