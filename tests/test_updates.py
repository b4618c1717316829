"""Updates: RigL, SET, pruning, deletion, rewinding and early-bird tickets on vectors worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Component
from sparsebert.sparse.budgets import Uniform
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.updates import Moment, swapped
from test_structures import scope

WEIGHTS = torch.tensor([0.9, -0.1, 0.5, 0.0, 0.0, -0.3, 0.0, 0.0])
GRADIENTS = torch.tensor([0.1, 0.8, 0.2, 0.7, -0.9, 0.05, 0.3, -0.6])
KEPT = torch.tensor([1, 1, 1, 0, 0, 1, 0, 0], dtype=torch.bool)
# Dropped by |weight|: 1, then 5, 2, 0. ConvertedModel by |gradient| among all that is then gone: 4, 1, 3, 7.
FIVE_MASKS = {
    0.0: [1, 1, 1, 0, 0, 1, 0, 0],
    0.25: [1, 0, 1, 0, 1, 1, 0, 0],
    0.5: [1, 1, 1, 0, 1, 0, 0, 0],
    0.75: [1, 1, 0, 1, 1, 0, 0, 0],
    1.0: [0, 1, 0, 1, 1, 0, 0, 1],
}


@pytest.mark.parametrize("fraction", FIVE_MASKS)
def test_rigl_drops_and_grows_as_worked_by_hand(fraction: float):
    found = swapped(KEPT, WEIGHTS.abs(), GRADIENTS.abs(), fraction)
    assert found.int().tolist() == FIVE_MASKS[fraction]


def at(step: int, scores: dict[str, torch.Tensor], sparsity: float, keep=None, state=None, **more) -> Moment:
    [site] = registry.make("structure", "neuron", {}).sites(scope("ffn"))
    values = Moment(
        step=step,
        sparsity=sparsity,
        sites=(site,),
        keeps=[torch.ones(8, dtype=torch.bool) if keep is None else keep],
        budget=Uniform(),
        score=lambda role: [scores[role]],
        state={} if state is None else state,
        times=Times(total=100, per_epoch=10),
        start=0,
        stop=50,
        final=0.5,
    )
    return replace(values, **more)


def update(kind: str, **options):
    return registry.make("update", kind, options)


def test_pruned_units_stay_pruned_whatever_their_score():
    scores = {"drop": torch.arange(8.0)}
    [keep] = update("prune").masks(at(0, scores, 0.25))
    assert keep.int().tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    [keep] = update("prune").masks(at(1, {"drop": -torch.arange(8.0)}, 0.5, keep))
    assert keep.int().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_target_under_the_current_sparsity_is_refused():
    half = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    with pytest.raises(UserError, match=r"under the current sparsity; got 0\.1; allowed: at least 0\.5"):
        update("prune").masks(at(0, {"drop": torch.arange(8.0)}, 0.1, half))


def test_deletion_happens_once():
    state: dict[str, torch.Tensor] = {}
    scores, deletion = {"drop": torch.arange(8.0)}, update("delete")
    assert deletion.masks(at(0, scores, 0.5, state=state))[0].sum() == 4
    assert deletion.masks(at(1, scores, 0.75, state=state))[0].all()
    assert not deletion.holds


def test_deletion_takes_all_that_the_target_says_at_the_first_moment_that_asks():
    state: dict[str, torch.Tensor] = {}
    scores, deletion = {"drop": torch.arange(8.0)}, update("delete")
    assert deletion.masks(at(0, scores, 0.0, state=state))[0].all()
    assert deletion.masks(at(1, scores, 0.05, state=state))[0].int().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["prune", "rewind", "swap", "early_bird"])
def test_what_earlier_masks_removed_stays_removed(kind: str):
    half = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1], dtype=torch.bool)
    lowest_kept = {role: torch.tensor([9.0, 1, 9, 2, 9, 3, 9, 4]) for role in ("drop", "grow")}
    [keep] = update(kind).masks(at(50, lowest_kept, 0.75, half, final=0.75))
    assert keep.int().tolist() == [0, 0, 0, 0, 0, 1, 0, 1]
    with pytest.raises(UserError, match="under the current sparsity"):
        update(kind).masks(at(50, lowest_kept, 0.1, half, final=0.1))


def test_a_swap_on_the_way_to_a_target_prunes_first():
    state: dict[str, torch.Tensor] = {}
    growing = update("swap", fraction=0.5)
    scores = {"drop": WEIGHTS.abs(), "grow": GRADIENTS.abs()}
    assert growing.masks(at(0, scores, 0.0, state=state))[0].all()
    [first] = growing.masks(at(1, {"drop": torch.arange(8.0)}, 0.25, state=state))
    assert first.int().tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    # 2 and 3 are pruned; of what is left 4 and 5 are dropped, and of all that is gone then 4 and 1 grow.
    [second] = growing.masks(at(2, {"drop": torch.arange(8.0), "grow": GRADIENTS.abs()}, 0.5, first, state))
    assert second.int().tolist() == [0, 1, 0, 0, 1, 0, 1, 1]


def test_swaps_begin_with_a_mask_and_keep_its_size():
    state: dict[str, torch.Tensor] = {}
    rigl = update("swap", fraction=0.5)
    assert list(rigl.roles(Component(kind="magnitude"))) == ["drop", "grow"]
    scores = {"drop": WEIGHTS.abs(), "grow": GRADIENTS.abs()}
    [keep] = rigl.masks(at(0, scores, 0.5, state=state))
    assert keep.int().tolist() == [1, 1, 1, 0, 0, 1, 0, 0]
    [keep] = rigl.masks(at(1, scores, 0.5, keep, state))
    assert keep.int().tolist() == FIVE_MASKS[0.5]


def test_a_swap_with_fraction_zero_is_a_static_mask_and_a_first_mask_can_be_random():
    state: dict[str, torch.Tensor] = {}
    static = update("swap", fraction=0.0, init="random")
    assert list(static.roles(Component(kind="magnitude"))) == ["drop", "grow", "init"]
    scores = {"init": -torch.arange(8.0), "drop": WEIGHTS.abs(), "grow": GRADIENTS.abs()}
    [first] = static.masks(at(0, scores, 0.5, state=state))
    assert first.int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(static.masks(at(9, scores, 0.5, first, state))[0], first)


def test_the_swapped_share_follows_its_schedule():
    shrinking = update("swap", fraction={"kind": "linear", "initial": 1.0, "final": 0.0})
    scores, state = {"drop": WEIGHTS.abs(), "grow": GRADIENTS.abs()}, {"asked": torch.tensor([0.5])}
    assert shrinking.masks(at(50, scores, 0.5, KEPT, state))[0].int().tolist() == FIVE_MASKS[0.5]
    assert torch.equal(shrinking.masks(at(100, scores, 0.5, KEPT, state))[0], KEPT)


def test_rewinding_prunes_and_refuses_to_go_back_to_the_future():
    rewind = update("rewind", to={"steps": 5})
    assert rewind.rewinds and rewind.snapshot_step(Times(100, 10)) == 5
    assert rewind.masks(at(5, {"drop": torch.arange(8.0)}, 0.5))[0].sum() == 4
    with pytest.raises(UserError, match="has not come yet; got masks change at step 4, rewinding to 5"):
        rewind.masks(at(4, {"drop": torch.arange(8.0)}, 0.5))


def test_an_early_bird_is_drawn_when_the_mask_stands_still():
    state: dict[str, torch.Tensor] = {}
    bird = update("early_bird", threshold=0.2, window=2)
    moving = [torch.roll(torch.arange(8.0), step) for step in range(4)]
    for step, scores in enumerate(moving):
        assert bird.masks(at(step, {"drop": scores}, 0.0, state=state))[0].all()
    still = {"drop": moving[-1]}
    assert bird.masks(at(4, still, 0.0, state=state))[0].all()
    [drawn] = bird.masks(at(5, still, 0.0, state=state))
    assert drawn.sum() == 4 and float(state["drawn"]) == 5
    assert torch.equal(bird.masks(at(6, {"drop": -moving[0]}, 0.0, drawn, state))[0], drawn)


def test_an_early_bird_is_drawn_at_the_last_moment_in_any_case():
    assert update("early_bird").masks(at(50, {"drop": torch.arange(8.0)}, 0.0))[0].sum() == 4


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("swap", {"init": "best"}, "init of the update swap does not fit: .*'criterion' or 'random'; got best"),
        ("swap", {"fraction": 7}, "fraction must lie between 0 and 1, got 7"),
        ("early_bird", {"threshold": 0.0}, "threshold must lie"),
        ("early_bird", {"window": 2.5}, "window of the update early_bird does not fit: .*; got 2.5"),
        ("swap", {"converted": "x"}, "converted"),
    ],
)
def test_bad_options(kind: str, options: dict, words: str):
    with pytest.raises(UserError, match=words):
        update(kind, **options)


def test_every_update_is_covered():
    assert registry.names("update") == ["prune", "swap", "delete", "rewind", "early_bird"]
