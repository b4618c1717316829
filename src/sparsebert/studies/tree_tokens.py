"""The nodes of trees that tokens of texts visit, and what these tokens are."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from sparsebert.data.tokens import WORDS
from sparsebert.errors import UserError
from sparsebert.fast_feedforward.convert import routing_paths, trees_of
from sparsebert.studies.checkpoints import AskedCheckpoints
from sparsebert.studies.study import EXAMPLES
from sparsebert.studies.task_rows import TokenRows, common_length, task_of, texts_of, texts_of_task, token_rows
from sparsebert.studies.tree_paths import Aspect, TreeTokens
from sparsebert.tasks.kind import TaskKind, task_kind
from sparsebert.training.collate import batches_by_length

BATCH = 32
FIFTHS = 5
KINDS = ("special", "punctuation", "number", "word", "inside of a word")
_INSIDE, _BEGINS = "##", ("▁", "Ġ")


def tree_tokens(asked: AskedCheckpoints) -> tuple[list[TreeTokens], dict[str, str]]:
    """Of every checkpoint; and in words what was read. Raises UserError for a model without trees."""
    kind, tags = None, ()
    if asked.options.texts:
        rows, where = texts_of(asked.options, EXAMPLES)
    else:
        task = task_of(asked.options)
        rows, where = texts_of_task(task, asked.options, EXAMPLES)
        if task_kind(task.spec.kind).by_word:
            kind, tags = task_kind(task.spec.kind), task.spec.labels
    found = []
    for name, model in asked.models():
        if not trees_of(model):
            raise UserError(
                f"The model '{name}' has no trees", got="dense feedforward blocks", fix="make them with sparsebert fff"
            )
        source = asked.sources[name]
        tokens = token_rows(source, rows, common_length([source]), kind)
        asked.progress(f"Reading {len(rows):,} texts with {name}")
        found.append(_of_model(name, model, tokens, kind, tags))
    return found, {"texts": where}


def _of_model(name: str, model: Any, tokens: TokenRows, kind: TaskKind | None, tags: tuple[str, ...]) -> TreeTokens:
    order: list[int] = []
    batches = []
    for numbers, batch in batches_by_length(tokens.rows, tokens.collate, BATCH):
        order += numbers
        batches.append(batch)
    paths, _ = routing_paths(model, batches)
    names, tokenizer = tokens.names, tokens.tokenizer
    special = set(tokenizer.all_special_tokens)
    marked = any(token.startswith(_BEGINS) for token in tokenizer.get_vocab())
    kinds = np.array([_kind(token, special, marked) for row in order for token in names[row]])
    places = np.concatenate([np.arange(len(names[row])) * FIFTHS // len(names[row]) for row in order])
    fifths = tuple(f"fifth {one + 1}" for one in range(FIFTHS))
    aspects = [Aspect("place", fifths, places), Aspect("kind", KINDS, kinds)]
    if kind is not None:
        aspects.append(Aspect("tag", tags, np.concatenate([_tags(tokens, row) for row in order])))
    return TreeTokens(name, {layer: own.cpu().numpy() for layer, own in paths.items()}, tuple(aspects))


def _tags(tokens: TokenRows, row: int) -> np.ndarray:
    """Of the tokens of a row; -1 for those that are not the first of a word."""
    own = tokens.rows[row]
    found = np.full(len(own["input_ids"]), -1)
    for place, label in zip(own[WORDS], own["label"], strict=True):
        if place >= 0:
            found[place] = label
    return found


def _kind(token: str, special: set[str], marked: bool) -> int:
    """Where it stands in KINDS; with `marked` the vocabulary marks what begins a word, else what goes on one."""
    if token in special:
        return KINDS.index("special")
    letters = token.removeprefix(_INSIDE).lstrip("".join(_BEGINS))
    if letters and all(unicodedata.category(letter)[0] in "PS" for letter in letters):
        return KINDS.index("punctuation")
    if letters and all(unicodedata.category(letter)[0] == "N" for letter in letters):
        return KINDS.index("number")
    inside = not token.startswith(_BEGINS) if marked else token.startswith(_INSIDE)
    return KINDS.index("inside of a word" if inside else "word")
