"""`sparsebert study`: what it lists, prints, writes and refuses; and checkpoints of every family as arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import sparsebert
from sparsebert import registry
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import shrink
from sparsebert.studies.checkpoints import encoder_weights, head_blocks, other_matrices
from tiny import FAMILIES, HEADS, LAYERS, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

pytestmark = pytest.mark.pictures


@torch.no_grad()
def pruned(model: PreTrainedModel, part: float) -> PreTrainedModel:
    """The smallest part of each of the encoder's matrices at zero."""
    for name in encoder_linear_names(model):
        weight = model.get_parameter(name)
        weight[weight.abs() <= weight.abs().flatten().kthvalue(int(part * weight.numel())).values] = 0
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `dense`, `half`, `most`, and `cut`, which has other shapes."""
    home = tmp_path_factory.mktemp("models")
    tokenizer = load_tokenizer(save_tiny(home / "dense"))
    for name, part in (("half", 0.5), ("most", 0.75)):
        save_model(pruned(load_model(home / "dense"), part), tokenizer, home / name)
    keep = {"layer.0.heads": torch.tensor([True, False, True, False])}
    save_model(shrink(load_model(home / "dense"), keep), tokenizer, home / "cut")
    return home


def answer(*arguments: object) -> dict[str, Any]:
    said = run_cli("study", *arguments, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def test_all_studies_are_listed():
    found = json.loads(run_cli("study", "--json").stdout)
    assert [one["name"] for one in found] == registry.names("study")
    assert all(one["question"] and set(one) == {"name", "question", "options"} for one in found)
    listed = run_cli("study").stdout
    assert "mask-overlap" in listed and "--sparsity" in listed


def test_masks_of_saved_models(models: Path):
    found = answer("mask-overlap", models / "half", models / "most")
    # What is smallest at 50 % is among the smallest at 75 %.
    assert found["rows"][0]["iou"] == pytest.approx(2 / 3, abs=0.001)
    assert found["rows"][0]["pair"] == "half vs most" and len(found["rows"]) == 1 + 6 * LAYERS
    assert found["checkpoints"] == ["half", "most"] and found["settings"] == {"Masks": "exact zeros"}


def test_table_figure_and_numbers_are_written(models: Path, tmp_path: Path):
    said = run_cli("study", "mask-overlap", models / "half", models / "most", "-o", tmp_path / "new" / "out")
    assert said.exit_code == 0, said.output
    names = ["mask-overlap.json", "mask-overlap.md", "mask-overlap.png"]
    assert sorted(file.name for file in (tmp_path / "new" / "out").iterdir()) == names
    page = (tmp_path / "new" / "out" / "mask-overlap.md").read_text(encoding="utf-8")
    assert page.startswith("# How much do the masks overlap?") and "](mask-overlap.png)" in page
    assert "| layer 3 output |" in page and page.splitlines()[-2].startswith("sparsebert")
    assert (tmp_path / "new" / "out" / "mask-overlap.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "new" / "out" / "mask-overlap.json").read_text(encoding="utf-8"))
    assert numbers["answer"] in said.stdout and numbers["chart"]["panels"][0]["rows"] == ["1", "2", "3"]


def test_a_study_without_pictures_has_none(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARSEBERT_PICTURES", "off")
    assert run_cli("study", "head-zeros", models / "half", "-o", tmp_path).exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["head-zeros.json", "head-zeros.md"]
    assert ".png" not in (tmp_path / "head-zeros.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mask-overlaps", "half", "most"], ["Unknown study 'mask-overlaps'", "Did you mean 'mask-overlap'?"]),
        (["mask-overlap", "half"], ["The study mask-overlap asks about 2 checkpoints or more; got half"]),
        (["mask-overlap"], ["asks about 2 checkpoints or more; got none"]),
        (["mask-overlap", "half", "nothing-here/at/all"], ["does not exist"]),
        (["mask-overlap", "half", "."], ["no config.json, so it is not a model"]),
        (["mask-overlap", "half", "cut"], ["Which heads were cut away is not known", "got cut"]),
        (["sorting-order", "dense", "cut"], ["one architecture", "layer 1 attention query: 32x32 in dense, 16x32"]),
        (["mask-overlap", "half", "most", "--sparsity", "1.5"], ["between 0 and 1; got 1.5"]),
        (["mask-overlap", "half", "most", "--sparsity", "nan"], ["between 0 and 1; got nan"]),
        (["mask-overlap", "half", "most", "--sparsity", "0.6", "--sparsity", "0.6"], ["given twice"]),
        (["mask-overlap", "half", "most", "--sparsity", "0.3"], ["More of a matrix of half is zero"]),
        (["mask-overlap", "half", "most", "--task", "reviews"], ["takes no --task; allowed: sparsity"]),
        (["sorting-order", "half", "most", "--threshold", "0.1"], ["takes no --threshold; allowed: none"]),
        (["weight-distribution", "half", "--threshold", "-1"], ["positive number; got -1.0"]),
        (["json:loads", "half"], ["'json:loads' is of another kind", "studies.study.Study"]),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_writes_nothing(
    arguments: list[str], words: list[str], models: Path, tmp_path: Path
):
    places = {"half", "most", "cut", "dense"}
    given = [models / one if one in places else tmp_path if one == "." else one for one in arguments]
    assert_refused(run_cli("study", *given, "-o", tmp_path / "out"), words)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused_before_anything_is_opened(models: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_refused(run_cli("study", "head-zeros", models / "half", "-o", place), ["The output is no folder"])
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


OWN = """
from sparsebert.reports.charts import LinePanel, ChartLine, StudyChart
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import CheckpointStudy

