"""What is larger than chance: contenders made by hand, and seeds that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from example_record import example_record
from sparsebert.errors import UserError
from sparsebert.records import SplitOf
from sparsebert.reports.families import families
from sparsebert.studies.significance import Contender, _seed_error, _Spread, differences, holm
from test_claim import INPUTS


def contender(name: str, right: float, seeds: int = 3, rows: int = 400) -> Contender:
    """Right on the first part of the rows, each seed on one row more."""
    labels = np.arange(rows) % 2
    logits = {}
    for seed in range(seeds):
        guess = np.where(np.arange(rows) < right * rows + seed, labels, 1 - labels)
        logits[seed] = np.eye(2)[guess]
    return Contender(name, "accuracy", "validation", labels, logits)


def test_a_large_difference_is_no_chance_and_a_small_one_may_be():
    found = differences([contender("a", 0.80), contender("b", 0.70), contender("c", 0.7975)], 400, 0)
    assert [one.points for one in found] == pytest.approx([-10, -0.25], abs=1e-6)
    assert found[0].p_corrected < 0.02 and found[0].low < -10 < found[0].high < -6
    assert found[1].high >= 0


def test_with_too_few_resamples_nothing_could_be_told():
    rivals = [contender(name, 0.8) for name in "abcd"]
    with pytest.raises(UserError, match="Too few resamples to compare 4 models; got 119; allowed: 120 and more"):
        differences(rivals, 119, 0)
    assert len(differences(rivals, 120, 0)) == 3


def test_what_seeds_add_by_hand():
    first, rival = {0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.6, 1: 0.7, 2: 0.8}
    assert _seed_error(first, rival, True) == pytest.approx((0.1 / 3**0.5, 2))
    # Squares from the means: 0.02 and 0, with 3 + 1 - 2 = 2 degrees; 0.01 times (1 + 1/3).
    assert _seed_error({5: 0.4}, rival, False) == pytest.approx(((0.01 * 4 / 3) ** 0.5, 2))
    assert _seed_error({0: 0.5}, {0: 0.6}, True) == _seed_error({0: 0.5}, {1: 0.6}, False) == (0.0, 0)


def test_few_seeds_that_differ_say_little_and_one_says_nothing_of_others():
    first, rival = contender("a", 0.80), contender("b", 0.80)
    for seed, right in enumerate((0.82, 0.92, 0.82)):
        rival.logits[seed] = contender("b", right).logits[0]
    [found] = differences([first, rival], 400, 0)
    assert found.low < 0 < found.points and found.p > 0.05
    [alone] = differences([contender("a", 0.8, seeds=1), contender("b", 0.84, seeds=1)], 400, 0)
    assert alone.low > 0 and "over examples only" in alone.test


def test_what_seeds_add_is_computed_by_hand():
    # Of t with two degrees of freedom (1 - 2 / sqrt(6)) / 2 lie below -2, and 95 % within 4.302653 of 0.
    spread = _Spread(np.full(10_000, 1.0), 0.5, 2)
    assert spread.below(0.0) == pytest.approx((1 - 2 / 6**0.5) / 2)
    assert spread.p == pytest.approx(2 * (1 + 10_000 * (1 - 2 / 6**0.5) / 2) / 10_001)
    assert [spread.quantile(0.025), spread.quantile(0.975)] == pytest.approx([1 - 0.5 * 4.302653, 1 + 0.5 * 4.302653])
    two = _Spread(np.array([-3.0, 3.0]), 0.5, 2)
    assert two.below(0.0) == pytest.approx(0.5) and two.quantile(0.5) == pytest.approx(0, abs=1e-9)
    alone = _Spread(np.array([0.0, 1.0, 1.0, 2.0]), 0.0, 0)
    assert (alone.below(1.0), alone.p, alone.quantile(0.5)) == (0.75, 2 * (1 + 1) / 5, 1.0)


def test_a_difference_does_not_depend_on_what_else_is_compared():
    first, second, third = contender("a", 0.80), contender("b", 0.78), contender("c", 0.76)
    second.logits[1] = contender("b", 0.70).logits[1]
    [one, _], [_, other] = differences([first, second, third], 400, 0), differences([first, third, second], 400, 0)
    assert (one.low, one.high, one.p) == (other.low, other.high, other.p)


def test_correlations_are_compared():
    labels, noise = np.linspace(0, 5, 200), np.random.default_rng(0).normal(size=(2, 3, 200, 1))
    sides = [
        Contender(name, "pearson", "validation", labels, {s: labels[:, None] + wide * noise[i, s] for s in range(3)})
        for i, (name, wide) in enumerate((("a", 0.1), ("b", 3.0)))
    ]
    [found] = differences(sides, 200, 0)
    assert found.high < 0 and found.p_corrected < 0.05


def test_holm_by_hand():
    base = differences([contender("a", 0.8), contender("b", 0.7), contender("c", 0.6), contender("d", 0.5)], 120, 0)
    raw = [replace(one, p=p) for one, p in zip(base, (0.01, 0.04, 0.03), strict=True)]
    assert [one.p_corrected for one in holm(raw)] == pytest.approx([0.03, 0.06, 0.06])


def test_only_the_same_rows_are_paired():
    first, rival = (replace(contender(name, 0.8), rows=rows) for name, rows in (("a", "d1"), ("b", "d2")))
    with pytest.raises(UserError, match="the same examples can be compared; got 400 rows with the same labels, but ot"):
        differences([first, rival], 200, 0)
    assert len(differences([first, replace(rival, rows="d1")], 200, 0)) == 1
    assert len(differences([first, replace(rival, rows=None)], 200, 0)) == 1


def test_seeds_of_other_data_are_no_family():
    one, two = (example_record(seed).model_copy(update={"inputs": INPUTS}) for seed in (0, 1))
    assert len(families([one, two])) == 1
    data = INPUTS.data | {"train": SplitOf(rows=8, sha256="x")}
    for changed in ({"data": data}, {"model": {"config.json": "x"}}, {"labels": ("no", "maybe")}):
        other = two.model_copy(update={"inputs": INPUTS.model_copy(update=changed)})
        assert [family.seeds for family in families([one, other])] == [(0,), (1,)]
