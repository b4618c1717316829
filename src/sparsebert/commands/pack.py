"""`sparsebert pack`: a model with zeros in, a smaller file out, checked by loading it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sparsebert.commands.output import put_json, quiet_libraries, say
from sparsebert.errors import UserError
from sparsebert.files import folder_beside
from sparsebert.models.companions import carry_over, companions
from sparsebert.models.heads import CLASSIFIER, LANGUAGE_MODEL, unknown_head
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import Packing, load_config, load_model, save_model
from sparsebert.models.pack import packed_bytes
from sparsebert.models.source import ModelSource, disk_bytes, resolve
from sparsebert.models.surgeon import shrink
from sparsebert.progress import busy
from sparsebert.reports.values import megabytes


def pack(name: str, output: Path, bf16: bool, unpack: bool, json_wanted: bool) -> None:
    """Write `output` and say what it saves: other weight files, and all that lay beside them.

    Raises UserError if the folder is taken, or holds what cannot be carried over; then nothing is left behind.
    """
    if bf16 and unpack:
        raise UserError("A plain file keeps its numbers", got="--bf16 with --unpack", fix="leave one of them out")
    if output.exists():
        raise UserError("The output folder exists already", got=output, fix="choose another --output")
    source = resolve(name)
    head = unknown_head(load_config(source))
    if head is not None:
        raise UserError("A model with this head cannot be packed", got=head, allowed=f"{CLASSIFIER}, {LANGUAGE_MODEL}")
    beside = companions(source.path)
    with quiet_libraries(), busy("Packing"):
        facts = _write(source, beside, output, None if unpack else Packing(bf16))
    if json_wanted:
        put_json(facts)
        return
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
    say(f"Model: {output}")


def _write(source: ModelSource, beside: Sequence[Path], output: Path, packing: Packing | None) -> dict:
    """The folder appears under its name when it is whole and has been read again."""
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
    own, exact = after.state_dict(), True
    for name, tensor in before.state_dict().items():
        if not torch.equal(tensor, own[name]):
            exact = False
            if not rounded or not torch.equal(tensor.to(torch.bfloat16).to(tensor.dtype), own[name]):
                raise RuntimeError(f"{name} did not come back from the packed file")
    return exact


def _facts(model: PreTrainedModel, source: ModelSource, made: Path, bf16: bool) -> dict:
    weights = {name: model.get_parameter(name).detach() for name in encoder_linear_names(model)}
    count = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return {
        "bytes_before": disk_bytes(source.path),
        "bytes_after": disk_bytes(made),
        "encoder_zeros": zeros / count if count else None,
        "encoder_packed_part": packed_bytes(weights, bf16) / (4 * count) if count else None,
    }
