"""Toy inputs of the sparse, train and compress tests: separable sentences of random tokens, and random statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from sparsebert.groups import Group, GroupKind
from sparsebert.models.layout import layout_of
from sparsebert.pruning.calibration import Calibrated
from sparsebert.pruning.candidates import Candidate, levels
from sparsebert.pruning.statistics import CalibrationStatistics
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.training.collate import Batch


def toy_rows(count: int = 32, seed: int = 1) -> Dataset:
    """Encoded rows of 5 to 10 tokens; tokens 10-19 mean label 1, tokens 20-29 label 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(count):
        label, length = row % 2, int(rng.integers(5, 11))
        ids = [1, *rng.integers(10 if label else 20, 20 if label else 30, length - 1).tolist()]
        rows.append({"input_ids": ids, "attention_mask": [1] * length, "label": label, "length": length, "row": row})
    return Dataset.from_list(rows)


def toy_collate(rows: Sequence[dict[str, Any]]) -> Batch:
    """What padding_collator makes of such rows, without a tokenizer; padding tokens are 0."""
    longest = max(row["length"] for row in rows)

    def padded(key: str) -> torch.Tensor:
        return torch.tensor([row[key] + [0] * (longest - row["length"]) for row in rows])

    return {
        "input_ids": padded("input_ids"),
        "attention_mask": padded("attention_mask"),
        "labels": torch.tensor([row["label"] for row in rows]),
        "rows": torch.tensor([row["row"] for row in rows]),
    }


def samples(units: int, width: int, seed: int, count: int = 200) -> np.ndarray:
    """Correlated inputs of a projection with a mean that is not zero [count, units * width]."""
    rng = np.random.default_rng(seed)
    n = units * width
    return rng.normal(size=(count, n)) @ (np.eye(n) + 0.3 * rng.normal(size=(n, n))) + rng.normal(size=n)


def statistics_of(
    x: np.ndarray, width: int, d: int = 5, seed: int = 0, centred: bool = True, fisher: np.ndarray | None = None
) -> CalibrationStatistics:
    """Statistics whose moments are those of `x` [count, n]; the rest is random, `loss_rise` a sum over units."""
    rng = np.random.default_rng(seed + 1)
    units = x.shape[1] // width
    root = rng.normal(size=(d, d))

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return CalibrationStatistics(
        name="layer.0.heads" if width > 1 else "layer.0.neurons",
        width=width,
        weight=tensor(rng.normal(size=(d, x.shape[1]))),
        input_norm=tensor(rng.uniform(0.5, 2, units)),
        second=tensor(x.T @ x / len(x)),
        mean=tensor(x.mean(axis=0)),
        fisher=tensor(root @ root.T if fisher is None else fisher),
        activation=tensor(np.abs(x).mean(axis=0)),
        taylor=tensor(rng.uniform(0, 1, units)),
        centred=centred,
        seed=3,
        loss_rise=lambda gone: sum(np.sin(7 * unit) + 1 for unit in gone),
    )


def both(heads: int, neurons: int) -> dict[GroupKind, int]:
    """The units of a layer by kind."""
    return {"head": heads, "neuron": neurons}


def flat_options(group: Group, error: Callable[[int], float], counts: Sequence[int]) -> dict[int, Candidate]:
    """Options of a group that keep the first units, with `error(count)` and empty weights."""
    nothing = torch.zeros(1, 0)
    return {count: Candidate(torch.arange(count), nothing, torch.zeros(1), error(count)) for count in counts}


def calibrated_with(model: PreTrainedModel, skip_errors: Sequence[float], unit_errors: Sequence[float]) -> Calibrated:
    """What calibration would give for a model whose layers cost `unit_errors[layer]` a unit removed."""
    layout = layout_of(model)
    candidates = {}
    for group in layout.groups:
        each = unit_errors[group.layer]
        counts = levels(group.units, group.output.width)
        candidates[group.name] = flat_options(group, lambda count, g=group, e=each: e * (g.units - count), counts)
    return Calibrated(layout, candidates, tuple(skip_errors), toy_rows(8), np.zeros((8, 2)), CLASSIFICATION)
