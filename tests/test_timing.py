from __future__ import annotations

import gc
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from sparsebert.errors import UserError
from sparsebert.models.layout import layout_of
from sparsebert.timing import (
    Conditions,
    Variant,
    encoder_timer,
    interleave,
    is_narrow,
    measure,
    median_interval,
    orders,
    quartiles,
    ratios,
    times,
    timing,
    torch_threads,
)
from tiny import LAYERS, tiny_batch, tiny_model

pytestmark = pytest.mark.timing
MS = 1_000_000
CONDITIONS = Conditions("encoder", "eager", "float32", "sdpa", batch=2, length=50, threads=1)


class FakeTime:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def work(self, name: str, ms: list[float], log: list[str] | None = None) -> Variant:
        """A variant whose n-th call takes ms[n], and the last of them for ever after."""
        left = list(ms)

        def call() -> None:
            self.now_ns += int((left.pop(0) if len(left) > 1 else left[0]) * MS)
            if log is not None:
                log.append(name)

        return Variant(name, call)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_no_variant_always_follows_the_same_one(count: int) -> None:
    rows = orders(count, 2 * count)
    pairs = Counter(pair for row in rows for pair in pairwise(row))
    places = Counter((place, variant) for row in rows for place, variant in enumerate(row))
    assert all(sorted(row) == list(range(count)) for row in rows)
    assert len(pairs) == count * (count - 1) and set(pairs.values()) <= {2}
    assert len(places) == count * count and set(places.values()) == {2}


def test_two_variants_swap_places() -> None:
    assert orders(2, 4) == [[0, 1], [1, 0], [1, 0], [0, 1]]


def test_samples_are_milliseconds_a_call_and_warm_up_is_not_counted() -> None:
    clock, log = FakeTime(), []
    # Three warm-up calls; the fastest, 4 ms, makes three calls a sample of at least 10 ms. Then (4+5+6)/3 = 5.
    slow = clock.work("slow", [40, 4, 9, 4, 5, 6, 7], log)
    fast = clock.work("fast", [2], log)
    found = measure([slow, fast], rounds=2, warmup_ms=6, min_sample_ms=10, clock=clock)
    assert found["slow"].whole_ms == (5, 7) and found["slow"].calls == 3
    assert found["fast"].whole_ms == (2, 2) and found["fast"].calls == 5
    assert found["slow"].part_ms is None
    assert log == ["slow"] * 3 + ["fast"] * 3 + ["slow"] * 3 + ["fast"] * 5 + ["fast"] * 5 + ["slow"] * 3


def test_warm_up_lasts_as_long_as_asked() -> None:
    clock, log = FakeTime(), []
    interleave([clock.work("a", [1], log)], rounds=1, warmup_ms=7, min_sample_ms=1, clock=clock)
    assert len(log) == 7 + 1


def test_interleave_gives_lists() -> None:
    clock = FakeTime()
    assert interleave([clock.work("a", [3])], 2, warmup_ms=0, min_sample_ms=1, clock=clock) == {"a": [3.0, 3.0]}


def test_the_part_is_what_the_running_total_gained_in_each_sample() -> None:
    clock, total = FakeTime(), [0]

    def call() -> None:
        clock.now_ns += 4 * MS
        total[0] += 1 * MS

    found = measure([Variant("a", call, lambda: total[0])], 3, warmup_ms=0, min_sample_ms=8, clock=clock)["a"]
    assert (found.whole_ms, found.part_ms, found.calls) == ((4, 4, 4), (1, 1, 1), 2)


def test_runs_without_autograd_and_without_garbage_collection() -> None:
    states = []
    clock = FakeTime()

    def call() -> None:
        clock.now_ns += MS
        states.append((gc.isenabled(), torch.is_inference_mode_enabled()))

    measure([Variant("a", call)], 1, warmup_ms=0, min_sample_ms=1, clock=clock)
    assert set(states) == {(False, True)}
    assert gc.isenabled() and not torch.is_inference_mode_enabled()


