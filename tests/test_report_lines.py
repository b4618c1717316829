"""Points of a plot are joined only where the line says more than chance."""

from example_record import example_record, full_record, train_record
from sparsebert.reports import curves, families
from sparsebert.reports.curves import curve_plot
from sparsebert.reports.plots import pareto_plot


def with_ranges(record, speedups=None, changes=None):
    """The record with these intervals by model: of the speedup, and of the change from dense in points."""
    models = []
    for model in record.models:
        if speedups and model.name in speedups:
            low, high = speedups[model.name]
            timings = (one.model_copy(update={"speedup_low": low, "speedup_high": high}) for one in model.timings)
            model = model.model_copy(update={"timings": tuple(timings)})
        if changes and model.name in changes:
            low, high = (end / 100 for end in changes[model.name])
            scores = (one.model_copy(update={"change_low": low, "change_high": high}) for one in model.scores)
            model = model.model_copy(update={"scores": tuple(scores)})
        models.append(model)
    return record.model_copy(update={"models": tuple(models)})


def joined(*records):
    """The scores at both ends of each line between points."""
    axes = pareto_plot(families(records)).axes[0]
    assert all(container.lines[0].get_linestyle() == "None" for container in axes.containers)
    bars = {line for container in axes.containers for line in (container.lines[0], *container.lines[1])}
    lines = [line for line in axes.get_lines() if line not in bars and line.get_linestyle() == "-"]
    return [[round(score, 1) for score in line.get_ydata()] for line in lines]


APART = {"2x": (-0.6, -0.1), "4x": (-1.2, -0.7), "8x": (-5.0, -3.0)}


def test_a_line_joins_neighbours_only_where_their_difference_is_larger_than_chance():
    assert joined(with_ranges(full_record(), changes=APART)) == [[91.3, 90.9], [90.9, 90.6], [90.6, 87.3]]
    # No loss is shown of 2x, and 4x cannot be told from it.
    unsure = {"2x": (-1.0, 0.4), "4x": (-1.4, 0.1), "8x": (-5.0, -3.0)}
    assert joined(with_ranges(full_record(), changes=unsure)) == [[90.6, 87.3]]
    # 4x is surely the worse one, but may be no faster than 2x, which reaches 1.98 * 1.02.
    assert joined(with_ranges(full_record(), {"4x": (2.0, 4.0)}, APART)) == [[91.3, 90.9], [90.6, 87.3]]
    assert joined(example_record()) == []


def test_no_line_joins_models_that_are_not_of_one_search_or_are_beaten_by_another():
    arms = with_ranges(full_record(), changes=APART).model_copy(update={"kind": "fff"})
    assert joined(arms) == []
    # 4x scores less than 8x, which is faster too, so the front goes past it.
    better = with_ranges(full_record(), changes={**APART, "4x": (-9.0, -8.0), "8x": (-5.0, -3.0)})
    worse = tuple(
        model.model_copy(update={"scores": tuple(one.model_copy(update={"value": 0.83}) for one in model.scores)})
        if model.name == "4x"
        else model
        for model in better.models
    )
    assert joined(better.model_copy(update={"models": worse})) == [[91.3, 90.9], [90.9, 87.3]]


def test_a_curve_is_a_line_only_where_its_points_are_of_several_seeds():
    once = [train_record(0, sparsity) for sparsity in (0.7, 0.8)]
    twice = [train_record(seed, sparsity) for sparsity in (0.7, 0.8) for seed in (0, 1)]
    styles = [curve_plot(curves(found)).axes[0].containers[0].lines[0].get_linestyle() for found in (once, twice)]
    assert styles == ["None", "-"]
