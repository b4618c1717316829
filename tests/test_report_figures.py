from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from example_record import (
    HEADS,
    NEURONS,
    ORDER,
    SHAPES,
    example_record,
    full_record,
    plain_record,
    sparse_record,
    train_record,
)
from sparsebert.reports import curves, families
from sparsebert.reports.bars import latency_plot, size_plot
from sparsebert.reports.curves import curve_plot, outside
from sparsebert.reports.figures import cut_models, write_pngs
from sparsebert.reports.maps import describe, shape_map
from sparsebert.reports.plots import pareto_plot
from sparsebert.reports.theme import DARK, LIGHT, to_png, to_svg
from sparsebert.reports.visits import STEPS, Tree, cells, describe_tree, visit_key, visit_map
from sparsebert.reports.zeros import describe_zeros, zeros_map


def axes_of(figure):
    return figure.axes[0]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def boxes(axes, colour):
    return [patch for patch in axes.patches if patch.get_facecolor() == to_rgba(colour)]


def test_the_pareto_plot_has_measured_speedups_and_scores():
    axes = axes_of(pareto_plot(families([example_record()])))
    x, y = axes.containers[0].lines[0].get_data()
    # 14.2 ms of the encoder and 0.414 ms beside it.
    assert list(x) == pytest.approx([1, *(14.614 / (14.2 / speedup + 0.414) for speedup in (2.04, 3.92, 7.71))])
    assert list(y) == pytest.approx([91.28, 90.94, 90.60, 87.27])
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1×", "2×", "4×"]
    assert axes.get_xlabel() == "Measured speedup of the whole model over dense"
    assert texts(axes) == ["dense 91.3%", "2x  90.9%", "4x  90.6%", "8x  87.3%"]
    assert axes.get_ylabel() == "Accuracy, %"
    assert axes.get_legend() is None


def test_several_families_are_several_lines_with_bars_over_seeds():
    records = [example_record(seed, criterion) for criterion in ("obs", "magnitude") for seed in (0, 1, 2)]
    axes = axes_of(pareto_plot(families(records)))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["obs", "magnitude"]
    assert len(axes.containers) == 2
    assert texts(axes) == ["dense 91.3%", "2x", "4x", "8x"]
    vertical = axes.containers[0].lines[2][1].get_segments()
    # Seeds shift the 8x score by 0, +0.23 and -0.34 points times (7.71 - 1) / 3.
    assert [point[1] for point in vertical[3]] == pytest.approx([87.27 - 0.34 * 6.71 / 3, 87.27 + 0.23 * 6.71 / 3])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_parts_of_a_bar_are_told_apart_without_colours(theme):
    greys = [float(np.dot(to_rgba(colour)[:3], (0.299, 0.587, 0.114))) for colour in (theme.soft, theme.heads)]
    assert abs(greys[0] - greys[1]) > 0.2


def test_every_point_has_bars_both_ways_and_the_baseline_is_drawn_where_it_is_in_view():
    record = full_record()
    axes = axes_of(pareto_plot(families([record])))
    across, up = (bars.get_segments() for bars in axes.containers[0].lines[2])
    assert [ends[1][0] - ends[0][0] > 0 for ends in across] == [False, True, True, True]
    assert [ends[1][1] - ends[0][1] for ends in up] == pytest.approx([3.8] * 4)
    assert not [text for text in texts(axes) if "majority" in text]
    near = tuple(
        model.model_copy(update={"scores": tuple(one.model_copy(update={"baseline": 0.87}) for one in model.scores)})
        for model in record.models
    )
    axes = axes_of(pareto_plot(families([record.model_copy(update={"models": near})])))
    assert "majority class 87.0%" in texts(axes)
    assert [87.0, 87.0] in [list(line.get_ydata()) for line in axes.get_lines()]


def test_without_times_of_the_whole_model_the_plot_is_of_the_encoder():
    record = full_record()
    models = tuple(
        model.model_copy(update={"timings": tuple(one for one in model.timings if one.scope == "encoder")})
        for model in record.models
    )
    axes = axes_of(pareto_plot(families([record.model_copy(update={"models": models})])))
    assert axes.get_xlabel() == "Measured speedup of the encoder over dense"
    assert list(axes.containers[0].lines[0].get_xdata()) == pytest.approx([1, 2.04, 3.92, 7.71])


def test_a_dense_model_alone_is_no_plot():
    record = full_record()
    assert pareto_plot(families([record.model_copy(update={"models": record.models[:1]})])) is None


