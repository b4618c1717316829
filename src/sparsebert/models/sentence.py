"""From the vectors of tokens to the vector of a text, as sentence-transformers computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PretrainedConfig

from sparsebert.errors import UserError

KEY = "sentence_embedding"
"""Where the configuration of a model of embeddings says how its vectors are made."""
_NOTHING = 1e-9


@dataclass(frozen=True)
class SentenceVector:
    """How a text's vector is made: `pooling` modes, side by side where there are several, and whether it has length 1.

    `prompts`, by name, are what users put before their texts, and `similarity` is how they compare vectors; both are
    only kept.
    """

    pooling: tuple[str, ...]
    normalize: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    similarity: str | None = None

    def plain(self) -> dict[str, Any]:
        """As a configuration holds it."""
        return {
            "pooling": list(self.pooling),
            "normalize": self.normalize,
            "prompts": dict(self.prompts),
            "similarity": self.similarity,
        }

    def of(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors [texts, modes * hidden] of the vectors of tokens [texts, tokens, hidden]; mask [texts, tokens].

        Padding is on the right.
        """
        mask = mask.to(hidden.dtype)
        found = torch.cat([POOLINGS[mode](hidden, mask) for mode in self.pooling], dim=-1)
        return F.normalize(found, dim=-1) if self.normalize else found


def vector_of(config: PretrainedConfig) -> SentenceVector | None:
    """How a model's vectors of texts are made; none for one that is not known to give such.

    Raises UserError for a configuration that says it in no way known here.
    """
    held = vars(config).get(KEY)
    if held is None:
        return None
    try:
        how = SentenceVector(tuple(held["pooling"]), held["normalize"], held.get("prompts", {}), held.get("similarity"))
    except (AttributeError, KeyError, TypeError):
        how = SentenceVector((), normalize=False)
    known = how.pooling and all(str(mode) in POOLINGS for mode in how.pooling)
    if not known or not isinstance(how.normalize, bool) or not isinstance(how.prompts, Mapping):
        raise UserError(
            f"The configuration does not say how vectors of texts are made, under {KEY}",
            got=str(held)[:80],
            allowed=f'{{"pooling": [{", ".join(POOLINGS)}], "normalize": true or false}}',
        )
    return how


def _first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.sum(dim=1).long() - 1
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[-1]))[:, 0]


def _largest(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(_NOTHING)


def _mean_by_root(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(_NOTHING).sqrt()


def _mean_by_place(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _mean(hidden, mask * mask.cumsum(dim=1))


POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_place,
    "lasttoken": _last,
}
"""By the names of sentence-transformers, in the order in which it puts several side by side where it is told old names.

Each takes hidden states [texts, tokens, hidden] and a mask of their type [texts, tokens].
"""
