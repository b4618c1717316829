"""What paths of trees know of tokens: their kind, their place in the text, and their tags, such as parts of speech.

After Belcak & Wattenhofer 2023, "Exponentially Faster Language Modelling" (arXiv:2311.10770), whose trees send each
token one way; whether ways are of kinds of words is left open there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.reports.charts import ChartLine, HeatPanel, LinePanel, Panel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "What do the paths of trees know of a token?"
SHUFFLES = 5
DEFINITION = (
    "A token goes through one node on each level of a tree. Known: the mutual information of that node and of what "
    "the token is, over the entropy of what tokens are: 0 % = the node says nothing of it, 100 % = it says all; a mean "
    "over the trees of a layer. Many nodes and few tokens share information by accident; chance is the same with the "
    f"tokens shuffled, a mean of {SHUFFLES} times. Kinds: special, punctuation, numbers, beginnings of words, and what "
    "goes on a word. Place: fifths of the text. Tags: of the first tokens of words, where the task's rows have tags."
)
_COLUMNS = (
    StudyColumn("layer", "Layer", form="count"),
    StudyColumn("level", "Level", form="count"),
    StudyColumn("nodes", "Nodes", form="count"),
    StudyColumn("aspect", "Of the token"),
    StudyColumn("tokens", "Tokens", form="count"),
    StudyColumn("known", "Known", form="percent"),
    StudyColumn("chance", "Chance", form="percent"),
)
_SHOWN_LEVEL, _MOST_HEATS, _MOST_CLASSES = 3, 4, 16


@dataclass(frozen=True)
class Aspect:
    """What each token is [tokens], as a number of a name; -1 = nothing is said of it."""

    name: str
    names: tuple[str, ...]
    of_tokens: np.ndarray


@dataclass(frozen=True)
class TreeTokens:
    """Tokens of a checkpoint: the nodes that each visits [trees, tokens, levels] by layer, and what it is."""

    name: str
    paths: Mapping[int, np.ndarray]
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True)
class Knowledge:
    """What one level of a layer's trees knows of an aspect, 0-1, and by chance."""

    layer: int
    level: int
    aspect: str
    tokens: int
    known: float
    chance: float


def shared_information(nodes: np.ndarray, classes: np.ndarray) -> float:
    """Mutual information of two labellings [tokens] over the entropy of the second, 0-1; 0 where that is constant."""
    _, node = np.unique(nodes, return_inverse=True)
    _, own = np.unique(classes, return_inverse=True)
    joint = np.zeros((node.max() + 1, own.max() + 1))
    np.add.at(joint, (node, own), 1)
    joint /= joint.sum()
    entropy = _entropy(joint.sum(axis=0))
    if entropy == 0:
        return 0.0
    information = _entropy(joint.sum(axis=1)) + entropy - _entropy(joint.ravel())
    return float(np.clip(information / entropy, 0, 1))


def knowledge(found: TreeTokens, seed: int) -> list[Knowledge]:
    """Of every layer, level below the root, and aspect."""
    draw = np.random.default_rng(seed)
    rows = []
    for layer, paths in found.paths.items():
        for aspect in found.aspects:
            there = aspect.of_tokens >= 0
            classes = aspect.of_tokens[there]
            orders = [draw.permutation(len(classes)) for _ in range(SHUFFLES)]
            for level in range(1, paths.shape[2]):
                nodes = paths[:, there, level]
                known = fmean(shared_information(tree, classes) for tree in nodes)
                chance = fmean(shared_information(tree, classes[order]) for tree in nodes for order in orders)
                rows.append(Knowledge(layer, level, aspect.name, len(classes), known, chance))
    return rows


def tree_paths(
    checkpoints: Sequence[TreeTokens], seed: int = 0, settings: Mapping[str, str] | None = None
) -> StudyResult:
    """Of every checkpoint with trees."""
    found = {one.name: knowledge(one, seed) for one in checkpoints}
    rows = [
        StudyRow(name, (row.layer + 1, row.level, 2**row.level, row.aspect, row.tokens, row.known, row.chance))
        for name, own in found.items()
        for row in own
    ]
    panels = [panel for one in checkpoints for panel in _panels(one, found[one.name])]
    answer = " ".join(_sentence(name, own) for name, own in found.items())
    chart = StudyChart(tuple(panels))
    return StudyResult(
        "tree-paths", QUESTION, answer, DEFINITION, tuple(found), _COLUMNS, tuple(rows), chart, settings=settings or {}
    )


def _entropy(shares: np.ndarray) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def _panels(one: TreeTokens, own: Sequence[Knowledge]) -> Iterator[Panel]:
    """By aspect what each level of each layer knows above chance; and where tokens go in first trees, by the last."""
    for aspect in one.aspects:
        lines = []
        for layer in one.paths:
            rows = [row for row in own if (row.layer, row.aspect) == (layer, aspect.name)]
            known = tuple(100 * (row.known - row.chance) for row in rows)
            lines.append(ChartLine(f"layer {layer + 1}", tuple(float(row.level) for row in rows), known))
        yield LinePanel(
            f"{one.name}: {aspect.name}", "Level of the tree", "Known above chance, %", tuple(lines), level=0.0
        )
    last = one.aspects[-1]
    for layer, paths in list(one.paths.items())[:_MOST_HEATS]:
        yield _heat(one.name, layer, paths[0], last)


def _heat(name: str, layer: int, paths: np.ndarray, aspect: Aspect) -> HeatPanel:
    """Of each class the share that goes to each node of a level."""
    level = min(_SHOWN_LEVEL, paths.shape[1] - 1)
    nodes = paths[:, level] - (2**level - 1)
    present = [place for place in range(len(aspect.names)) if (aspect.of_tokens == place).any()][:_MOST_CLASSES]
    shares = [np.bincount(nodes[aspect.of_tokens == place], minlength=2**level) for place in present]
    return HeatPanel(
        f"{name}, layer {layer + 1}: where tokens go on level {level} of the first tree",
        tuple(aspect.names[place] for place in present),
        tuple(str(node + 1) for node in range(2**level)),
        tuple(tuple((counts / counts.sum()).tolist()) for counts in shares),
        form="percent",
        row_label=aspect.name,
        column_label="Node",
        low=0.0,
    )


def _sentence(name: str, own: Sequence[Knowledge]) -> str:
    """What the leaves know, as a mean over layers."""
    deepest = {row.layer: row.level for row in own}
    said = []
    for aspect in dict.fromkeys(row.aspect for row in own):
        rows = [row for row in own if row.aspect == aspect and row.level == deepest[row.layer]]
        known, chance = fmean(row.known for row in rows), fmean(row.chance for row in rows)
        said.append(f"{written(known, 'percent')} of the {aspect} (chance {written(chance, 'percent')})")
    return f"The leaves of {name} know {', '.join(said)}, in the mean of {len(deepest)} layers."


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert.studies.tree_tokens import tree_tokens

    found, settings = tree_tokens(asked)
    return tree_paths(found, asked.options.seed, settings)


TREE_PATHS = CheckpointStudy("what the paths of trees know of a token", _ask, takes=("task", "texts", "examples"))