def test_the_map_has_heads_at_their_places_darker_the_more_they_matter():
    record = full_record()
    [axes] = shape_map(record.models[2:3]).figure.axes
    edge = boxes(axes, LIGHT.faint)[0]
    size = edge.get_width() / HEADS
    for layer, kept in enumerate(record.models[2].shape.kept_heads):
        top = boxes(axes, LIGHT.faint)[2 * layer].get_y()
        squares = [p for p in axes.patches if p.get_y() == top and p.get_width() == pytest.approx(size)]
        places = [round((square.get_x() - edge.get_x()) / size) for square in squares]
        assert places == list(kept)
        darkest = min(squares, key=lambda square: square.get_facecolor()[0], default=None)
        if darkest is not None:
            # The example keeps the most important head of each layer.
            assert places[squares.index(darkest)] == ORDER[layer][0]
            assert darkest.get_facecolor() == pytest.approx(to_rgba(LIGHT.heads))
    assert describe(record.models[2]).startswith("layer 1: 7 heads (")


def test_the_map_of_a_model_made_without_feedforward_blocks_has_no_bars():
    [model] = example_record().models[:1]
    bare = model.shape.model_copy(update={"neurons": (0,) * len(model.shape.neurons), "full_neurons": 0})
    [axes] = shape_map([model.model_copy(update={"shape": bare})]).axes
    assert texts(axes).count("no feedforward block") == len(bare.neurons)
    assert not [text for text in texts(axes) if text.startswith("neurons of")]


def test_a_bar_is_as_long_as_a_forward_pass_takes():
    axes = axes_of(latency_plot(families([full_record()])[0]))
    assert [patch.get_width() for patch in axes.patches] == pytest.approx(
        [14.2 / speedup + 0.414 for speedup in (1, 2.04, 3.92, 7.71)]
    )
    assert texts(axes) == ["14.6 ms", "7.37 ms", "4.04 ms", "2.26 ms"]
    assert latency_plot(families([sparse_without_times()])[0]) is None


def sparse_without_times():
    record = train_record()
    return record.model_copy(update={"models": (record.models[0].model_copy(update={"timings": ()}),)})


def test_zeros_are_drawn_by_layer_and_matrix_instead_of_full_bars():
    model = train_record().models[0]
    axes = axes_of(zeros_map(model))
    assert len(axes.patches) == 6 * 6
    shown = texts(axes)
    assert shown[0] == "sparse" and shown[1:3] == ["attention\nquery", "attention\nkey"]
    assert shown[8:14] == ["80.0%", "81.0%", "82.0%", "83.0%", "84.0%", "85.0%"]
    assert describe_zeros(model).startswith("layer 1, attention query: 80.0% zeros; ")
    assert zeros_map(example_record().models[0]) is None
    family = families([train_record()])[0]
    assert cut_models(family) == []
    fewer = model.model_copy(update={"shape": model.shape.model_copy(update={"heads": (1,) * 6})})
    record = train_record().model_copy(update={"models": (fewer,)})
    assert cut_models(families([record])[0]) == [fewer]


def overlaps(axes):
    """Pairs of texts of a drawn plot that cover each other, and texts outside its frame."""
    axes.figure.draw_without_rendering()
    drawn = {text.get_text(): text.get_window_extent() for text in axes.texts}
    frame = axes.get_window_extent()
    found = [(a, b) for a, b in combinations(drawn, 2) if drawn[a].overlaps(drawn[b])]
    return found + [name for name, box in drawn.items() if box.x0 < frame.x0 or box.x1 > frame.x1]


def test_labels_of_models_at_the_same_score_and_nearly_the_same_speed_can_be_read():
    record = example_record()
    dense, small = record.models[0], record.models[1]
    near = [
        small.model_copy(
            update={
                "name": f"0.{number}-sparsity",
                "scores": dense.scores,
                "timings": tuple(
                    timing.model_copy(update={"speedup": 0.7 + 0.05 * number, "speedup_q25": None, "speedup_q75": None})
                    for timing in small.timings
                ),
            }
        )
        for number in range(1, 9)
    ]
    axes = axes_of(pareto_plot(families([record.model_copy(update={"models": (dense, *near)})])))
    assert len(axes.texts) == 9 and overlaps(axes) == []


