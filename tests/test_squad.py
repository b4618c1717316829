"""Files of questions about texts: every form gives the same rows, and what does not fit is told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from sparsebert.data.hold_out import held_rows
from sparsebert.data.load import load_task
from sparsebert.data.squad import read_squad
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns
from sparsebert.tasks.spans import SPANS
from tiny_run import assert_refused, run_cli, save_tiny

CONTEXT = "Ada met Bob in Paris. Bob left."
ASKED = [("Who?", [("Ada", 0), ("Ada met", 0)]), ("Where?", [("Paris", 15)]), ("When?", [])]
LABEL = {"question": 0, "answers": ["Ada", "Ada met"], "text": CONTEXT, "start": 0, "end": 3}


def placed(answers: list[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"text": text, "answer_start": start} for text, start in answers]


def listed(answers: list[tuple[str, int]]) -> dict[str, Any]:
    return {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}


def squad(asked: list[tuple[str, list[tuple[str, int]]]] = ASKED, context: str = CONTEXT) -> bytes:
    found = [{"question": one, "id": one, "answers": placed(answers)} for one, answers in asked]
    # Version 2.0 marks what cannot be answered, and has plausible answers there.
    found[-1] |= {"is_impossible": True, "answers": placed([("Bob", 8)])} if not asked[-1][1] else {}
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": found}]}]}).encode()


def rows(form: Any = listed, question: str = "question", text: str = "context", answers: str = "answers") -> list[Any]:
    return [{question: one, text: CONTEXT, answers: form(given)} for one, given in ASKED]


def jsonl(given: list[Any]) -> bytes:
    return "\n".join(map(json.dumps, given)).encode()


FORMS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "SQuAD": ("train-v2.0.json", squad(), {}),
    "rows in JSON": ("train.JSON", json.dumps(rows(placed)).encode("utf-16"), {}),
    "rows under data": ("train.json", json.dumps({"data": rows()}).encode(), {}),
    "lines": ("train.jsonl", jsonl(rows()), {}),
    "lines of objects": ("train.jsonl", jsonl(rows(placed)), {}),
    "named": ("train.jsonl", jsonl(rows(listed, "q", "t", "a")), {"text": ("q", "t"), "label": "a"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(name: str, tmp_path: Path):
    file, content, columns = FORMS[name]
    (tmp_path / file).write_bytes(content)
    (tmp_path / file.replace("train", "dev")).write_bytes(content)
    task = load_task("mine", str(tmp_path), Columns(kind="spans", **columns))
    assert task.train["text_a"][:] == ["Who?", "Where?", "When?"] and set(task.train["text_b"]) == {CONTEXT}
    assert task.train["label"][0] == LABEL and task.validation["label"][2]["answers"] == []
    assert [row["start"] for row in task.train["label"]] == [0, 15, -1]
    assert task.spec.metrics == SPANS.metrics and task.spec.labels == ()
    assert f"{file}: 1 of 3 questions have no answer in their text" in task.notes


def test_parquet_as_hugging_face_writes_it(tmp_path: Path):
    Dataset.from_list(rows()).to_parquet(str(tmp_path / "a.parquet"))
    assert read_squad(tmp_path / "a.parquet").table.column("answers").to_pylist()[0] == LABEL
    bare = read_squad(tmp_path / "a.parquet", labelled=False).table.column("answers").to_pylist()[0]
    assert (bare["answers"], bare["start"]) == ([], -1)


def test_an_answer_elsewhere_is_moved_and_a_few_that_are_nowhere_are_left_out(tmp_path: Path):
    many = [(f"Who {number}?", [("Bob", 8)]) for number in range(200)]
    (tmp_path / "a.json").write_bytes(squad([("Who?", [("Bob", 20)]), ("What?", [("Eve", 0)]), *many]))
    found = read_squad(tmp_path / "a.json")
    labels = found.table.column("answers").to_pylist()
    # Of two places of Bob, 8 and 22, the nearer one.
    assert len(labels) == 201 and (labels[0]["start"], labels[0]["end"]) == (22, 25)
    assert found.notes == (
        "a.json: 1 rows are left out, as their answers are not in their texts",
        "a.json: 1 answers are not where answer_start says: the nearest place is taken",
    )


WRONG: dict[str, tuple[str, bytes, str]] = {
    "answer not in its text": (
        "a.json",
        squad([("Who?", [("Eve", 3)])]),
        "question 1: the answer is not in its text (1 of 1",
    ),
    "no text": (
        "a.jsonl",
        jsonl([{"question": "Who?", "context": " ", "answers": listed([])}]),
        "row 1: the text is empty",
    ),
    "no question": (
        "a.jsonl",
        jsonl([{"question": None, "context": "x", "answers": listed([])}]),
        "the question must be",
    ),
    "no answers": (
        "a.jsonl",
        jsonl([{"question": "Who?", "context": "x", "answers": None}]),
        "another form; got nothing",
    ),
    "no place": (
        "a.jsonl",
        jsonl([{"question": "Who?", "context": "x", "answers": {"text": "x"}}]),
        "needs text and answer_start",
    ),
    "lists of other lengths": (
        "a.jsonl",
        jsonl([{"question": "Who?", "context": "x", "answers": {"text": ["x"], "answer_start": []}}]),
        "the answers have another form",
    ),
    "other JSON": ("a.json", b'{"data": 3}', "neither SQuAD's form nor a list of rows"),
    "no qas": ("a.json", b'{"data": [{"paragraphs": [{"context": "x"}]}]}', "neither SQuAD's form"),
    "no JSON": ("a.json", b"{", "a.json is no JSON"),
    "nothing": ("a.json", b'{"data": []}', "has no rows"),
    "a column that is missing": ("a.jsonl", jsonl([{"question": "Who?", "text": "x"}]), "has no column 'answers'"),
    "an empty file": ("a.jsonl", b"", "has no rows"),
    "CSV": ("a.csv", b"question,context\nx,y\n", "cannot be read from this file"),
    "all without an answer": ("a.json", squad([("Who?", []), ("When?", [])]), "no question has an answer in its text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_told_in_one_line(name: str, tmp_path: Path):
    file, content, said = WRONG[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_task("mine", str(tmp_path / file), Columns(kind="spans"))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_questions_about_one_text_are_held_out_together():
    texts = [f"text {number // 4}" for number in range(40)]
    labels = [LABEL | {"question": number, "answers": ["Ada"] if number % 2 else []} for number in range(40)]
    held = held_rows(Dataset.from_dict({"text_a": ["?"] * 40, "text_b": texts, "label": labels}), 0, SPANS, 0.2)
    assert 4 <= held.sum() <= 12 and {texts[row] for row in range(40) if held[row]}.isdisjoint(
        {texts[row] for row in range(40) if not held[row]}
    )


def test_a_command_refuses_what_has_no_answers_and_writes_nothing(tmp_path: Path):
    model = save_tiny(tmp_path / "model", "base")
    (tmp_path / "data.csv").write_text("text,label\nx,y\n", encoding="utf-8")
    given = ("--kind", "spans", "--task", "mine", "--data", tmp_path / "data.csv", "-o", tmp_path / "out")
    assert_refused(run_cli("finetune", model, *given), ["cannot be read from this file", ".json, .jsonl, .parquet"])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.csv").write_text("text,label\nx,y\n", encoding="utf-8")
    inside = (*given[:4], "--data", tmp_path / "folder", "-o", tmp_path / "out")
    assert_refused(run_cli("finetune", model, *inside), ["holds no train.jsonl or train.parquet or train.json; got"])
    answerer = save_tiny(tmp_path / "spans", "spans")
    # The data do for no kind at all: what is told is what is wrong whatever they are.
    other = ("--task", "mine", "--data", tmp_path / "data.csv", "-o", tmp_path / "out")
    words = [
        "finds answers in texts, and its head would be lost; got BertForQuestionAnswering for kind classification",
        "give --kind spans, which takes .json, .jsonl, .parquet",
    ]
    assert_refused(run_cli("finetune", answerer, *other), words)
    assert_refused(run_cli("finetune", answerer, "--task", "nosuch", "-o", tmp_path / "out"), ["Unknown task 'nosuch'"])
    assert not (tmp_path / "out").exists()
