"""Words with tags from end to end: fine-tuned, cut, taught, exported, asked, checked and served."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification, pipeline

from sparsebert.deployment.predictor import Predictor
from sparsebert.models.load import load_model, load_tokenizer
from sparsebert.records import Record, read_record
from tiny_run import QUICK, assert_refused, run_cli, save_tiny

NAMES, MORE = ("w50", "w51"), "w52"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and texts in which one of NAMES begins an entity, which MORE may go on with."""
    folder = tmp_path_factory.mktemp("tokens")
    save_tiny(folder / "model", "base")
    draw = random.Random(0)
    (folder / "data").mkdir()
    for name, count in (("train", 64), ("validation", 40)):
        lines = []
        for _ in range(count):
            words = [(f"w{draw.randrange(40)}", "O") for _ in range(draw.randint(2, 8))]
            place, own = draw.randrange(len(words)), draw.choice(NAMES)
            words[place:place] = [(own, "B-X"), (MORE, "I-X")][: draw.randint(0, 2)]
            lines += [*(f"{word} {tag}" for word, tag in words), ""]
        (folder / "data" / f"{name}.conll").write_text("\n".join(lines), encoding="utf-8")
    return folder


def run(home: Path, command: str, model: Path, name: str, *arguments: object) -> Record:
    given = ("--kind", "tokens", "--task", "mine", "--data", home / "data", "-o", home / name)
    said = run_cli(command, model, *given, "--set", "measure.rounds=3", *arguments)
    assert said.exit_code == 0, said.output
    return read_record(home / name / "record.json")


@pytest.fixture(scope="module")
def tuned(home: Path) -> Path:
    settings = ("training.learning_rate=3e-3", "training.evaluate=null", "training.batch_size=8", "measure.timed=false")
    long = ("--epochs", 20, *(part for setting in settings for part in ("--set", setting)))
    record = run(home, "finetune", home / "model", "tuned", *long)
    scores = {one.metric: one for one in record.models[0].scores}
    assert scores["entity_f1"].value > 0.8 and scores["entity_f1"].baseline == 0.0
    return home / "tuned" / "finetuned"


@pytest.fixture(scope="module")
def small(home: Path, tuned: Path) -> Path:
    record = run(home, "compress", tuned, "small", *QUICK, "--sparsity", 0.5, "--set", "finetune.max_steps=6")
    assert record.main_metric == "entity_f1" and [model.name for model in record.models] == ["dense", "0.5-sparsity"]
    for result in record.models:
        assert [one.metric for one in result.scores] == ["entity_f1", "tag_accuracy"]
        assert all(one.baseline is not None for one in result.scores)
        decisions = result.decisions
        assert decisions is not None and decisions.classes == ("O", "B-X", "I-X")
    words = (home / "data" / "validation.conll").read_text(encoding="utf-8").split("\n")
    assert sum(map(sum, decisions.confusion)) == sum(bool(line) for line in words)
    assert all(f"[{word}]" in flip.text for flip in decisions.flips for word in [flip.text.split("[")[1].split("]")[0]])
    (of_x,) = decisions.types
    assert of_x.label == "X" and of_x.there > 0
    assert {one.metric: one.value for one in record.models[1].scores}["entity_f1"] == pytest.approx(of_x.f1)
    page = (home / "small" / "report.html").read_text(encoding="utf-8")
    assert f"of {of_x.there}" in page and "Entities of each type" in page
    card = (home / "small" / "0.5-sparsity" / "README.md").read_text(encoding="utf-8")
    assert 'pipeline("token-classification"' in card and "pipeline_tag: token-classification" in card
    return home / "small" / "0.5-sparsity"


def test_what_was_cut_loads_with_transformers_and_answers_as_its_pipeline(small: Path):
    model = load_model(small)
    assert isinstance(AutoModelForTokenClassification.from_pretrained(small), type(model))
    texts = ["w3 w50 w52 w7", "w51 w1 w2 w51 w52 w9", "w4 w5"]
    theirs = pipeline("token-classification", model, tokenizer=load_tokenizer(small), aggregation_strategy="first")
    for text, (own,) in zip(texts, ([one] for one in Predictor(small)(texts)), strict=True):
        found = [(one["entity_group"], one["start"], one["end"]) for one in theirs(text)]
        assert [(one["label"], one["start"], one["end"]) for one in own["spans"]] == found
        assert all(one["text"] == text[one["start"] : one["end"]] for one in own["spans"])


