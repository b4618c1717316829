"""The rows of a classifier follow the labels' names; heads for other tasks are never replaced in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMultipleChoice,
)

from sparsebert.errors import UserError
from sparsebert.models.heads import foreign_head, has_task_head
from sparsebert.models.labels import head_order, own_names, take_labels
from sparsebert.models.load import load_config, load_model
from sparsebert.models.surgeon import shrink
from sparsebert.recipe.load import load_recipe
from sparsebert.runs.context import RunContext, set_up
from sparsebert.tasks.classification import CLASSIFICATION
from test_heads import rewrite
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels are no and yes."""
    return write_task(tmp_path_factory.mktemp("labels") / "data")


def named(folder: Path, *names: str, **values: object) -> Path:
    save_tiny(folder, num_labels=len(names))
    return rewrite(folder, id2label=dict(enumerate(names)), **values)


def context(model: Path, data: Path, out: Path) -> RunContext:
    return set_up(load_recipe(None, [f"model={model}", "task=mine", f"data={data}", "targets=[]"]), out)


def with_numbers(data: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("train.csv", "validation.csv"):
        text = (data / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace(",yes,", ",1,").replace(",no,", ",0,"), encoding="utf-8")
    return folder


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_every_family_follow_the_names(family: str, cut: bool):
    model = tiny_model(family, id2label={0: "B", 1: "c", 2: "A"})
    model = shrink(model, {}) if cut else model
    with torch.no_grad():
        before = model(**tiny_batch()).logits
        take_labels(model, ("a", "b", "c"))
        after = model(**tiny_batch()).logits
    assert torch.equal(after, before[:, [2, 0, 1]])
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}


def test_which_row_stands_for_which_label():
    def order(own: dict[int, str], *wanted: str) -> list[int] | None:
        return head_order(BertConfig(id2label=own), wanted)

    assert order({0: "positive", 1: "negative"}, "Negative", "positive") == [1, 0]
    assert order({0: "LABEL_0", 1: "LABEL_1"}, "no", "yes") == [0, 1]
    assert order({0: "0", 1: "1"}, "no", "yes") == [0, 1]
    assert order({0: "positive", 1: "negative"}, "0", "1") == [0, 1]
    assert order({0: "positive", 1: "negative"}, "1", "2") is None
    assert order({0: "positive", 1: "negative"}, "no", "yes") is None
    assert order({0: "a", 1: "A"}, "A", "a") == [1, 0]
    assert order({0: "a", 1: "A", 2: "x"}, "a", "A", "X") is None
    assert order({0: "a", 1: "b", 2: "c"}, "a", "b") is None


def test_a_model_with_its_labels_in_another_order_is_fine_tuned_for_the_task(tmp_path: Path, data: Path):
    model = named(tmp_path / "model", "Yes", "No")
    assert has_task_head(load_config(model), CLASSIFICATION, 2, ("no", "yes"))
    bench, given = context(model, data, tmp_path / "out"), load_model(model)
    fresh = bench.fresh()
    assert own_names(fresh.config) == ["no", "yes"]
    assert torch.equal(fresh.classifier.weight, given.classifier.weight[[1, 0]])
    assert torch.equal(fresh.classifier.bias, given.classifier.bias[[1, 0]])
    assert "order Yes, No; its head was put into the task's order, no, yes" in bench.notes[-1]
    fresh.save_pretrained(tmp_path / "dense")
    again = bench.load(tmp_path / "dense")
    assert torch.equal(again.classifier.weight, fresh.classifier.weight)


def test_a_model_keeps_its_names_where_the_data_have_numbers(tmp_path: Path, data: Path):
    model = named(tmp_path / "model", "bad", "good")
    bench = context(model, with_numbers(data, tmp_path / "numbers"), tmp_path / "out")
    fresh = bench.fresh()
    assert own_names(fresh.config) == ["bad", "good"]
    assert torch.equal(fresh.classifier.weight, load_model(model).classifier.weight)
    assert "The labels 0, 1 are taken to be the model's bad, good" in bench.notes[-1]
    base = rewrite(model, architectures=["BertForMaskedLM"])
    assert own_names(context(base, tmp_path / "numbers", tmp_path / "out").fresh().config) == ["0", "1"]