def ask(asked):
    chart = StudyChart((LinePanel("t", "x", "y", (ChartLine("a", (0.0,), (1.0,)),)),))
    columns = (StudyColumn("name", "Name"), StudyColumn("value", "Value"))
    rows = tuple(StudyRow("", (name, float("nan"))) for name in asked.names)
    return StudyResult("my_studies:NAMES", "Names?", "These | <b>.", "Names.", asked.names, columns, rows, chart)

NAMES = CheckpointStudy("names", ask)
"""


def test_a_study_of_the_users_own(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_studies.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = answer("my_studies:NAMES", models / "half", models / "cut", "-o", "out")
    # What is no number is left out, and what a text holds is no markup.
    assert found["rows"] == [{"name": "half"}, {"name": "cut"}]
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".json", ".md", ".png"]
    assert "**These \\| &lt;b&gt;.**" in (tmp_path / "out" / "my_studies-NAMES.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_heads_of_every_family(family: str):
    model = tiny_model(family)
    weights, blocks = encoder_weights("m", model), head_blocks(model)
    names = encoder_linear_names(model)
    assert len(weights.matrices) == len(names) and {one.layer for one in weights.matrices} == set(range(LAYERS))
    assert not set(other_matrices(model)) & set(names)
    assert any("embeddings" in name or "tok" in name for name in other_matrices(model))
    first = [one for one in blocks if one.layer == 0]
    assert len({one.kind for one in first}) == len(first) >= 4
    assert all(one.values.shape[0] == HEADS for one in blocks)
    # The blocks hold all weights of attention, each once.
    group = layout_of(model).layers[0].groups["head"]
    tensors = {part.tensor for part in (*group.inputs, group.output) if part.tensor.endswith("weight")}
    total = sum(float(model.get_parameter(name).detach().double().abs().sum()) for name in tensors)
    assert sum(float(abs(one.values.astype(float)).sum()) for one in first) == pytest.approx(total, rel=1e-5)


def test_heads_are_told_apart_in_blocks():
    model = tiny_model("bert")
    size = model.config.hidden_size // HEADS
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.1.attention.self.value.weight")[size : 2 * size] = 0
        model.get_parameter("bert.encoder.layer.1.attention.output.dense.weight")[:, 2 * size : 3 * size] = 0
    own = {one.kind: (one.values == 0).mean(axis=1).tolist() for one in head_blocks(model) if one.layer == 1}
    assert own["attention value"] == [0, 1, 0, 0] and own["attention output"] == [0, 0, 1, 0]
    assert own["attention query"] == [0, 0, 0, 0]


def test_python_gets_the_same(models: Path):
    found = sparsebert.study("head-zeros", [str(models / "half")], sparsebert.StudyOptions())
    assert found.answer == answer("head-zeros", models / "half")["answer"]
    assert found.rows[-1].values[:2] == ("layer 3", "all together")