def test_a_legend_lies_above_the_plot_and_within_the_figure():
    words = "magnitude picks after a long word or two"
    records = [example_record(name=f"{words} {number}, and then more of them") for number in range(3)]
    figure = pareto_plot(families(records))
    figure.draw_without_rendering()
    legend, frame = axes_of(figure).get_legend().get_window_extent(), axes_of(figure).get_window_extent()
    assert legend.y0 >= frame.y1 and legend.x1 <= figure.bbox.x1
    assert frame.height > 0.6 * 4.0 * figure.dpi


NAMES = ("_a", "_a2", "a$b^$", r"$\frac{1}$", " ")


def legend_of(figure):
    to_png(figure)
    return [text.get_text() for text in axes_of(figure).get_legend().get_texts()]


@pytest.mark.parametrize("names", [NAMES, ("_a", "_a2"), (" ", "  ")])
def test_names_of_recipes_stand_in_the_legend_as_they_are(names):
    records = [example_record(name=name) for name in names]
    assert legend_of(pareto_plot(families(records))) == [name.strip() for name in names]
    swept = [train_record(sparsity=sparsity, name=name) for name in names for sparsity in (0.5, 0.9)]
    assert legend_of(curve_plot(curves(swept))) == [name.strip() for name in names]


def test_names_of_models_and_metrics_are_no_mathematics(tmp_path):
    record = example_record()
    odd = tuple(
        model.model_copy(update={"name": name}) for model, name in zip(record.models, ("dense", *NAMES), strict=False)
    )
    record = record.model_copy(update={"models": odd, "main_metric": "a$b^$"})
    scored = tuple(
        model.model_copy(update={"scores": tuple(s.model_copy(update={"metric": "a$b^$"}) for s in model.scores)})
        for model in odd
    )
    paths = write_pngs(families([record.model_copy(update={"models": scored})]), tmp_path)
    assert [path.name for path in paths] == ["pareto.png", "map.png", "size.png", "latency.png"]


def test_without_scores_there_is_no_pareto_plot():
    assert pareto_plot(families([sparse_record()])) is None
    assert pareto_plot(families([plain_record()])) is None


def test_the_map_fills_as_many_heads_and_neurons_as_are_left():
    models = example_record().models
    figure = shape_map(models)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["dense", "2x", "4x", "8x"]
    for axes, model in zip(figure.axes, models, strict=True):
        heads, neurons, dropped = SHAPES[model.name]
        left = [layer for layer in range(6) if layer not in dropped]
        filled = [box.get_width() for box in boxes(axes, LIGHT.heads)]
        full = boxes(axes, LIGHT.faint)[0].get_width()
        assert filled == pytest.approx([full * heads[layer] / HEADS for layer in left])
        bars = [box.get_width() for box in boxes(axes, LIGHT.neurons)]
        assert bars == pytest.approx([boxes(axes, LIGHT.faint)[1].get_width() * neurons[i] / NEURONS for i in left])
        assert sum(patch.get_hatch() is not None for patch in axes.patches) == len(dropped)
        assert all(str(neurons[layer]) in texts(axes) for layer in left)


def test_more_models_than_columns_go_on_in_the_next_row():
    models = example_record().models
    figure = shape_map([*models, models[1]], columns=3)
    assert len(figure.axes) == 6
    assert [len(axes.texts) > 0 for axes in figure.axes] == [True] * 5 + [False]


def test_cells_of_a_tree_by_hand():
    # Eight tokens at four nodes, two each if spread evenly.
    ratio, unused = cells(np.array([2, 4, 1, 0]), 8)
    assert ratio.tolist() == [1, 2, 0.5, 0] and unused.tolist() == [0, 0, 0, 1]
    # 128 nodes in 64 cells: the first has one node that nobody visits, and 64 of 128 tokens where 2 were even.
    level = np.ones(128, dtype=int)
    level[:2] = 64, 0
    level[2:4] = 0
    ratio, unused = cells(level, 128)
    assert ratio[:3].tolist() == [32, 0, 1] and unused[:3].tolist() == [0.5, 1, 0] and len(ratio) == 64


def test_the_picture_of_a_tree_has_a_row_a_level_and_marks_what_nobody_visits():
    tree = Tree(2, 0, np.array([8, 0, 8, 0, 0, 2, 6]))
    axes = axes_of(visit_map([tree]))
    assert texts(axes)[:3] == ["Layer 3, tree 1", "7 nodes, 3 unused", "unused"]
    assert texts(axes)[3:] == ["1", "0%", "2", "50%", "3", "50%"]
    dead = to_rgba(LIGHT.neurons)
    marked = [
        [tuple(image.get_array()[0, cell]) == dead for cell in range(2**i)] for i, image in enumerate(axes.images)
    ]
    assert marked == [[False], [True, False], [True, True, False, False]]
    # All tokens at one of two nodes are twice an even share, a third of the way from even (the middle) to eight times.
    ramp = axes_of(visit_key()).images[0].get_array()[0]
    assert np.abs(axes.images[1].get_array()[0, 1] - ramp[round(127 * 2 / 3)]).max() < 0.02
    assert describe_tree(tree) == "Layer 3, tree 1: 7 nodes, 3 unused; unused by level: level 2: 50%, level 3: 50%"


