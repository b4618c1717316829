"""What a report says of a training: the steps of each phase, the way to the zeros, and where they are."""

import pytest

from example_record import LAYERS, example_record, plain_record, train_record
from sparsebert.records import SparsityAt, TrainingRun
from sparsebert.reports import as_html, families, write_report
from sparsebert.reports.details import detail_table
from sparsebert.reports.theme import to_png
from sparsebert.reports.training import sparsity_table, timeline_plot

pytestmark = pytest.mark.pictures


def cells(row):
    return [cell.text for cell in row]


def test_every_phase_has_a_row():
    table = detail_table(families([train_record(), example_record()]))
    assert [column.text for column in table.columns][-1] == "Output difference"
    warm, prune = table.sections[0].rows
    assert (warm[0].text, warm[0].small) == ("sparse", "phase warm")
    assert cells(warm)[1:] == ["600", "1", "20,000", "15 min", "0.31", "float32", "none", "–"]
    assert (prune[0].small, *cells(prune)[1:]) == (
        *("phase prune", "450", "1", "20,000", "15 min", "0.42", "float32", "some/teacher", "–"),
    )
    dense, small = table.sections[1].rows[:2]
    assert cells(dense)[1:3] == ["4,210", "2"] and cells(dense)[7:] == ["none", "–"]
    assert cells(small)[7:] == ["dense model", "2.4e-07"]


def test_a_check_is_of_the_model_and_stands_once():
    record = train_record()
    model = record.models[0].model_copy(update={"output_difference": 2.4e-7})
    [section] = detail_table(families([record.model_copy(update={"models": (model,)})])).sections
    assert [row[-1].text for row in section.rows] == ["–", "2.4e-07"]


def test_a_model_that_was_not_trained_has_a_row_of_dashes():
    [section] = detail_table(families([plain_record()])).sections
    assert cells(section.rows[0]) == ["dense", *["–"] * 8]


def points(axes):
    return [[tuple(map(float, point)) for point in zip(*line.get_data(), strict=True)] for line in axes.get_lines()]


def test_the_timeline_has_the_phases_one_after_the_other():
    figure = timeline_plot(train_record().models[0])
    sparsity, loss = figure.axes
    assert (sparsity.get_ylabel(), loss.get_ylabel()) == ("Sparsity, %", "Loss")
    # The second phase starts after the 600 steps of the first, which knows of no sparsity.
    marks = [[(600.0, 0.0), (600.0, 1.0)]]
    assert points(sparsity)[0] == [(800, pytest.approx(80 * 200 / 450)), (1000, pytest.approx(80 * 400 / 450))]
    assert points(sparsity)[1:] == marks
    assert [[x for x, _ in line] for line in points(loss)[:2]] == [[200, 400, 600], [800, 1000]]
    assert [(text.get_position()[0], text.get_text()) for text in sparsity.texts] == [(300, "1"), (825, "2")]
    assert loss.get_xlabel() == "Step (1: warm, 2: prune)"


def test_a_phase_too_short_to_be_logged_has_no_line():
    model = train_record().models[0]
    run = TrainingRun(steps=100, epochs=1, examples=9, seconds=1, dtype="float32", teacher=False)
    rows = tuple(SparsityAt(step=step, loss=1.0, phase="warm", sparsity=0.1) for step in (200, 400))
    model = model.model_copy(update={"phases": {"short": run, **model.phases}, "timeline": rows})
    loss = timeline_plot(model).axes[1]
    assert [[x for x, _ in line] for line in points(loss)[:1]] == [[300, 500]]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_line_needs_two_points(kept):
    model = train_record().models[0]
    assert timeline_plot(model.model_copy(update={"timeline": model.timeline[:kept]})) is None
    assert timeline_plot(example_record().models[0]) is None


def test_a_training_without_rules_shows_its_loss():
    model = train_record().models[0]
    rows = tuple(row.model_copy(update={"sparsity": None}) for row in model.timeline)
    figure = timeline_plot(model.model_copy(update={"timeline": rows}))
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss"]


@pytest.mark.parametrize("loss", [-2.0, 0.0])
def test_a_loss_below_zero_is_not_cut_off(loss):
    model = train_record().models[0]
    rows = tuple(row.model_copy(update={"loss": loss, "sparsity": 0.0}) for row in model.timeline)
    figure = timeline_plot(model.model_copy(update={"timeline": rows}))
    assert to_png(figure)
    assert bool(figure.axes[1].get_ylim()[0] < loss) == (loss < 0)


def test_names_of_phases_are_no_mathematics():
    model = train_record().models[0]
    names = {"warm": "_a$b^$", "prune": "c"}
    phases = {names[name]: run for name, run in model.phases.items()}
    rows = tuple(row.model_copy(update={"phase": names[row.phase]}) for row in model.timeline)
    assert to_png(timeline_plot(model.model_copy(update={"phases": phases, "timeline": rows})))


def test_zeros_stand_by_layer_and_matrix():
    table = sparsity_table(families([train_record(), example_record()]))
    heads = [(column.text, column.small) for column in table.columns]
    assert heads[:2] == [("Layer", ""), ("query", "attention")]
    assert heads[4:] == [("output", "attention"), ("intermediate", ""), ("output", "")]
    [section] = table.sections
    assert len(section.rows) == LAYERS
    assert cells(section.rows[1]) == ["2", "78.0%", "79.0%", "80.0%", "81.0%", "82.0%", "83.0%"]


@pytest.mark.parametrize(
    ("name", "layer", "head"),
    [
        ("distilbert.transformer.layer.3.ffn.lin1.weight", "4", ("lin1", "ffn")),
        ("model.layers.0.attn.Wqkv.weight", "1", ("Wqkv", "attn")),
        ("layers.11.mlp.w_in", "12", ("w_in", "mlp")),
        ("odd", "–", ("odd", "")),
    ],
)
def test_names_of_matrices_in_other_families(name, layer, head):
    record = train_record()
    model = record.models[0].model_copy(update={"sparsity_by_tensor": {name: 0.5}})
    table = sparsity_table(families([record.model_copy(update={"models": (model,)})]))
    assert cells(table.sections[0].rows[0]) == [layer, "50.0%"]
    assert (table.columns[1].text, table.columns[1].small) == head


def test_the_page_and_the_pictures_show_the_training(tmp_path):
    content = write_report([train_record()], tmp_path / "r.html", tmp_path / "png").read_text(encoding="utf-8")
    assert "<h2>What the training did</h2>" in content
    assert "warm: loss 0.567 at step 200" in content
    assert as_html(sparsity_table(families([train_record()])), "inline") in content
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names == ["latency.png", "pareto.png", "size.png", "training.png", "zeros.png"]
    plain = write_report([plain_record()], tmp_path / "p.html").read_text(encoding="utf-8")
    assert "What the training did" not in plain


def test_names_in_a_training_are_escaped(tmp_path):
    evil, record = "<script>alert(1)</script>", train_record()
    phases = [phase | {"name": evil, "teacher": evil} for phase in record.recipe["phases"][1:]]
    model = record.models[0]
    odd = {"phases": {evil: model.phases["prune"]}, "sparsity_by_tensor": {evil: 0.5, f"layers.0.{evil}": 0.5}}
    record = record.model_copy(
        update={"recipe": record.recipe | {"phases": phases}, "models": (model.model_copy(update=odd),)}
    )
    content = write_report([record], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in content and content.count("&lt;script&gt;alert(1)") >= 5