def test_garbage_collection_comes_back_after_an_error() -> None:
    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure([Variant("a", fails)], 1)
    assert gc.isenabled()


def test_two_variants_of_one_name_are_refused() -> None:
    clock = FakeTime()
    with pytest.raises(ValueError, match="names of their own"):
        measure([clock.work("a", [1]), clock.work("a", [1])], 1, clock=clock)


def test_speedup_is_the_median_of_paired_ratios_not_the_ratio_of_medians() -> None:
    # The machine gets four times slower on the way; each pair still says 2x, 2x, 4x.
    found = timing([1, 2, 4], [2, 4, 16], CONDITIONS)
    assert (found.q25_ms, found.median_ms, found.q75_ms) == (1.5, 2, 3)
    assert (found.speedup_q25, found.speedup, found.speedup_q75) == (2, 2, 3)
    assert found.tokens_per_s == 2 * 50 * 1000 / 2
    assert (found.scope, found.backend, found.dtype, found.attention) == ("encoder", "eager", "float32", "sdpa")
    assert (found.batch, found.length, found.threads, found.rounds) == (2, 50, 1, 3)


def test_a_timing_is_its_times_and_what_they_are_of() -> None:
    found = times([1, 2, 4], [2, 4, 16])
    assert (found.rounds, found.q25_ms, found.median_ms, found.q75_ms, found.speedup) == (3, 1.5, 2, 3, 2)
    whole = timing([1, 2, 4], [2, 4, 16], CONDITIONS)
    assert dict(found).items() <= dict(whole).items() and whole.backend == "eager"
    # Two sequences of 50 tokens in 2 ms.
    assert whole.tokens_per_s == 50_000


def test_without_a_baseline_there_is_no_speedup() -> None:
    found = timing([1.0, 2.0], None, CONDITIONS)
    assert (found.speedup, found.speedup_q25, found.speedup_q75) == (None, None, None)


def test_times_that_give_no_ratio_are_refused() -> None:
    with pytest.raises(ValueError, match="time of zero"):
        timing([0.0, 0.0], [1.0, 1.0], CONDITIONS)
    with pytest.raises(ValueError, match="is shorter than"):
        ratios([1.0], [1.0, 2.0])


def test_quartiles_interpolate() -> None:
    assert quartiles([4, 1, 2, 3]) == (1.75, 2.5, 3.25)


@pytest.mark.parametrize(
    ("count", "place"),
    # With 6 the chance that all lie on one side of the median is 2 / 2**6 = 3 %, with 5 it is 6 %.
    [(1, None), (5, None), (6, 1), (8, 1), (9, 2), (15, 4), (60, 22)],
)
def test_the_interval_of_a_median_is_between_two_of_the_values(count: int, place: int | None) -> None:
    values = [float((7 * number) % count if count % 7 else number) for number in range(count)]
    expected = None if place is None else (place - 1, count - place)
    assert median_interval(values) == expected


def test_speedups_have_the_interval_of_their_median() -> None:
    found = timing([1.0] * 6, [2.0, 1.9, 2.1, 2.0, 1.8, 2.3], CONDITIONS)
    assert (found.speedup_low, found.speedup, found.speedup_high) == (1.8, 2.0, 2.3)
    few = timing([1.0] * 5, [2.0] * 5, CONDITIONS)
    assert few.speedup == 2 and few.speedup_low is few.speedup_high is None


def test_narrow_is_within_five_percent_either_way() -> None:
    assert is_narrow([1.91] + [2.0] * 4 + [2.09])
    assert not is_narrow([1.89] + [2.0] * 4 + [2.0]) and not is_narrow([2.0] * 5)


def noisy(clock: FakeTime, rounds_ms: list[float]) -> list[Variant]:
    """Of 1 ms always, and of these times after three calls of warm-up."""
    return [clock.work("own", [1]), clock.work("base", [2, 2, 2, *rounds_ms])]


