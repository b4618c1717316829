"""Criteria inside training: one contract for all, and values by hand or by an independent library."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.sparse.budgets import erk_sparsities
from sparsebert.sparse.sites import Site
from sparsebert.sparse.views import Criterion, InputSums, View
from sparsebert.sparse.watch import InputWatch
from test_structures import SHAPES, scope, sites

NAMES = registry.names("criterion")


def view_of(criterion: Criterion, name: str, step: int = 3, seed: int = 0, fill: int = 0) -> View:
    generator = torch.Generator().manual_seed(fill + len(name))
    shape = SHAPES[name]
    weight, grad = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    columns = torch.rand(shape[1], generator=generator)
    sums = InputSums(columns, columns + 1, torch.tensor([4.0]))
    return View(name, weight, grad, torch.ones(shape, dtype=torch.bool), criterion.start(weight), step, seed, sums)


def score(criterion: Criterion, site: Site, views: dict[str, View]) -> torch.Tensor:
    if criterion.observe is not None:
        for view in views.values():
            criterion.observe(view)
    more = {"loss": lambda: float(sum(view.weight.abs().sum() for view in views.values()))}
    return criterion.score(site, views, **(more if criterion.reads_loss else {}))


@pytest.mark.parametrize("kind", ["element", "block", "head", "neuron", "layer", "n:m"])
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, kind: str):
    criterion: Criterion = registry.make("criterion", name, {"block": 4} if name == "fisher" else {})
    if name == "mean_activation" and kind in ("element", "block", "n:m"):
        site = sites(kind)[0]
        with pytest.raises(UserError, match="is of heads and neurons"):
            criterion.score(site, {n: view_of(criterion, n) for n in site.scored})
        return
    for site in sites(kind):
        views = {tensor: view_of(criterion, tensor) for tensor in site.scored}
        before = {tensor: view.weight.clone() for tensor, view in views.items()}
        again = {tensor: view_of(criterion, tensor) for tensor in site.scored}
        found = score(criterion, site, views)
        assert found.shape == (site.units,) and bool(torch.isfinite(found).all())
        assert torch.equal(found, score(criterion, site, again))
        assert all(torch.equal(view.weight, before[tensor]) for tensor, view in views.items())
        assert all(value.dtype == torch.float32 for view in views.values() for value in view.state.values())


def test_the_contract_covered_every_criterion():
    assert len(NAMES) == 9


def one(name: str, **options) -> tuple[Criterion, Site, View]:
    criterion = registry.make("criterion", name, options)
    [site] = registry.make("structure", "element", {}).sites(scope("q.weight"))
    return criterion, site, view_of(criterion, "q.weight")


def test_scores_by_hand():
    criterion, site, view = one("magnitude", p=2)
    assert torch.allclose(score(criterion, site, {"q.weight": view}), view.weight.flatten() ** 2)
    criterion, site, view = one("taylor")
    assert view.grad is not None and view.inputs is not None
    assert torch.allclose(score(criterion, site, {"q.weight": view}), (view.weight * view.grad).abs().flatten())
    criterion, site, view = one("movement")
    assert view.grad is not None
    assert torch.allclose(score(criterion, site, {"q.weight": view}), -(view.weight * view.grad).flatten())
    criterion, site, view = one("activation")
    assert view.inputs is not None
    norm = (view.inputs.squares / 4).sqrt()
    assert torch.allclose(score(criterion, site, {"q.weight": view}), (view.weight.abs() * norm).flatten())
    criterion, site, view = one("loss_increase")
    found = score(criterion, site, {"q.weight": view})
    torch.testing.assert_close(found, -view.weight.abs().flatten(), atol=2e-5, rtol=1e-4)


def test_the_gradient_is_averaged_over_its_window():
    criterion, site, view = one("gradient", window=2)
    assert view.grad is not None and criterion.observe is not None and criterion.window == 2
    criterion.observe(view)
    other = View(view.name, view.weight, 3 * view.grad, view.mask, view.state, 4, 0)
    criterion.observe(other)
    assert torch.allclose(criterion.score(site, {"q.weight": other}), 2 * view.grad.abs().flatten())


def test_mean_activation_is_of_the_inputs_of_the_output_projection():
    criterion = registry.make("criterion", "mean_activation", {})
    [site] = sites("head")
    views = {tensor: view_of(criterion, tensor) for tensor in site.scored}
    inputs = views["o.weight"].inputs
    assert inputs is not None
    expected = (inputs.absolute / 4).view(2, 2).sum(dim=1) * SHAPES["o.weight"][0]
    torch.testing.assert_close(criterion.score(site, views), expected)


def test_mean_activation_of_a_layer_is_that_of_all_its_outputs():
    criterion = registry.make("criterion", "mean_activation", {})
    [site] = sites("layer")
    views = {tensor: view_of(criterion, tensor) for tensor in site.scored}
    total = 0.0
    for output in ("o.weight", "down.weight"):
        inputs = views[output].inputs
        assert inputs is not None
        total += float(inputs.absolute.sum()) / 4 * SHAPES[output][0]
    assert criterion.score(site, views).tolist() == pytest.approx([total])


def test_random_depends_on_seed_step_and_site_only():
    criterion, site, view = one("random")
    base = criterion.score(site, {"q.weight": view})
    same = view_of(criterion, "q.weight", fill=5)
    assert torch.equal(base, criterion.score(site, {"q.weight": same}))
    for other in (view_of(criterion, "q.weight", step=4), view_of(criterion, "q.weight", seed=1)):
        assert not torch.equal(base, criterion.score(site, {"q.weight": other}))


@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.5, 0.9])
def test_magnitude_agrees_with_torch_mask_for_mask(sparsity: float):
    torch.manual_seed(1)
    layers = [nn.Linear(6, 8), nn.Linear(8, 6)]
    weights = {
        name: layer.weight.detach().clone() for name, layer in zip(("up.weight", "down.weight"), layers, strict=True)
    }
    criterion = registry.make("criterion", "magnitude", {})
    chosen = registry.make("structure", "element", {}).sites(scope("ffn"))
    scores = []
    for site in chosen:
        name = site.name
        view = View(name, weights[name], None, torch.ones_like(weights[name], dtype=torch.bool), {}, 0, 0)
        scores.append(criterion.score(site, {name: view}))
    local = registry.make("budget", "uniform", {}).keep(chosen, scores, sparsity)
    overall = registry.make("budget", "global", {}).keep(chosen, scores, sparsity)
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=sparsity)
    for site, keep, layer in zip(chosen, overall, layers, strict=True):
        assert torch.equal(site.expand(keep)[site.name], layer.weight_mask.bool())
        prune.remove(layer, "weight")
        with torch.no_grad():
            layer.weight.copy_(weights[site.name])
        prune.l1_unstructured(layer, "weight", amount=sparsity)
    for site, keep, layer in zip(chosen, local, layers, strict=True):
        assert torch.equal(site.expand(keep)[site.name], layer.weight_mask.bool())


def test_erk_shares_by_rows_and_columns_and_meets_the_target():
    chosen = registry.make("structure", "element", {}).sites(scope("q.weight", "emb.weight"))
    q, emb = erk_sparsities(chosen, 0.5)
    assert (1 - q) / (1 - emb) == pytest.approx((10 / 24) / (16 / 60))
    assert 24 * q + 60 * emb == pytest.approx(42)
    assert erk_sparsities(chosen, 0.1) == [0.0, pytest.approx(8.4 / 60)]


def test_a_global_budget_weighs_units_by_their_size():
    chosen = [*sites("head"), *sites("neuron")]
    scores = [torch.tensor([48.0, 2.4]), torch.linspace(1, 8, 8)]
    [heads, neurons] = registry.make("budget", "global", {}).keep(chosen, scores, 0.3)
    assert heads.tolist() == [True, False]
    assert neurons.sum() == 7
    with pytest.raises(UserError, match="cannot share a global budget"):
        registry.make("budget", "global", {}).keep(sites("n:m"), [torch.rand(48), torch.rand(48)], 0.5)


def test_fisher_is_the_optimal_surgeon_of_a_quadratic():
    """The inverse by Woodbury, the scores and the joint update against dense linear algebra in float64."""
    torch.manual_seed(0)
    gradients, damping = torch.randn(6, 4, 6), 1e-2
    criterion = registry.make("criterion", "fisher", {"block": 24, "gradients": 6, "damping": damping})
    [site] = registry.make("structure", "element", {}).sites(scope("q.weight"))
    weight = torch.randn(4, 6)
    state, mask = criterion.start(weight), torch.ones(4, 6, dtype=torch.bool)
    for grad in gradients:
        criterion.observe(View("q.weight", weight, grad, mask, state, 0, 0))
    views = {"q.weight": View("q.weight", weight, None, mask, state, 0, 0)}
    flat = gradients.reshape(6, 24).double()
    inverse = torch.linalg.inv(flat.T @ flat / 6 + damping * torch.eye(24, dtype=torch.float64))
    w = weight.flatten().double()
    expected = (w**2 / (2 * inverse.diagonal())).float()
    found = criterion.score(site, views)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-6)
    keep = site.choose(found, 0.5)
    gone = torch.nonzero(~keep).flatten()
    solved = torch.linalg.solve(inverse[gone][:, gone], w[gone])
    updated = (w - inverse[:, gone] @ solved).float()
    changed = criterion.correct(site, views, keep)["q.weight"].flatten()
    assert not bool(changed[gone].any())
    torch.testing.assert_close(changed[keep], updated[keep], rtol=5e-3, atol=1e-4)


def test_inputs_are_summed_over_real_tokens_only():
    model = nn.ModuleDict({"q": nn.Linear(3, 2)})
    model.forward = lambda x, attention_mask=None: model["q"](x)
    watch = InputWatch(model, ["q.weight"])
    x = torch.tensor([[[1.0, 2.0, -3.0], [9.0, 9.0, 9.0]]])
    model(x, attention_mask=torch.tensor([[1, 0]]))
    with torch.no_grad():
        model(x, attention_mask=torch.tensor([[1, 1]]))
    watch.fold()
    sums = watch.sums("q.weight")
    assert sums is not None and sums.squares.tolist() == [1, 4, 9] and sums.absolute.tolist() == [1, 2, 3]
    assert float(sums.tokens) == 1
    watch.close()
    model(x)
    watch.fold()
    assert float(sums.tokens) == 1


def test_gradients_too_large_for_the_damping_of_fisher_are_refused():
    criterion = registry.make("criterion", "fisher", {"block": 1})
    site = sites("element")[0]
    view = view_of(criterion, site.name)
    view.grad.fill_(1e10)
    criterion.observe(view)
    with pytest.raises(UserError, match=f"The gradients of {site.name} are too large for the damping"):
        criterion.correct(site, {site.name: view}, torch.zeros(site.units, dtype=torch.bool))


BAD = {
    "magnitude": ({"p": 0}, "positive"),
    "gradient": ({"window": 0}, "at least 1"),
    "fisher": ({"damping": 0.0}, "damping positive"),
    "random": ({"seed": 3}, "Unknown option of the criterion random"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options(name: str):
    options, words = BAD[name]
    with pytest.raises(UserError, match=words):
        registry.make("criterion", name, options)


def test_loss_increase_refuses_what_would_take_forever():
    criterion, site, view = one("loss_increase")
    many = registry.make("structure", "element", {}).sites(scope("emb.weight"))
    big = [s for s in many if s.units > 4096]
    assert not big and math.isfinite(float(score(criterion, site, {"q.weight": view}).sum()))
