"""Answers in texts from end to end: fine-tuned, cut, taught, exported, asked, checked and shown."""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from sparsebert.data.labels import labels_of
from sparsebert.deployment.predictor import Predictor
from sparsebert.live.agreement import compared
from sparsebert.live.texts import TextQueue
from sparsebert.models.load import load_config, load_model, load_tokenizer
from sparsebert.models.thresholds import thresholds_of
from sparsebert.recipe.finetune import FinetuneRecipe
from sparsebert.records import Record, read_record
from sparsebert.runs.context import set_up
from tiny_run import QUICK, assert_refused, run_cli, save_tiny

METRICS = ["answer_f1", "exact_match", "answered_f1", "unanswered_f1"]
NAMES, MORE = ("w50", "w51"), "w52"


def squad(name: str, count: int) -> str:
    """The answer is one of NAMES, which MORE may follow; half of the texts hold none."""
    draw, paragraphs = random.Random(name), []
    for number in range(count):
        words = [f"w{draw.randrange(40)}" for _ in range(draw.randint(3, 8))]
        place, answer = draw.randrange(len(words)), " ".join((draw.choice(NAMES), MORE)[: draw.randint(1, 2)])
        words[place:place] = [answer] if number % 2 else []
        found = {"text": answer, "answer_start": len(" ".join([*words[:place], ""]))}
        asked = {"question": "w45 w41", "answers": [found] if number % 2 else []}
        paragraphs.append({"context": " ".join(words), "qas": [asked]})
    return json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans")
    save_tiny(folder / "model", "base")
    (folder / "data").mkdir()
    for name, count in (("train", 160), ("dev", 60)):
        (folder / "data" / f"{name}-v2.0.json").write_text(squad(name, count), encoding="utf-8")
    return folder


def run(home: Path, command: str, model: Path, name: str, *arguments: object) -> Record:
    given = ("--kind", "spans", "--task", "mine", "--data", home / "data", "-o", home / name)
    settings = ("measure.rounds=3", "measure.timed=false", "threshold_rows=0.3")
    said = run_cli(command, model, *given, *(part for one in settings for part in ("--set", one)), *arguments)
    assert said.exit_code == 0, said.output
    return read_record(home / name / "record.json")


@pytest.fixture(scope="module")
def tuned(home: Path) -> Path:
    settings = ("training.learning_rate=3e-3", "training.evaluate=null", "training.batch_size=8")
    long = ("--epochs", 7, *(part for setting in settings for part in ("--set", setting)))
    record = run(home, "finetune", home / "model", "tuned", *long)
    (result,) = record.models
    assert [one.metric for one in result.scores] == METRICS
    scores = {one.metric: one for one in result.scores}
    assert scores["answer_f1"].value > 0.7 and scores["answer_f1"].baseline == 0.5
    assert scores["answer_f1"].examples == 60 and scores["unanswered_f1"].baseline == 1.0
    assert result.thresholds is not None and result.thresholds.rows is not None
    assert tuple(result.thresholds.values.values()) == thresholds_of(load_config(home / "tuned" / "finetuned"))
    assert any("on from which" in note or "an answer is given is chosen on" in note for note in record.notes)
    return home / "tuned" / "finetuned"


@pytest.fixture(scope="module")
def small(home: Path, tuned: Path) -> Path:
    record = run(home, "compress", tuned, "small", *QUICK, "--sparsity", 0.4, "--set", "finetune.max_steps=6")
    assert record.main_metric == "answer_f1" and [model.name for model in record.models] == ["dense", "0.4-sparsity"]
    card = (home / "small" / "0.4-sparsity" / "README.md").read_text(encoding="utf-8")
    for words in ("pipeline_tag: question-answering", "AutoModelForQuestionAnswering", "--file questions.jsonl"):
        assert words in card
    assert "An answer is given where the probability" in card
    assert "Empty answer" in (home / "small" / "report.html").read_text(encoding="utf-8")
    return home / "small" / "0.4-sparsity"


