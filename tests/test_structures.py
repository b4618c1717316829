"""Structures: what a unit is, drawn by hand on small matrices, and what every one of them keeps to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.groups import Group, Slice
from sparsebert.sparse.scope import Scope, left_dense, select
from sparsebert.sparse.sites import Site

SHAPES = {
    "q.weight": (4, 6),
    "q.bias": (4,),
    "o.weight": (6, 4),
    "up.weight": (8, 6),
    "up.bias": (8,),
    "down.weight": (6, 8),
    "emb.weight": (10, 6),
}
HEADS = Group("layer.0.heads", "head", 0, 2, (Slice("q.weight", 0, 2), Slice("q.bias", 0, 2)), Slice("o.weight", 1, 2))
NEURONS = Group(
    "layer.0.neurons", "neuron", 0, 8, (Slice("up.weight", 0), Slice("up.bias", 0)), Slice("down.weight", 1)
)
NAMED = {"attention": ["q.weight", "o.weight"], "ffn": ["up.weight", "down.weight"], "embeddings": ["emb.weight"]}
OPTIONS = {"n:m": {"n": 1, "m": 2}, "block": {"rows": 2, "cols": 3}}
SCOPES = {"head": ["attention"], "neuron": ["ffn"], "layer": ["attention", "ffn"], "block": ["q.weight", "up.weight"]}


def scope(*patterns: str) -> Scope:
    return select(patterns, NAMED, SHAPES, [HEADS, NEURONS])


def sites(kind: str) -> list[Site]:
    return registry.make("structure", kind, OPTIONS.get(kind, {})).sites(scope(*SCOPES.get(kind, ["ffn"])))


def grid(mask: torch.Tensor) -> list[str]:
    return ["".join("#" if one else "." for one in row) for row in (mask if mask.dim() == 2 else mask[None]).tolist()]


def only(site: Site, *units: int) -> dict[str, list[str]]:
    """The masks when these units alone are kept."""
    keep = torch.zeros(site.units, dtype=torch.bool)
    keep[list(units)] = True
    return {name: grid(mask) for name, mask in site.expand(keep).items()}


def test_an_element_is_one_weight():
    [site, _] = sites("element")
    assert site.units == 48
    assert only(site, 0, 7, 47) == {"up.weight": ["#.....", ".#....", *["......"] * 5, ".....#"]}


def test_a_block_is_a_tile():
    [site, _] = sites("block")
    assert site.units == 4 and site.shape == (4, 6)
    assert only(site, 1, 2) == {"q.weight": ["...###", "...###", "###...", "###..."]}


def test_a_pattern_leaves_n_of_every_m_neighbours_of_a_row():
    [site, _] = registry.make("structure", "n:m", {"n": 2, "m": 4}).sites(scope("down.weight", "o.weight"))
    scores = torch.arange(24.0)
    scores[[0, 5, 6]] = torch.tensor([9.0, -1.0, -2.0])
    assert grid(site.expand(site.choose(scores, 0.5))["o.weight"])[:2] == ["#..#", "#..#"]
    assert int(site.choose(scores, 0.25).sum()) == 18 and int(site.choose(scores, 0.49).sum()) == 18


def test_a_head_lies_in_rows_of_its_inputs_their_biases_and_columns_of_the_output():
    [site] = sites("head")
    assert only(site, 1) == {
        "q.weight": ["......", "......", "######", "######"],
        "q.bias": ["..##"],
        "o.weight": ["..##"] * 6,
    }
    assert site.scored == ("q.weight", "o.weight") and site.weights == 48
    assert {name: grid(value > 0) for name, value in site.spread(torch.tensor([0.0, 1.0])).items()} == {
        "o.weight": ["..##"] * 6
    }


def test_a_neuron_is_a_row_up_and_a_column_down():
    [site] = sites("neuron")
    found = only(site, 0, 2)
    assert found["up.bias"] == ["#.#....."] and found["down.weight"] == ["#.#....."] * 6
    assert found["up.weight"] == ["######", "......", "######", *["......"] * 5]


def test_a_layer_is_all_its_heads_and_neurons():
    [site] = sites("layer")
    assert site.units == 1 and site.weights == 48 + 96
    assert all(set("".join(rows)) == {"."} for rows in only(site).values())
    assert set(only(site)) == {"q.weight", "q.bias", "o.weight", "up.weight", "up.bias", "down.weight"}


def test_fused_projections_are_masked_at_their_offsets():
    shapes = {"qkv.weight": (8, 3), "o.weight": (3, 4)}
    fused = Group(
        "h", "head", 0, 2, (Slice("qkv.weight", 0, 2, 0), Slice("qkv.weight", 0, 2, 4)), Slice("o.weight", 1, 2)
    )
    found = select(["all"], {"attention": ["qkv.weight", "o.weight"]}, shapes, [fused])
    [site] = registry.make("structure", "head", {}).sites(found)
    assert only(site, 0)["qkv.weight"] == ["###", "###", "...", "...", "###", "###", "...", "..."]


@pytest.mark.parametrize("kind", registry.names("structure"))
def test_contract(kind: str):
    for site in sites(kind):
        everything = torch.ones(site.units, dtype=torch.bool)
        assert all(bool(mask.all()) for mask in site.expand(everything).values())
        assert {name: tuple(m.shape) for name, m in site.expand(everything).items()} == {
            t: SHAPES[t] for t in site.tensors
        }
        assert set(site.scored) <= set(site.tensors) and set(site.spread(everything.float())) <= set(site.tensors)
        assert site.weights == sum(SHAPES[name][0] * SHAPES[name][1] for name in site.scored)
        for unit in range(site.units):
            keep = torch.zeros(site.units, dtype=torch.bool)
            keep[unit] = True
            pooled = site.pool({name: mask.float() for name, mask in site.expand(keep).items()})
            assert torch.equal(pooled, keep.float() * (site.weights / site.units))


def test_the_contract_covered_every_structure():
    assert len(registry.names("structure")) == 6


@given(st.sampled_from(registry.names("structure")), st.floats(0, 0.5), st.integers(0, 99))
def test_the_lowest_go_and_as_many_as_asked(kind: str, sparsity: float, seed: int):
    for site in sites(kind):
        scores = torch.rand(site.units, generator=torch.Generator().manual_seed(seed))
        keep = site.choose(scores, sparsity)
        if site.pattern is not None:
            assert bool(((~keep).view(-1, 2).sum(dim=1) == int(sparsity * 2 + 2e-4)).all())
            continue
        assert int((~keep).sum()) == round(sparsity * site.units)
        if bool((~keep).any()) and bool(keep.any()):
            assert scores[~keep].max() <= scores[keep].min()


def test_scopes_by_name_and_pattern():
    assert list(scope("attention").matrices) == ["q.weight", "o.weight"]
    assert list(scope("all").matrices) == ["q.weight", "o.weight", "up.weight", "down.weight", "emb.weight"]
    assert list(scope("*.weight", "ffn").matrices) == [name for name in SHAPES if name.endswith("weight")]
    assert scope("o.weight").groups == (HEADS,) and scope("q.weight").groups == ()
    assert left_dense({"q.weight"}, SHAPES) == ("o.weight", "up.weight", "down.weight", "emb.weight")


BAD = {
    "scope": (lambda: scope("atention"), r"'atention' matches nothing; .*did you mean 'attention'\?"),
    "bias": (lambda: scope("*.bias"), "matches nothing"),
    "block": (
        lambda: registry.make("structure", "block", {"rows": 3, "cols": 3}).sites(scope("q.weight")),
        r"Blocks of 3 x 3 do not divide q\.weight; got 4 x 6; allowed: rows that divide 4, cols that divide 6",
    ),
    "empty block": (lambda: registry.make("structure", "block", {"rows": 0, "cols": 3}), "at least one row"),
    "n over m": (lambda: registry.make("structure", "n:m", {"n": 5, "m": 4}), "n = 5, m = 4"),
    "m": (
        lambda: registry.make("structure", "n:m", {"n": 2, "m": 4}).sites(scope("q.weight")),
        "Groups of 4 do not divide",
    ),
    "pattern too dense": (lambda: sites("n:m")[0].choose(torch.rand(48), 0.6), "1 of 2 is less sparse than the target"),
    "no heads": (lambda: registry.make("structure", "head", {}).sites(scope("ffn")), "has no heads"),
    "no layers": (lambda: registry.make("structure", "layer", {}).sites(scope("embeddings")), "no layers"),
    "missing option": (lambda: registry.make("structure", "block", {"rows": 2}), "needs a value for cols"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name: str):
    make, words = BAD[name]
    with pytest.raises(UserError, match=words):
        make()
