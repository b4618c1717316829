"""The model that a recipe names, as its run takes it: of an encoder whose pooling is named, one that gives vectors."""

from __future__ import annotations

from transformers import PretrainedConfig

from sparsebert.errors import UserError
from sparsebert.models.heads import saved_head
from sparsebert.models.load import load_config
from sparsebert.models.sentence import SentenceVector
from sparsebert.models.sentence_folder import set_vector
from sparsebert.models.source import resolve
from sparsebert.recipe.base import Recipe
from sparsebert.tasks.kind import TaskKind


def vector_asked(recipe: Recipe) -> SentenceVector | None:
    """How a recipe has vectors made; none = as the model's own files say."""
    return None if recipe.pooling is None else SentenceVector((recipe.pooling,), recipe.normalize)


def start_config(recipe: Recipe) -> PretrainedConfig:
    """The configuration of the recipe's model, with the pooling that the recipe names."""
    source = resolve(recipe.model)
    config, vector = load_config(source), vector_asked(recipe)
    if vector is not None:
        set_vector(config, source.path, vector)
    return config


def check_pooling(recipe: Recipe, kind: TaskKind) -> None:
    """Raises UserError for a pooling of a kind without one, and for one that would cost the model its head."""
    if recipe.pooling is None:
        return
    config = load_config(resolve(recipe.model))
    if kind.head != "embeddings":
        raise UserError("Only vectors of texts have a pooling", got=recipe.pooling, fix="leave it out")
    if saved_head(config) not in ("base", "masked_lm", "embeddings"):
        raise UserError(
            "The model is fine-tuned for a task, and its head would be lost",
            got=", ".join(config.architectures or ()),
            fix="save its encoder as a model of its own first",
        )