def test_what_was_cut_loads_with_transformers_and_answers_as_its_logits_say(small: Path):
    model, tokenizer = load_model(small), load_tokenizer(small)
    assert isinstance(AutoModelForQuestionAnswering.from_pretrained(small), type(model))
    ask = Predictor(small)
    for text in ("w3 w50 w12 w7", "w1 w2 w3", "w9 w8 w50 w51"):
        said = ask({"text": "w45 w41", "text_pair": text})
        inputs = tokenizer("w45 w41", text, return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        # Behind [CLS], the question and [SEP], before the last [SEP].
        places = range(4, len(starts) - 1)
        first, last = max(
            (pair for pair in product(places, places) if pair[0] <= pair[1]),
            key=lambda one: starts[one[0]] + ends[one[1]],
        )
        lead = starts[first] + ends[last] - starts[0] - ends[0]
        assert said["answerable"] == pytest.approx(torch.sigmoid(torch.tensor(lead)).item(), abs=1e-5)
        if said["answerable"] >= ask.thresholds[0]:
            assert said["answer"] == " ".join(text.split()[first - 4 : last - 3])
            assert text[said["start"] : said["end"]] == said["answer"]
        else:
            assert (said["answer"], said["start"]) == ("", None)


def test_long_texts_are_trained_on_scored_and_asked_in_windows(home: Path, tuned: Path, tmp_path: Path):
    filler = "w1 w2 w3 w4 w5 w6 w7 " * 8
    text = f"{filler}w50 w52 {filler}"
    answers = [{"text": "w50 w52", "answer_start": len(filler)}]
    rows = [{"question": "w45 w41", "context": text, "answers": answers}] * 2
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = ("--kind", "spans", "--task", "long", "--data", tmp_path, "--set", "max_length=24", "-o", tmp_path / "run")
    steps = ("training.max_steps=1", "training.learning_rate=1e-9", "measure.timed=false", "training.evaluate=null")
    said = run_cli("finetune", tuned, *given, *(part for one in steps for part in ("--set", one)))
    assert said.exit_code == 0, said.output
    assert "validation: 2 texts are read in" in said.stderr and "parts, some being longer than 24 tokens" in said.stderr
    (score, *_) = read_record(tmp_path / "run" / "record.json").models[0].scores
    assert (score.metric, score.examples) == ("answer_f1", 2)
    model = tmp_path / "run" / "finetuned"
    found = run_cli("check", tuned, model, "--data", tmp_path / "train.jsonl", "--label-column", "answers", "--json")
    assert json.loads(found.stdout)["second"][0]["value"] == pytest.approx(score.value)
    answer = Predictor(model)([{"text": "w45 w41", "text_pair": text}])[0]
    assert (answer["answer"], answer["start"]) == ("w50 w52", len(filler))


def test_a_length_without_room_for_the_text_is_refused_and_many_windows_are_told(
    home: Path, tuned: Path, tmp_path: Path
):
    row = {
        "question": "w45 w41",
        "context": "w1 w2 w3 " * 40 + "w50",
        "answers": [{"text": "w50", "answer_start": 360}],
    }
    both = (row, row | {"context": "w50"})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, both)), encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text(json.dumps(row), encoding="utf-8")
    given = ("--kind", "spans", "--task", "long", "--data", tmp_path, "-o", tmp_path / "run")
    for length, room in ((6, 2), (12, 7)):
        told = f"max_length leaves {room} tokens for the text beside a question, of which half have 2 or more"
        said = run_cli("finetune", tuned, *given, "--set", f"max_length={length}")
        assert_refused(said, [told, f"got {length} tokens; allowed: 13 up"])
    assert not (tmp_path / "run").exists()
    columns = {"columns": {"kind": "spans"}, "task": "long", "data": str(tmp_path), "threshold_rows": 0}
    notes = set_up(FinetuneRecipe(model=str(tuned), max_length=13, **columns), tmp_path / "run").notes
    # 121 tokens in windows of 8, each 6 further than the one before, and one of the short text.
    for name, count, parts, each in (("train", 2, 21, 10), ("validation", 1, 20, 20)):
        told = f"{name}: {count} texts are read in {parts} parts, some being longer than 13 tokens: {each} parts a text"
        assert any(note.startswith(told) for note in notes), notes


