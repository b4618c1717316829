"""What a model holds and costs: parameters, FLOPs, bytes, and the three sparsities against the model it came from.

Knows tensors and names, not families: `encoder_linear` holds the names of the linear weights of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.records import Size, Sparsity

# Of one forward pass. Activations of more fit into no memory, and asking for them ends the process.
MOST_TOKENS = 2**24
ROWS_A_TEXT = "rows_a_text"
"""The attribute of a model that takes more rows of a batch than one for each text, such as two for a pair."""


@dataclass(frozen=True)
class Footprint:
    """What sparsity is computed from: weights, and those of them that are not exactly zero."""

    encoder_linear: int
    encoder_linear_nonzero: int
    whole_model: int
    whole_model_nonzero: int
    bytes_on_disk: int


def sizes(
    model: PreTrainedModel,
    encoder_linear: Sequence[str],
    flops_at: tuple[int, int] | None = None,
    bytes_on_disk: int | None = None,
) -> Size:
    """Count parameters (a tied one once), and the FLOPs of a forward pass at (batch, length) if that is given.

    Encoder linear parameters are those weights, without biases; embedding parameters are those of every nn.Embedding.
    """
    batch, length = flops_at or (None, None)
    return Size(
        parameters=_count(model.parameters()),
        encoder_linear_parameters=_count(_weights(model, encoder_linear)),
        embedding_parameters=_count(m.weight for m in model.modules() if isinstance(m, nn.Embedding)),
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        bytes_on_disk=bytes_on_disk,
        flops=flops(model, *flops_at) if flops_at else None,
        flops_batch=batch,
        flops_length=length,
    )


def flops(model: PreTrainedModel, batch: int, length: int) -> int:
    """Floating-point operations of one forward pass without padding; a multiply-add is two.

    Matrix products only, as torch.utils.flop_counter does. That counter does not know the fused attention kernel of
    the CPU, so attention runs as plain matrix products while it counts.
    """
    inputs = example_inputs([model], batch, length)
    with counted_flops() as counter, torch.no_grad():
        model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
    return counter.get_total_flops()


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts the floating-point operations of the block as `flops` does."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def example_inputs(models: Sequence[PreTrainedModel], batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Random tokens that every one of `models` knows, [batch, length], with a full attention mask.

    Models that read the sides of a pair apart take two rows for each of `batch` pairs, one below the other. Ids are
    uniform over the smallest vocabulary, without padding tokens. Raises UserError for an empty input or one of more
    than MOST_TOKENS, for a length that a model has no positions for, and for models of both sorts at once.
    """
    if batch < 1 or length < 1:
        raise UserError("Batch and length must be at least 1", got=f"{batch} x {length}")
    rows = {int(vars(model).get(ROWS_A_TEXT, 1)) for model in models}
    if len(rows) > 1:
        raise UserError("Models that read pairs apart and others take no input in common", fix="give one sort only")
    batch = batch * rows.pop()
    if batch * length > MOST_TOKENS:
        allowed = f"up to {MOST_TOKENS:,} tokens"
        raise UserError("That is more input than fits into memory", got=f"{batch} x {length}", allowed=allowed)
    for model in models:
        _check_length(model, length)
    vocabulary = torch.arange(min(model.config.vocab_size for model in models))
    padding = torch.tensor([-1 if m.config.pad_token_id is None else m.config.pad_token_id for m in models])
    tokens = vocabulary[~torch.isin(vocabulary, padding)]
    picks = torch.randint(len(tokens), (batch, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": tokens[picks], "attention_mask": torch.ones(batch, length, dtype=torch.long)}


def footprint(model: nn.Module, encoder_linear: Sequence[str], bytes_on_disk: int) -> Footprint:
    """Weights of `model`, all and those that are not zero, with the bytes of the files that it was saved to."""
    encoder, whole = _weights(model, encoder_linear), list(model.parameters())
    return Footprint(
        encoder_linear=_count(encoder),
        encoder_linear_nonzero=sum(int(weight.count_nonzero()) for weight in encoder),
        whole_model=_count(whole),
        whole_model_nonzero=sum(int(weight.count_nonzero()) for weight in whole),
        bytes_on_disk=bytes_on_disk,
    )


def zero_share(model: nn.Module, encoder_linear: Sequence[str]) -> float:
    """Fraction of the encoder's linear weights that are exactly zero, 0-1; 0 where there are none."""
    weights = _weights(model, encoder_linear)
    return _removed(_count(weights), sum(int(weight.count_nonzero()) for weight in weights))


def sparsity(start: Footprint, small: Footprint) -> Sparsity:
    """Fractions, 0-1, of the weights and bytes of `start` that `small` is without: cut away or exactly zero.

    All weights of `start` count, its zeros too, so that zeros which were there before are sparsity as well. Negative
    if `small` has more weights than `start`, as one with trees may.
    """
    return Sparsity(
        encoder_linear=_removed(start.encoder_linear, small.encoder_linear_nonzero),
        whole_model=_removed(start.whole_model, small.whole_model_nonzero),
        bytes_on_disk=_removed(start.bytes_on_disk, small.bytes_on_disk),
    )


def _removed(before: int, after: int) -> float:
    return 1 - after / before if before else 0.0


def _weights(model: nn.Module, names: Iterable[str]) -> list[Tensor]:
    return [model.get_parameter(name) for name in names]


def _count(parameters: Iterable[Tensor]) -> int:
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())


def _check_length(model: nn.Module, length: int) -> None:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            rows = next(table for table in own if table.dim() == 2).shape[0]
            # RoBERTa numbers its positions from the padding id on, so the first rows are not for tokens.
            padding = module.padding_idx if isinstance(module, nn.Embedding) else None
            longest = rows - (0 if padding is None else padding + 1)
            if length > longest:
                raise UserError("The model has no positions for that length", got=length, allowed=f"1 to {longest}")