def test_a_cell_of_many_nodes_shows_a_single_one_that_nobody_visits():
    visits = np.ones(2**13 - 1, dtype=int)
    visits[0], visits[-1] = 2**12, 0
    axes = axes_of(visit_map([Tree(0, 0, visits)]))
    last = axes.images[-1].get_array()
    assert last.shape == (STEPS, 64, 4)
    dead = (last == np.array(to_rgba(LIGHT.neurons))).all(axis=2)
    assert dead.sum() == 1 and dead[-1, -1]
    assert texts(axes)[-1] == "<1%"


def test_the_map_in_words():
    words = describe(example_record().models[3])
    assert words.startswith("layer 1: 4 heads, 224 neurons; layer 2: 2 heads, 128 neurons; ")
    assert words.endswith("layer 4: dropped; layer 5: 1 heads, 64 neurons; layer 6: dropped")


def test_the_bars_add_up_to_the_parameters():
    record = example_record()
    axes = axes_of(size_plot(families([record])[0]))
    widths = [patch.get_width() for patch in axes.patches]
    for row, model in enumerate(record.models):
        assert sum(widths[3 * row : 3 * row + 3]) == pytest.approx(model.size.parameters / 1e6)
    assert texts(axes) == ["90.8 MB", "70.9 MB", "58.8 MB", "52.0 MB"]


def test_a_figure_is_the_same_bytes_each_time_and_dark_differs_from_light():
    family = families([plain_record()])[0]
    light = to_svg(size_plot(family))
    assert light == to_svg(size_plot(family))
    assert light != to_svg(size_plot(family, DARK))
    assert to_png(size_plot(family)).startswith(b"\x89PNG\r\n\x1a\n")


def test_pngs_are_named_after_the_families(tmp_path):
    write_pngs(families([plain_record()]), tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["latency.png", "map.png", "size.png"]
    two = [example_record(), example_record(criterion="magnitude")]
    short = [record.model_copy(update={"models": record.models[:2]}) for record in two]
    paths = write_pngs(families(short), tmp_path / "two")
    single = [f"{kind}-{family}.png" for family in ("1-obs", "2-magnitude") for kind in ("map", "size", "latency")]
    names = ["pareto.png", *single]
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_families_that_differ_in_everything_have_names_that_fit(tmp_path):
    words = ("a" * 20, "b" * 20)
    records = [
        example_record(model=f"{w}/1{w}", task=f"{w}2", data=f"{w}3", max_length=4 + at, data_seed=at)
        for at, w in enumerate(words)
    ]
    short = [record.model_copy(update={"models": record.models[:2]}) for record in records]
    paths = write_pngs(families(short), tmp_path)
    assert len(paths) == 7 and all(len(path.name) < 60 for path in paths)
    assert not any("max_length" in family.label for family in families(short))


def test_pictures_of_single_families_are_of_those_that_are_no_point_of_a_curve(tmp_path):
    swept = [train_record(seed, sparsity) for sparsity in (0.5, 0.9) for seed in (0, 1)]
    records = [*swept, plain_record(), train_record(sparsity=0.7, name="alone")]
    found = curves(records)
    alone = outside(families(records), found)
    assert [family.first for family in alone] == records[4:]
    names = sorted(path.name for path in write_pngs(alone[:1], tmp_path, found))
    assert names == ["curves.png", "latency.png", "map.png", "size.png"]


def test_a_run_without_a_score_is_no_point_and_keeps_its_pictures():
    swept = [train_record(sparsity=sparsity) for sparsity in (0.5, 0.7, 0.9)]
    bare = swept[2].model_copy(update={"models": (swept[2].models[0].model_copy(update={"scores": ()}),)})
    records = [*swept[:2], bare]
    assert [family.first for family in outside(families(records), curves(records))] == [bare]


def test_pictures_are_written_as_all_files_are(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("sparsebert.reports.figures.write_bytes_atomically", lambda path, content: written.append(path))
    assert write_pngs(families([plain_record()]), tmp_path / "new") == written != []