QUICK = {"warmup_ms": 0, "min_sample_ms": 0.1}


def test_more_rounds_until_the_ratio_is_known_well() -> None:
    clock = FakeTime()
    found = measure(noisy(clock, [1, 3, 1, 3, 1, 3, *[2] * 40]), 6, compared=[("own", "base")], clock=clock, **QUICK)
    # 3 rounds say 1, 3 say 3. Of 12 the interval of the median is from the 3rd to the 10th, 1 to 3; of 18 from the 5th.
    assert len(found["own"].whole_ms) == len(found["base"].whole_ms) == 18


def test_no_more_rounds_where_the_ratio_is_known_or_none_is_asked_for() -> None:
    for compared, wanted in (([("own", "base")], [2.0]), ([], [1.0, 3.0])):
        clock = FakeTime()
        found = measure(noisy(clock, wanted * 30), 6, compared=compared, clock=clock, **QUICK)
        assert len(found["own"].whole_ms) == 6


def test_more_rounds_end_at_four_times_as_many_or_when_the_time_is_up() -> None:
    for length, rounds in ((1.0, 24), (4000.0, 10)):
        clock = FakeTime()
        variants = noisy(clock, [length, 3 * length] * 40)
        found = measure(variants, 6, compared=[("own", "base")], clock=clock, **QUICK)
        # Of 4 and 12 s in turn: the fourth beyond six passes 30 s.
        assert len(found["own"].whole_ms) == rounds


def test_the_ratio_of_the_parts_must_be_known_too() -> None:
    clock, total, turns = FakeTime(), [0], [0]

    def call() -> None:
        clock.now_ns += MS
        turns[0] += 1
        total[0] += MS // (2 if turns[0] % 2 else 4)

    variants = [Variant("own", call, lambda: total[0]), Variant("base", lambda: call(), lambda: total[0])]
    found = measure(variants, 6, compared=[("own", "base")], clock=clock, **QUICK)
    assert set(found["own"].whole_ms) == {1.0} and len(found["own"].whole_ms) == 24


class Ticking(nn.Module):
    """A layer that takes `ms` of a fake clock."""

    def __init__(self, clock: FakeTime, ms: int) -> None:
        super().__init__()
        self.clock, self.ms = clock, ms
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now_ns += self.ms * MS
        return x


def test_encoder_clock_counts_the_layers_and_nothing_else() -> None:
    clock = FakeTime()
    model = nn.Sequential(*(Ticking(clock, ms) for ms in (100, 3, 4, 5, 1000)))
    with encoder_timer(model, ["1", "2", "3"], clock) as watch:
        model(torch.zeros(1))
        model(torch.zeros(1))
    model(torch.zeros(1))
    assert (watch.total_ns, watch.passes) == (2 * 12 * MS, 2)


def test_encoder_clock_of_no_layers_stays_zero() -> None:
    clock = FakeTime()
    model = nn.Sequential(Ticking(clock, 100))
    with encoder_timer(model, [], clock) as watch:
        model(torch.zeros(1))
    assert (watch.total_ns, watch.passes) == (0, 0)


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
def test_encoder_clock_in_a_real_model_leaves_it_as_it_was(family: str) -> None:
    model = tiny_model(family)
    paths = [layer.path for layer in layout_of(model).layers]
    assert len(paths) == LAYERS
    plain = model(**tiny_batch())[0]
    with encoder_timer(model, paths) as watch:
        assert torch.equal(model(**tiny_batch())[0], plain)
    assert watch.passes == 1 and watch.total_ns > 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_threads_are_set_and_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(None) as count:
        assert count == before


@pytest.mark.parametrize("count", [0, 1025])
def test_no_threads_and_far_too_many_are_an_error(count: int) -> None:
    with pytest.raises(UserError, match=f"no number of threads; got {count}; allowed: 1 to 1024"), torch_threads(count):
        pass