def test_predict_shows_and_writes_spans(small: Path, tmp_path: Path):
    said = run_cli("predict", small, "w3 w50 w52 w7", "--json")
    (row,) = json.loads(said.stdout)["predictions"]
    assert set(row) == {"id", "text", "spans"}
    shown = run_cli("predict", small, "w3 w50 w52 w7")
    assert shown.exit_code == 0 and "Tagged" in shown.stdout
    run_cli("predict", small, "w3 w50 w52 w7", "-o", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        (flat,) = csv.DictReader(file)
    assert json.loads(flat["spans"]) == row["spans"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("a,b\nw1,w2\n", encoding="utf-8")
    said = run_cli("predict", small, "--file", pairs, "--text-column", "a", "--text-column", "b")
    assert_refused(said, ["A model of kind tokens reads single texts; got pairs"])


def test_an_exported_program_gives_the_same_spans_and_passes_the_check(home: Path, tuned: Path, tmp_path: Path):
    given = ("--kind", "tokens", "--task", "mine", "--data", home / "data", "-o", tmp_path / "programs")
    said = run_cli("export", tuned, "--to", "onnx", *given)
    assert said.exit_code == 0 and "entity_f1" in said.stdout, said.output
    texts = ["w3 w50 w52 w7 " * 4, "w51 w1"]
    for own, other in zip(Predictor(tmp_path / "programs")(texts), Predictor(tuned)(texts), strict=True):
        assert [one | {"probability": pytest.approx(one["probability"], abs=1e-4)} for one in own["spans"]] == other[
            "spans"
        ]
    data = home / "data" / "validation.conll"
    said = run_cli("check", tuned, tmp_path / "programs", "--data", data, "--max-drop", 0, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["agreement"] == 1.0 and found["metric"] == "entity_f1"
    (recall,) = found["recalls"]
    assert recall["label"] == "X" and recall["first"] == recall["second"] > 0.5
    scores = {one["metric"]: one["value"] for one in found["first"]}
    record = read_record(home / "tuned" / "record.json")
    assert scores == pytest.approx({one.metric: one.value for one in record.models[0].scores})


def test_a_check_without_tags_counts_words_that_change(tuned: Path, small: Path, tmp_path: Path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"w3 w{number} w52 w7"}) for number in range(40, 56)))
    found = json.loads(run_cli("check", tuned, small, "--data", texts, "--json").stdout)
    assert found["rows"] == 16 and found["words"] == 64 and "metric" not in found
    differing = sum(
        one["spans"] != other["spans"]
        for one, other in zip(*(Predictor(model)(tags_of(texts)) for model in (tuned, small)), strict=True)
    )
    assert (found["agreement"] < 1) == (differing > 0)
    said = run_cli("check", tuned, small, "--data", texts)
    assert "of 64 words get the same tag" in said.stdout


def tags_of(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]


def test_a_teacher_of_tags_teaches(home: Path, tuned: Path, small: Path):
    teach = ("--teacher", tuned, "--epochs", 1, "--set", "measure.timed=false")
    record = run(home, "finetune", small, "taught", *teach)
    assert record.models[0].scores[0].value >= 0.5
    with torch.no_grad():
        assert load_model(home / "taught" / "finetuned").config.id2label == {0: "O", 1: "B-X", 2: "I-X"}


def test_long_texts_are_trained_on_and_scored_whole(home: Path, tuned: Path, tmp_path: Path):
    lines = [f"{word} {tag}" for word, tag in (("w1", "O"), ("w50", "B-X"), ("w52", "I-X"), ("w2", "O"))] * 9
    for name in ("train", "validation"):
        (tmp_path / f"{name}.conll").write_text("\n".join([*lines, "", "w4 O"]), encoding="utf-8")
    given = ("--kind", "tokens", "--task", "long", "--data", tmp_path, "--set", "max_length=18", "-o", tmp_path / "run")
    steps = ("--set", "training.max_steps=1", "--set", "training.learning_rate=1e-9", "--set", "measure.timed=false")
    said = run_cli("finetune", tuned, *given, *steps, "--set", "training.evaluate=null")
    assert said.exit_code == 0 and "validation: 2 texts are read in 4 parts" in said.stderr, said.output
    (decisions,) = [model.decisions for model in read_record(tmp_path / "run" / "record.json").models]
    assert decisions is not None and sum(map(sum, decisions.confusion)) == 37
    (checked,) = json.loads(
        run_cli("check", tuned, tmp_path / "run" / "finetuned", "--data", tmp_path / "train.conll", "--json").stdout
    )["recalls"]
    assert checked["rows"] == 9 and checked["second"] == decisions.types[0].right / 9
