"""`sparsebert pack`: a model with zeros in, a smaller file out, checked by loading it again."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from transformers import PreTrainedModel

from sparsebert.commands.output import put_json, quiet_libraries, say
from sparsebert.counts import disk_bytes
from sparsebert.errors import UserError
from sparsebert.models.heads import CLASSIFIER, LANGUAGE_MODEL, unknown_head
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import Packing, load_config, load_model, load_tokenizer, save_model
from sparsebert.models.pack import packed_bytes
from sparsebert.models.source import ModelSource, has_tokenizer, resolve
from sparsebert.report.values import megabytes
from sparsebert.surgeon import shrink


def pack(name: str, output: Path, bf16: bool, unpack: bool, json_wanted: bool) -> None:
    """Write `output` and say what it saves. Raises UserError if the folder is taken or the file does not come back."""
    if bf16 and unpack:
        raise UserError("A plain file keeps its numbers", got="--bf16 with --unpack", fix="leave one of them out")
    if output.exists():
        raise UserError("The output folder exists already", got=output, fix="choose another --output")
    source = resolve(name)
    head = unknown_head(load_config(source))
    if head is not None:
        raise UserError("A model with this head cannot be packed", got=head, allowed=f"{CLASSIFIER}, {LANGUAGE_MODEL}")
    with quiet_libraries(), Console(stderr=True).status("Packing"):
        model = load_model(source)
        small = shrink(model, {})
        tokenizer = load_tokenizer(source) if has_tokenizer(source.path) else None
        save_model(small, tokenizer, output, None if unpack else Packing(bf16))
        exact = _compare(small, load_model(resolve(str(output))), bf16 and not unpack)
        facts = _facts(model, source, output, bf16 and not unpack) | {"exact": exact}
    if json_wanted:
        put_json(facts)
        return
    say(
        f"{megabytes(facts['bytes_before'] / 1e6)} -> {megabytes(facts['bytes_after'] / 1e6)}, loads again, "
        + ("bit for bit." if exact else "matrices rounded to bfloat16.")
    )
    if not unpack:
        say(
            f"Encoder matrices: {facts['encoder_zeros']:.1%} zeros, "
            f"{facts['encoder_packed_part']:.3f} of their dense fp32 bytes."
        )
    say(f"Model: {output}")


def _compare(before: PreTrainedModel, after: PreTrainedModel, rounded: bool) -> bool:
    """Whether every tensor came back bit for bit; with rounding, whether as bfloat16 has it."""
    own, exact = after.state_dict(), True
    for name, tensor in before.state_dict().items():
        if not torch.equal(tensor, own[name]):
            exact = False
            if not rounded or not torch.equal(tensor.to(torch.bfloat16).to(tensor.dtype), own[name]):
                raise RuntimeError(f"{name} did not come back from the packed file")
    return exact


def _facts(model: PreTrainedModel, source: ModelSource, output: Path, bf16: bool) -> dict:
    weights = {name: model.get_parameter(name).detach() for name in encoder_linear_names(model)}
    count = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return {
        "bytes_before": disk_bytes(source.path),
        "bytes_after": disk_bytes(output),
        "encoder_zeros": zeros / count,
        "encoder_packed_part": packed_bytes(weights, bf16) / (4 * count),
        "output": str(output),
    }
