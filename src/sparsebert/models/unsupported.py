"""Families of models that are not supported, and which of those that are comes nearest."""

from __future__ import annotations

from sparsebert import registry
from sparsebert.errors import UserError, unknown

# Types of models that transformers lacks, or that are not supported, and the family that each is made after.
_NEAREST = {
    "albert": "bert",
    "deberta": "deberta-v2",
    "flaubert": "camembert",
    "jina_embeddings_v3": "xlm-roberta",
    "neobert": "eurobert",
    "new": "gte",
}
_REASONS = {
    "albert": ", whose layers are one and the same, run again and again",
    "new": ", which needs code of its own, and that is never run here",
}


def nearest_family(model_type: str) -> str | None:
    """The family that another one is most like: the one it is known to be made after, else one in whose name it is."""
    if model_type in _NEAREST:
        return _NEAREST[model_type]
    letters = _letters(model_type)
    within = [name for name in registry.names("family") if _letters(name) in letters]
    return max(within, key=len, default=None)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def unsupported(model_type: str) -> UserError:
    """The error for a family that is not supported: the nearest one, or what may have been meant."""
    from transformers import CONFIG_MAPPING

    families, nearest = registry.names("family"), nearest_family(model_type)
    if nearest is None and model_type not in CONFIG_MAPPING:
        return unknown("model family", model_type, families)
    what = f"Unknown model family '{model_type}'{_REASONS.get(model_type, '')}"
    fix = f"take a model of the nearest family, {nearest}" if nearest else ""
    return UserError(what, allowed=", ".join(families), fix=fix)
