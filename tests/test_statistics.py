"""CalibrationStatistics against values worked out without hooks, on a model that is linear in its parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsebert.groups import Group, Slice
from sparsebert.models.layout import layout_of
from sparsebert.pruning.obs import obs_candidates
from sparsebert.pruning.statistics import FLOOR, CalibrationBatch, Collected, collect_statistics
from sparsebert.tasks.classification import CLASSIFICATION, Classification
from sparsebert.tasks.kind import TaskKind
from sparsebert.tasks.regression import REGRESSION
from tiny import FAMILIES, tiny_batch, tiny_model

UNITS, WIDTH, HIDDEN, LABELS, SEED = 3, 2, 4, 3, 11


class Layer(nn.Module):
    """x + down(up(x) * gate): the gate is for derivatives by hand."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(HIDDEN, UNITS * WIDTH)
        self.down = nn.Linear(UNITS * WIDTH, HIDDEN, bias=bias)
        self.gate = torch.ones(UNITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x) * self.gate.repeat_interleave(WIDTH))


class Toy(nn.Module):
    """Embedding, one layer, the sum over real tokens, a classifier."""

    def __init__(self, bias: bool = True, labels: int = LABELS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, HIDDEN)
        self.layer = Layer(bias)
        self.head = nn.Linear(HIDDEN, labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.layer(self.embed(input_ids))
        return SimpleNamespace(logits=self.head((hidden * attention_mask[..., None]).sum(dim=1)))


GROUP = Group(
    name="layer.0.heads",
    kind="head",
    layer=0,
    units=UNITS,
    inputs=(Slice("layer.up.weight", 0, WIDTH), Slice("layer.up.bias", 0, WIDTH)),
    output=Slice("layer.down.weight", 1, WIDTH),
)


def toy_batch(seed: int = 0, rows: int = 4, length: int = 6) -> CalibrationBatch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        mask[row, length - row :] = 0
    return {
        "input_ids": torch.randint(20, (rows, length), generator=generator),
        "attention_mask": mask,
        "labels": torch.randint(LABELS, (rows,), generator=generator),
    }


def cross_entropy(output: Any, batch: CalibrationBatch) -> torch.Tensor:
    return nn.functional.cross_entropy(output.logits, batch["labels"])


def collected(model: nn.Module, *batches: CalibrationBatch, kind: TaskKind = CLASSIFICATION) -> Collected:
    return collect_statistics(model, [GROUP], ["layer"], batches, kind, SEED)


def directions(*shapes: tuple[int, int]) -> list[np.ndarray]:
    """The random combinations of centred logits that `gather` draws, batch after batch."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = [torch.randn(shape, generator=generator).double().numpy() for shape in shapes]
    return [values - values.mean(axis=1, keepdims=True) if values.shape[1] > 1 else values for values in drawn]


def by_hand(model: Toy, batch: CalibrationBatch, direction: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs x of `down` and gradients g at its output for all real tokens, and their weights in the moments.

    The gradient of direction . logits at every real token of an example is direction @ head.
    """
    with torch.no_grad():
        x = model.layer.up(model.embed(batch["input_ids"])).double().numpy()
    mask = batch["attention_mask"].bool().numpy()
    g = np.repeat((direction @ model.head.weight.detach().double().numpy())[:, None], mask.shape[1], axis=1)
    share = np.square(g[mask]).sum(axis=1)
    return {"x": x[mask], "g": g[mask], "w": FLOOR + (1 - FLOOR) * share / share.mean()}


def test_moments_and_fisher_by_hand():
    model, batch = Toy(), toy_batch()
    statistics = collected(model, batch).groups["layer.0.heads"]
    hand = by_hand(model, batch, directions((4, LABELS))[0])
    x, g, w = hand["x"], hand["g"], hand["w"]
    np.testing.assert_allclose(statistics.second.numpy(), (x * w[:, None]).T @ x / w.sum(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.mean.numpy(), w @ x / w.sum(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.fisher.numpy(), g.T @ g / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.activation.numpy(), np.abs(x).mean(axis=0), rtol=1e-5)
    covariance = np.cov(x.T, aweights=w, ddof=0)
    np.testing.assert_allclose(statistics.hessian.numpy(), covariance, rtol=1e-4, atol=1e-5)
    assert torch.equal(statistics.weight, model.layer.down.weight.double())
    assert (statistics.width, statistics.units, statistics.seed, statistics.centred) == (WIDTH, UNITS, SEED, True)


def test_batches_add_up():
    model, first, second = Toy(), toy_batch(0), toy_batch(1, rows=2, length=5)
    statistics = collected(model, first, second).groups["layer.0.heads"]
    drawn = directions((4, LABELS), (2, LABELS))
    parts = [by_hand(model, batch, d) for batch, d in zip((first, second), drawn, strict=True)]
    x, g, w = (np.concatenate([part[key] for part in parts]) for key in ("x", "g", "w"))
    np.testing.assert_allclose(statistics.second.numpy(), (x * w[:, None]).T @ x / w.sum(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.fisher.numpy(), g.T @ g / 6, rtol=1e-4, atol=1e-6)


def test_fisher_tends_to_the_gauss_newton_matrix():
    # E[d d^T] of centred standard normal d is I - 1/k, so F tends to tokens * head^T (I - 1/k) head.
    model = Toy()
    batch = {"input_ids": torch.zeros(4000, 2, dtype=torch.long), "attention_mask": torch.ones(4000, 2)}
    batch["labels"] = torch.zeros(4000, dtype=torch.long)
    head = model.head.weight.detach().double().numpy()
    expected = 2 * head.T @ (np.eye(LABELS) - 1 / LABELS) @ head
    found = collected(model, batch).groups["layer.0.heads"].fisher.numpy()
    np.testing.assert_allclose(found, expected, atol=0.06 * np.abs(expected).max())


def test_a_single_output_is_not_centred():
    model, batch = Toy(labels=1), toy_batch()
    squares = collected(model, batch, kind=REGRESSION)
    hand = by_hand(model, batch, directions((4, 1))[0])
    expected = hand["g"].T @ hand["g"] / 4
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(squares.groups["layer.0.heads"].fisher.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_taylor_is_the_derivative_by_a_gate():
    model, batches = Toy(), [toy_batch(0), toy_batch(1, rows=3)]
    found = collected(model, *batches).groups["layer.0.heads"].taylor
    derivatives = []
    for batch in batches:
        for row in range(len(batch["labels"])):
            one = {key: value[row : row + 1] for key, value in batch.items()}
            model.layer.gate = torch.ones(UNITS, requires_grad=True)
            loss = cross_entropy(model(one["input_ids"], one["attention_mask"]), one)
            derivatives.append(torch.autograd.grad(loss, model.layer.gate)[0].abs().double())
    np.testing.assert_allclose(found.numpy(), torch.stack(derivatives).mean(dim=0).numpy(), rtol=1e-4)


def test_skip_error_by_hand():
    model, batch = Toy(), toy_batch()
    found = collected(model, batch).skip_errors["layer"]
    hand = by_hand(model, batch, directions((4, LABELS))[0])
    down = model.layer.down
    change = hand["x"] @ down.weight.detach().double().numpy().T + down.bias.detach().double().numpy()
    assert found == pytest.approx(np.square((change * hand["g"]).sum(axis=1)).sum() / 4, rel=1e-4)


def test_a_constant_far_from_zero_does_not_drown_the_covariance():
    # In single precision 3000^2 swallows the variance; then the matrix has a large negative eigenvalue.
    model, batch = Toy(), toy_batch(rows=4, length=30)
    with torch.no_grad():
        model.layer.up.bias[0] = 3000
    statistics = collected(model, batch, batch).groups["layer.0.heads"]
    one = by_hand(model, batch, directions((4, LABELS))[0])
    assert statistics.mean[0] == pytest.approx(3000, abs=1)
    eigenvalues = torch.linalg.eigvalsh(statistics.hessian)
    assert eigenvalues.min() > -1e-6 * eigenvalues.max() and eigenvalues.max() < 10 * np.cov(one["x"].T).max()
    assert len(obs_candidates(statistics, [2])[0].units) == 2


def test_padding_is_ignored():
    model, batch = Toy(), toy_batch()
    longer = dict(batch)
    junk = torch.full((4, 3), 7)
    longer["input_ids"] = torch.cat([batch["input_ids"], junk], dim=1)
    longer["attention_mask"] = torch.cat([batch["attention_mask"], torch.zeros_like(junk)], dim=1)
    left, right = collected(model, batch), collected(model, longer)
    for name in ("second", "mean", "fisher", "activation", "taylor"):
        a, b = getattr(left.groups["layer.0.heads"], name), getattr(right.groups["layer.0.heads"], name)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert left.skip_errors["layer"] == pytest.approx(right.skip_errors["layer"], rel=1e-5)


def test_without_a_bias_the_mean_stays_in():
    statistics = collected(Toy(bias=False), toy_batch()).groups["layer.0.heads"]
    assert not statistics.centred
    assert torch.equal(statistics.hessian, statistics.second)


def test_input_norm_is_over_weights_and_biases():
    model = Toy()
    rows = torch.cat([model.layer.up.weight, model.layer.up.bias[:, None]], dim=1).detach()
    expected = [float(rows[unit * WIDTH : (unit + 1) * WIDTH].norm()) for unit in range(UNITS)]
    assert collected(model, toy_batch()).groups["layer.0.heads"].input_norm.tolist() == pytest.approx(expected)


def test_the_model_is_left_as_it_was():
    class Failing(Classification):
        def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no loss")

    model = Toy().train()
    with pytest.raises(RuntimeError, match="no loss"):
        collected(model, toy_batch(), kind=Failing())
    collected(model, toy_batch())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_statistics_for_every_group(family: str):
    model = tiny_model(family)
    layout = layout_of(model)
    batch = tiny_batch() | {"labels": torch.tensor([0, 1, 2])}
    found = collect_statistics(
        model, layout.groups, [layer.path for layer in layout.layers], [batch], CLASSIFICATION, SEED
    )
    assert list(found.groups) == [group.name for group in layout.groups]
    assert all(error > 0 for error in found.skip_errors.values()) and len(found.skip_errors) == 3
    for group in layout.groups:
        statistics = found.groups[group.name]
        assert statistics.units == len(statistics.taylor) == len(statistics.input_norm) == group.units
        assert (statistics.taylor > 0).all() and (statistics.input_norm > 0).all()
        assert torch.linalg.eigvalsh(statistics.hessian).min() > -1e-6 * statistics.hessian.trace()
        assert statistics.fisher.trace() > 0


def test_input_norm_reads_the_right_parts_of_a_fused_matrix():
    model = tiny_model("modernbert")
    group = layout_of(model).groups[0]
    batch = tiny_batch() | {"labels": torch.tensor([0, 1, 2])}
    found = (
        collect_statistics(model, [group], ["model.layers.0"], [batch], CLASSIFICATION, SEED)
        .groups[group.name]
        .input_norm
    )
    attention = model.get_submodule("model.layers.0.attn.Wqkv")
    weight, bias = attention.get_parameter("weight").detach(), attention.get_parameter("bias").detach()
    size = group.output.width
    for head in range(group.units):
        rows = torch.cat([torch.arange(size) + (part * group.units + head) * size for part in range(3)])
        expected = weight[rows].square().sum() + bias[rows].square().sum()
        assert float(found[head]) == pytest.approx(float(expected.sqrt()), rel=1e-5)
