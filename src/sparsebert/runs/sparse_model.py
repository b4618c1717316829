"""Models with many zeros, as a run measures and saves them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.counts import footprint
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import Packing, save_model
from sparsebert.models.pack import packed_bytes
from sparsebert.models.surgeon import shrink
from sparsebert.runs.run_type import Start

# Of the plain file's bytes: less is not worth that only this package loads it.
WORTH_PACKING = 0.95


def save_sparse(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, packed: bool) -> None:
    """Save a model, if `packed` with zeros as bits where that makes the file clearly smaller."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    plain = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if packed and packed_bytes(tensors) < WORTH_PACKING * plain:
        save_model(shrink(model, {}), tokenizer, folder, Packing())
    else:
        save_model(model, tokenizer, folder)


def zeros_by_tensor(model: PreTrainedModel) -> dict[str, float]:
    """Fraction of zeros, 0-1, of each of the encoder's linear weights."""
    weights = {name: model.get_parameter(name) for name in encoder_linear_names(model)}
    filled = {name: weight for name, weight in weights.items() if weight.numel()}
    return {name: round(1 - int(weight.count_nonzero()) / weight.numel(), 6) for name, weight in filled.items()}


def start_of(model: PreTrainedModel) -> Start:
    """The model that training starts from, with the bytes that it would take as a file, without writing it."""
    tensors = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    return Start(model, footprint(model, encoder_linear_names(model), len(save(tensors))))
