"""Where a curve begins to drop: the fit against lines drawn by hand, and the study of runs of prune-curve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_record import example_record
from exploring import curve_run
from sparsebert import study
from sparsebert.records import WeightHistogram, write_record
from sparsebert.reports.charts import LinePanel
from sparsebert.studies.broken_stick import broken_stick
from sparsebert.studies.drop_start import size_below
from tiny_run import assert_refused, run_cli

TENTHS = tuple(place / 10 for place in range(10))


def stick(start: float, end: float, before: float, after: float) -> tuple[float, ...]:
    return tuple(np.interp(TENTHS, [start, end], [before, after]).tolist())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(2, 4), st.floats(-50, 50), st.floats(1, 90))
def test_what_is_a_stick_is_found(first: int, length: int, after: float, height: float):
    y = stick(first / 10, (first + length) / 10, after + height, after)
    found = broken_stick(TENTHS, y)
    assert found is not None and found.at(TENTHS) == pytest.approx(y, abs=0.05 * height)
    # The grid of starts has steps of 0.0045.
    assert found.start == pytest.approx(first / 10, abs=0.005)
    assert found.low - 0.005 <= first / 10 <= found.high + 0.005


def test_noise_widens_the_interval_and_a_rise_is_a_stick_too():
    noise = np.random.default_rng(0).normal(0, 1, 10)
    y = np.array(stick(0.4, 0.9, 80, 20))
    exact, noisy, noisier = (broken_stick(TENTHS, (y + size * noise).tolist()) for size in (0, 1, 4))
    assert exact is not None and noisy is not None and noisier is not None
    widths = [one.high - one.low for one in (exact, noisy, noisier)]
    assert widths[0] < 0.01 < widths[1] < widths[2]
    assert noisier.low <= 0.4 <= noisier.high
    rising = broken_stick(TENTHS, (-y).tolist())
    assert rising is not None and rising.start == pytest.approx(0.4, abs=0.005)


def test_a_single_straight_line_begins_at_its_first_point():
    found = broken_stick(TENTHS, stick(0.0, 0.9, 90, 0))
    assert found is not None and (found.start, found.end) == pytest.approx((0.0, 0.9))


def test_too_few_points_and_a_level_line_have_no_stick():
    assert broken_stick(TENTHS[:5], (5, 5, 5, 2, 1)) is None
    assert broken_stick(TENTHS, [7.0] * 10) is None


def test_sizes_are_read_from_the_histograms_of_all_matrices():
    # 40 weights of |w| < 1 and 20 of 1 to 2, evenly in each bin; then 10 zeros and 30 of |w| < 1.
    first = WeightHistogram(kind="query", reach=2.0, counts=(10, 20, 20, 10), below=0, above=0, zeros=0)
    second = WeightHistogram(kind="key", reach=1.0, counts=(15, 15), below=0, above=0, zeros=10)
    assert size_below((first,), 0.5) == pytest.approx(30 / 40)
    assert size_below((first, second), 0.45) == pytest.approx((45 - 10) / 70)
    assert size_below((first, second), 0.9) == pytest.approx(1.5)
    # All of these are zero, and beyond the bins nothing is known.
    assert size_below((first, second), 0.05) is None
    beyond = WeightHistogram(kind="value", reach=1.0, counts=(1, 1), below=4, above=4, zeros=0)
    assert size_below((beyond,), 0.5) is None and size_below((), 0.5) is None


def _run(folder: Path, start: float, points: int = 10) -> Path:
    """A run whose validation score falls from `start` on, and whose train score is level."""
    return curve_run(folder, stick(start, 0.9, 0.8, 0.5)[:points])


def test_runs_are_answered_without_their_models(tmp_path: Path):
    runs = [_run(tmp_path / name, start) for name, start in (("a", 0.3), ("b", 0.5), ("c", 0.6))]
    said = run_cli("study", "drop-start", *runs, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["checkpoints"] == ["a", "b", "c"]
    assert [row["start"] for row in found["rows"]] == pytest.approx([0.3, 0.5, 0.6], abs=0.005)
    # A train score that never changes has no stick, and so no row.
    assert {row["split"] for row in found["rows"]} == {"validation"}
    assert found["rows"][0]["weight"] == pytest.approx(0.3, abs=0.005)
    assert found["rows"][0]["before"] == pytest.approx(80, abs=0.1)
    assert "begins to drop at 50" in found["answer"] and "median of 3 runs" in found["answer"]
    one = study("drop-start", [str(runs[0])])
    lines = one.chart.panels[1]
    assert isinstance(lines, LinePanel) and [line.label for line in lines.lines if line.reference] == [
        "fit, validation"
    ]
    assert "95% interval" in one.answer


def test_what_is_no_curve_is_refused(tmp_path: Path):
    run = _run(tmp_path / "run", 0.3)
    (tmp_path / "plain").mkdir()
    write_record(example_record(), tmp_path / "plain")
    for words, expected in (
        ((tmp_path / "plain",), ["asks about runs of prune-curve", "got plain"]),
        ((tmp_path / "none",), ["No record found"]),
        ((run, run), ["The same run is given twice"]),
        ((_run(tmp_path / "short", 0.1, points=5),), ["6 points with different scores", "got short"]),
        ((), ["asks about 1 run or more; got none"]),
        ((run, "--sparsity", "0.5"), ["takes no --sparsity"]),
    ):
        assert_refused(run_cli("study", "drop-start", *words), expected)
