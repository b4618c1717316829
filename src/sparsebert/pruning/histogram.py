"""How the weights of a model are spread, by kind of matrix."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from sparsebert.models.layout import encoder_linear_names, layout_of, scope_names
from sparsebert.records import WeightHistogram

BINS = 120
# Bins reach so many standard deviations of all weights of the kind: what lies further out is counted at the ends.
DEVIATIONS = 4.0


def weight_histograms(model: PreTrainedModel, bins: int = BINS) -> tuple[WeightHistogram, ...]:
    """One for each kind of linear matrix of the encoder, over all layers, and one for the embeddings.

    A kind is called as the matrix inside its layer. `bins` is even. Kinds whose weights are all zero are left out.
    """
    layers = [f"{layer.path}." for layer in layout_of(model).layers]
    kinds: dict[str, list[torch.Tensor]] = {}
    for name in encoder_linear_names(model):
        inside = next(path for path in layers if name.startswith(path))
        kinds.setdefault(name.removeprefix(inside).removesuffix(".weight"), []).append(_flat(model, name))
    kinds["embeddings"] = [_flat(model, name) for name in scope_names(model)["embeddings"]]
    made = (_histogram(kind, torch.cat(parts), bins) for kind, parts in kinds.items() if parts)
    return tuple(one for one in made if one is not None)


def _flat(model: PreTrainedModel, name: str) -> torch.Tensor:
    return model.get_parameter(name).detach().float().cpu().flatten()


def _histogram(kind: str, weights: torch.Tensor, bins: int) -> WeightHistogram | None:
    values = weights[weights != 0]
    if not len(values):
        return None
    # As the bins have it: of single precision.
    reach = float((DEVIATIONS * values.double().square().mean().sqrt()).float())
    below, above = int((values < -reach).sum()), int((values > reach).sum())
    inside = values[(values >= -reach) & (values <= reach)]
    counts = torch.histc(inside, bins, -reach, reach).long().tolist()
    return WeightHistogram(
        kind=kind, reach=reach, counts=tuple(counts), below=below, above=above, zeros=len(weights) - len(values)
    )
