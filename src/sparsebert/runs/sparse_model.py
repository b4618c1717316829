"""Models with many zeros, as a run measures and saves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.counts import footprint
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import save_model, saved_part
from sparsebert.models.pack import packed_bytes
from sparsebert.models.rounding import blank_codes
from sparsebert.models.source import disk_bytes
from sparsebert.models.storage import Packing, rounding_of, store
from sparsebert.models.surgeon import shrink
from sparsebert.recipe.storing import LEVELLED, StoringRecipe, Weights
from sparsebert.runs.run_type import Start

# Of the plain file's bytes: less is not worth that only this package loads it.
WORTH_PACKING = 0.95
WEIGHTS: tuple[Weights, ...] = ("bf16", "int8", "int4")
# Tables of embeddings bear four bits better than layers do.
FINEST_FIRST: list[tuple[Weights | None, Weights | None]] = [
    (None, None),
    ("bf16", "bf16"),
    ("int8", "int8"),
    ("int8", "int4"),
    ("int4", "int4"),
]


def save_sparse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    packing: Packing,
    packed: bool,
) -> None:
    """Save a model, if `packed` in a packed file where that is needed or makes the file clearly smaller.

    With weights that are rounded what is to be scored is what loads again.
    """
    if packing.is_levelled or (packed and _worth_packing(model, packing)):
        save_model(shrink(model, {}), tokenizer, folder, packing)
    else:
        save_model(model, tokenizer, folder, replace(packing, plain=True) if packing.rounds else None)


def save_made(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, packing: Packing
) -> None:
    """Save a model without zeros, in a packed file only where it needs one."""
    save_sparse(model, tokenizer, folder, packing, packed=packing.is_levelled)


def packing_of(recipe: StoringRecipe) -> Packing:
    """How the models of a run are stored."""
    return Packing(recipe.weights, recipe.embedding_weights)


def packings_of(recipe: StoringRecipe, plain: bool) -> tuple[Packing, ...]:
    """How the models of a run may be stored where bytes are scarce, finest first; with `plain` so that all read it.

    The first is as the recipe says. What it does not say may be rounded: tables of embeddings no less than the layers
    are, and to four bits before these.
    """
    own, tables = recipe.weights, recipe.embedding_weights
    pairs: list[tuple[Weights | None, Weights | None]]
    if own is None and tables is None:
        pairs = FINEST_FIRST
    elif own is None:
        pairs = [(one, tables) for one in (None, *WEIGHTS)]
    elif tables is None:
        pairs = [(own, own), *((own, one) for one in WEIGHTS[WEIGHTS.index(own) + 1 :])]
    else:
        pairs = [(own, tables)]
    allowed = [one for one in pairs if not (plain and {*one} & {*LEVELLED})]
    return tuple(Packing(*one) for one in allowed)


def stored_bytes(model: PreTrainedModel, packing: Packing, scratch: Path | None = None) -> int:
    """Bytes of the file that `save_made` makes, by writing one to a folder in `scratch` that goes again.

    Its codes are blank: to work them out takes long, and changes no size.
    """
    small = shrink(model, {}) if packing.is_levelled else model
    with TemporaryDirectory(dir=scratch) as folder:
        place = Path(folder) / "model"
        save_model(small, None, place)
        if packing.rounds:
            store(
                place, saved_part(small), packing if packing.is_levelled else replace(packing, plain=True), blank_codes
            )
        return disk_bytes(place)


def _worth_packing(model: PreTrainedModel, packing: Packing) -> bool:
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    rounding = rounding_of(model, packing)
    plain = sum(one.numel() * (2 if name in rounding else one.element_size()) for name, one in tensors.items())
    return packed_bytes(tensors, rounding) < WORTH_PACKING * plain


def zeros_by_tensor(model: PreTrainedModel) -> dict[str, float]:
    """Fraction of zeros, 0-1, of each of the encoder's linear weights."""
    weights = {name: model.get_parameter(name) for name in encoder_linear_names(model)}
    filled = {name: weight for name, weight in weights.items() if weight.numel()}
    return {name: round(1 - int(weight.count_nonzero()) / weight.numel(), 6) for name, weight in filled.items()}


def start_of(model: PreTrainedModel) -> Start:
    """The model that training starts from, with the bytes that it would take as a file, without writing it."""
    tensors = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    return Start(model, footprint(model, encoder_linear_names(model), len(save(tensors))))
