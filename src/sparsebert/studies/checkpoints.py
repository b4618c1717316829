"""Checkpoints that a study is asked about, opened as it needs them: weights as arrays, or whole models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from sparsebert.groups import Group, Slice
from sparsebert.models.families import is_shrunk
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.named import open_model, result_beside
from sparsebert.models.source import ModelSource
from sparsebert.models.surgeon import live_units
from sparsebert.studies.study import StudyOptions
from sparsebert.studies.weights import EncoderWeights, HeadBlock, MatrixName


@dataclass(frozen=True)
class AskedCheckpoints:
    """Models under short names that differ, in the order given, and what else was asked.

    `progress` is told in words what is being done.
    """

    sources: Mapping[str, ModelSource]
    options: StudyOptions
    progress: Callable[[str], None] = lambda text: None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all checkpoints."""
        return tuple(self.sources)

    def models(self) -> Iterator[tuple[str, PreTrainedModel]]:
        """Each as what it was saved as, one after the other. Raises UserError for one that cannot be opened."""
        for name, source in self.sources.items():
            self.progress(f"Opening {name}")
            yield name, open_model(source)

    def weights(self) -> list[EncoderWeights]:
        """The encoder's linear weights of all."""
        return [encoder_weights(name, model, self._kept_heads(name, model)) for name, model in self.models()]

    def all_matrices(self) -> Iterator[tuple[EncoderWeights, dict[str, np.ndarray]]]:
        """The encoder's linear weights of each, and its other matrices by tensor name: embeddings, pooler, head."""
        for name, model in self.models():
            yield encoder_weights(name, model), other_matrices(model)

    def head_blocks(self) -> dict[str, list[HeadBlock]]:
        """By checkpoint, the attention's weights head by head."""
        return {name: head_blocks(model) for name, model in self.models()}

    def _kept_heads(self, name: str, model: PreTrainedModel) -> tuple[tuple[int, ...], ...] | None:
        """By layer of the dense model: of a shrunk one its run's record knows, of others those that do something."""
        if not is_shrunk(model.config):
            return _live_heads(model)
        made = result_beside(self.sources[name].path)
        return made[1].shape.kept_heads or None if made else None


def encoder_weights(
    name: str, model: PreTrainedModel, kept_heads: tuple[tuple[int, ...], ...] | None = None
) -> EncoderWeights:
    """The linear weights of a model's encoder, under names without what depends on the model's head."""
    layout = layout_of(model)
    paths = {f"{layer.path}.": layer for layer in layout.layers}
    found = {}
    for tensor in encoder_linear_names(model):
        path = next(path for path in paths if tensor.startswith(path))
        place = MatrixName(paths[path].original_index, tensor.removeprefix(path).removesuffix(".weight"))
        found[place] = array(model.get_parameter(tensor))
    return EncoderWeights(name, layout.family.name, found, layout.full_heads, kept_heads, is_shrunk(model.config))


def other_matrices(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """All parameters of two dimensions and more that are no linear weights of the encoder, by name; tied ones once."""
    linear = set(encoder_linear_names(model))
    named = model.named_parameters()
    return {name: array(one) for name, one in named if one.dim() > 1 and name not in linear}


def head_blocks(model: PreTrainedModel) -> list[HeadBlock]:
    """The weights of the attention's projections by head, layer by layer."""
    layout, found = layout_of(model), []
    for layer in layout.layers:
        group = layer.groups.get("head")
        if group is None:
            continue
        for kind, part in _projections(group):
            values = array(model.get_parameter(part.tensor))
            entries = np.moveaxis(values, part.dim, 0)[part.offset : part.offset + group.units * part.width]
            found.append(HeadBlock(layer.original_index, kind, entries.reshape(group.units, -1), part.tensor))
    return found


def array(parameter: torch.Tensor) -> np.ndarray:
    """A parameter in float32."""
    return parameter.detach().float().cpu().numpy()


def _projections(group: Group) -> list[tuple[str, Slice]]:
    """The matrices of attention and their slices; parts of a fused matrix are told apart by what they are."""
    matrices = [part for part in (*group.inputs, group.output) if part.tensor.endswith(".weight")]
    parts = [MatrixName(0, _place(part.tensor, group)).kind for part in matrices]
    roles = ("query", "key", "value")
    named = [
        f"{kind} {roles[place]}" if parts.count(kind) > 1 and place < len(roles) else kind
        for place, kind in enumerate(parts)
    ]
    return list(zip(named, matrices, strict=True))


def _place(tensor: str, group: Group) -> str:
    """The part of a tensor's name inside its layer."""
    return tensor.split(f".{group.layer}.", 1)[1].removesuffix(".weight")


def _live_heads(model: PreTrainedModel) -> tuple[tuple[int, ...], ...]:
    layout, live = layout_of(model), live_units(model)
    groups = [layer.groups.get("head") for layer in layout.layers]
    return tuple(tuple(live[group.name].nonzero().flatten().tolist()) if group else () for group in groups)