def test_thresholds_are_chosen_on_windows_too(home: Path, tuned: Path, tmp_path: Path):
    filler = "w1 w2 w3 w4 w5 w6 w7 " * 4
    texts = [f"{filler}w{number} {'w50' if number % 2 else ''}" for number in range(80)]
    answers = [[{"text": "w50", "answer_start": text.index("w50")}] if "w50" in text else [] for text in texts]
    rows = [{"question": "w45 w41", "context": one, "answers": own} for one, own in zip(texts, answers, strict=True)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    columns = {"columns": {"kind": "spans"}, "task": "long", "data": str(tmp_path / "long.jsonl")}
    recipe = FinetuneRecipe(kind="finetune", model=str(tuned), max_length=24, threshold_rows=0.5, **columns)
    context = set_up(recipe, tmp_path / "run")
    assert context.threshold_rows is not None and context.task.threshold_rows is not None
    labels = labels_of(context.threshold_rows)
    assert len({label["question"] for label in labels}) == len(context.task.threshold_rows) < len(labels)
    # No answer is cut away: each is in a window.
    assert len({label["question"] for label in labels if label["start"] >= 0}) == sum(
        bool(label["answers"]) for label in context.task.threshold_rows["label"]
    )


def test_an_exported_program_gives_the_same_answers_and_passes_the_check(home: Path, tuned: Path, tmp_path: Path):
    given = ("--kind", "spans", "--task", "mine", "--data", home / "data", "-o", tmp_path / "programs")
    said = run_cli("export", tuned, "--to", "onnx", *given)
    assert said.exit_code == 0 and "answer_f1" in said.stdout, said.output
    data = home / "data" / "dev-v2.0.json"
    said = run_cli("check", tuned, tmp_path / "programs", "--data", data, "--max-drop", 0, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["agreement"] == 1.0 and found["metric"] == "answer_f1" and found["flips"] == []
    record = read_record(home / "tuned" / "record.json")
    expected = {one.metric: one.value for one in record.models[0].scores}
    for side in ("first", "second"):
        assert {one["metric"]: one["value"] for one in found[side]} == pytest.approx(expected)


def test_questions_are_asked_on_the_command_line(small: Path, tuned: Path, tmp_path: Path):
    file = tmp_path / "asked.jsonl"
    rows = [{"question": "w45 w41", "context": f"w1 {word} w{place} w3"} for place, word in enumerate(("w50", "w2"))]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    answered = json.loads(run_cli("predict", tuned, "--file", file, "--json").stdout)["predictions"]
    keys = {"id", "text", "text_2", "answer", "start", "end", "probability", "answerable"}
    assert all(set(row) == keys for row in answered)
    shown = run_cli("predict", tuned, "--file", file)
    assert shown.exit_code == 0 and "Answerable" in shown.stdout
    paragraphs = [{"context": row["context"], "qas": [{"question": row["question"]}]} for row in rows]
    (tmp_path / "asked.JSON").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    published = run_cli("predict", tuned, "--file", tmp_path / "asked.JSON", "--json")
    assert json.loads(published.stdout)["predictions"] == answered
    (tmp_path / "lines.txt").write_text("w1 w2\n", encoding="utf-8")
    wanted = "allowed: --file with columns question and context (.jsonl, .parquet, .csv, .tsv), or SQuAD's .json"
    assert_refused(run_cli("predict", tuned, "w1 w2"), ["finds answers", "got single texts", wanted])
    assert_refused(run_cli("predict", tuned, "--file", tmp_path / "lines.txt"), ["got lines.txt", wanted])
    said = json.loads(run_cli("check", tuned, small, "--data", file, "--json").stdout)
    assert said["rows"] == 2 and "metric" not in said and 0 <= said["agreement"] <= 1
    other = Predictor(small)([{"text": row["question"], "text_pair": row["context"]} for row in rows])
    queue = TextQueue([row["question"] for row in rows], [row["context"] for row in rows], [1, 2], 0)
    page = compared(queue, answered, other)
    assert page["same"] == sum(one["start"] == two["start"] for one, two in zip(answered, other, strict=True))


def test_a_teacher_of_answers_teaches(home: Path, tuned: Path, small: Path):
    record = run(home, "finetune", small, "taught", "--teacher", tuned, "--epochs", 1)
    assert record.models[0].training is not None and record.models[0].training.teacher
    assert record.models[0].scores[0].value > 0.4


def test_a_family_without_such_a_head_is_refused_in_one_line(home: Path, tmp_path: Path):
    from tiny import tiny_model

    tiny_model("gte", "base").save_pretrained(tmp_path / "gte")
    load_tokenizer(home / "model").save_pretrained(tmp_path / "gte")
    given = ("--kind", "spans", "--task", "mine", "--data", home / "data", "-o", tmp_path / "out")
    said = run_cli("finetune", tmp_path / "gte", *given)
    assert_refused(said, ["Models of the family gte have no head for spans; allowed: bert, roberta"])
    assert not (tmp_path / "out").exists()