@pytest.mark.parametrize("saved", [{}, {"problem_type": "regression"}])
def test_rows_that_stand_for_other_labels_are_not_started_from(saved: dict[str, str], tmp_path: Path, data: Path):
    model = named(tmp_path / "model", "joy", "anger", **saved)
    old, bench = load_model(model).classifier, context(model, data, tmp_path / "out")
    first, again = bench.fresh(), bench.fresh()
    assert not torch.isclose(first.classifier.weight, old.weight).any()
    assert first.classifier.weight.std() < 0.03 and not first.classifier.bias.any()
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert torch.equal(first.bert.pooler.dense.weight, load_model(model).bert.pooler.dense.weight)


def test_other_names_and_other_numbers_of_labels_are_said(tmp_path: Path, data: Path):
    for names in (("bad", "good"), ("no", "yes", "maybe")):
        bench = context(named(tmp_path / names[0], *names), data, tmp_path / "out")
        assert f"gives {', '.join(names)}, and the task wants no, yes: it is not recognised" in bench.notes[-1]
        assert own_names(bench.fresh().config) == ["no", "yes"]


HEADS = {"BertForMultipleChoice": BertForMultipleChoice}


def test_a_model_that_tags_words_starts_no_task_of_texts(tmp_path: Path, data: Path):
    save_tiny(tmp_path / "model", "tokens")
    said = run_cli("compress", tmp_path / "model", "--data", data, "-o", tmp_path / "out", "--sparsity", 0.5)
    assert_refused(said, ["tags words", "got BertForTokenClassification for kind classification", "--kind tokens"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["compress", "train", "fff"])
@pytest.mark.parametrize("head", [*HEADS, "MyBertForSequenceClassification"])
def test_a_head_for_another_task_is_never_thrown_away(head: str, command: str, tmp_path: Path, data: Path):
    save_tiny(tmp_path / "model")
    if head in HEADS:
        HEADS[head](load_config(tmp_path / "model")).save_pretrained(tmp_path / "model")
    else:
        rewrite(tmp_path / "model", architectures=[head], problem_type="multi_label_classification")
    goal = {
        "compress": ["--sparsity", 0.5],
        "train": ["--recipe", "magnitude-cubic"],
        "fff": ["--depth", 1],
    }[command]
    out = tmp_path / "out"
    said = run_cli(command, tmp_path / "model", "--data", data, "-o", out, *goal)
    assert_refused(said, [head, "classification, regression", "would be lost"])
    assert not out.exists()
    assert_refused(run_cli("predict", tmp_path / "model", "good"), [head, "classification, regression"])


@pytest.mark.parametrize(
    "start",
    ["BertModel", "BertForMaskedLM", "BertLMHeadModel", "BertForPreTraining", "BertForNextSentencePrediction"],
)
def test_a_pretrained_model_is_a_start(start: str):
    assert foreign_head(BertConfig(architectures=[start])) is None
    assert foreign_head(BertConfig()) is None


def test_a_teacher_with_its_labels_in_another_order_is_accepted(tmp_path: Path, data: Path):
    teacher = named(tmp_path / "teacher", "yes", "no")
    bench = context(named(tmp_path / "model", "no", "yes"), data, tmp_path / "out")
    given = load_model(teacher)
    assert torch.equal(bench.load(teacher).classifier.weight, given.classifier.weight[[1, 0]])
    with pytest.raises(UserError, match="BertForMultipleChoice"):
        context(rewrite(teacher, architectures=["BertForMultipleChoice"]), data, tmp_path / "out")


def test_a_teacher_whose_labels_have_no_names_is_said(tmp_path: Path, data: Path):
    student, said = save_tiny(tmp_path / "student", "base"), []
    for teacher in (named(tmp_path / "named", "yes", "no"), save_tiny(tmp_path / "nameless")):
        phase = f"phases=[{{name: p, teacher: {teacher}}}]"
        made = load_recipe(None, [f"model={student}", "task=mine", f"data={data}", phase])
        said.append([note for note in set_up(made, tmp_path / "out").notes if "teacher" in note])
    wanted = "have no names: they are taken to be no, yes, in this order"
    assert said == [[], [f"The labels of the teacher {tmp_path / 'nameless'} {wanted}"]]
