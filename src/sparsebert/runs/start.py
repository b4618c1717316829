"""The model that a recipe names, as its run takes it: of an encoder whose pooling is named, one that gives vectors."""

from __future__ import annotations

from transformers import PretrainedConfig

from sparsebert.data import squad, tagged
from sparsebert.errors import UserError
from sparsebert.models.heads import saved_head
from sparsebert.models.load import load_config
from sparsebert.models.sentence import SentenceVector
from sparsebert.models.sentence_folder import set_vector
from sparsebert.models.source import resolve
from sparsebert.recipe.base import Recipe
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.tasks.table import task_names, task_spec

_OF_TOKENS = {
    "tokens": ("tags words", tagged.SUFFIXES),
    "spans": ("finds answers in texts", squad.SUFFIXES),
}
"""What models with such heads do, and the files that teach it."""


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


def check_kind(recipe: Recipe, config: PretrainedConfig) -> None:
    """Raises UserError for a model of words or answers where something else is to be judged, which would lose its head.

    Before the data are read: as data of another kind they would be found wrong for a reason that is none.
    """
    head, kind = saved_head(config), _kind_asked(recipe)
    if head not in _OF_TOKENS or kind is None or head == task_kind(kind).head:
        return
    does, files = _OF_TOKENS[head]
    raise UserError(
        f"The model {does}, and its head would be lost",
        got=f"{', '.join(config.architectures or ())} for kind {kind}",
        fix=f"give --kind {head}, which takes {', '.join(files)}; to start from its encoder alone, save that as a "
        "model of its own",
    )


def _kind_asked(recipe: Recipe) -> str | None:
    """The kind of the recipe's task, as far as is known before its data are read."""
    if recipe.task in task_names():
        return task_spec(recipe.task).kind
    return None if recipe.data is None else recipe.columns.kind


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
