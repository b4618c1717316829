"""Files of words with tags: every format gives the same rows, and what does not fit is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sparsebert.data.conll import read_conll
from sparsebert.data.load import load_task
from sparsebert.data.tagged import read_tagged
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns
from tiny_run import assert_refused, run_cli, save_tiny

WORDS = [["Ada", "Lovelace", "met", "Bob"], ["It", "rained"]]
TAGS = [["B-PER", "I-PER", "O", "B-PER"], ["O", "O"]]
NAMES = ("O", "B-PER", "I-PER")
ROWS = [
    ("Ada Lovelace met Bob", [[0, 3, 1], [4, 12, 2], [13, 16, 0], [17, 20, 1]]),
    ("It rained", [[0, 2, 0], [3, 9, 0]]),
]
CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\nmet VB O\nBob NNP B-PER\n\n\nIt PR O\nrained VB O\n"
CONLLU = "\n".join(
    ("# text = x", "1-2\tAdas" + 8 * "\t_", "1\tAda\tada\tPROPN\tNNP" + 5 * "\t_", "2\tran\trun\tVERB\tVBD" + 5 * "\t_")
)


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def lists(words: str = "tokens", tags: str = "ner_tags") -> bytes:
    return jsonl([{words: one, tags: other} for one, other in zip(WORDS, TAGS, strict=True)])


def spans(*entities: dict[str, Any], text: str = "Ada Lovelace met Bob") -> bytes:
    return jsonl([{"text": text, "spans": list(entities)}, {"text": "It rained", "spans": []}])


PERSONS = ({"start": 17, "end": 20, "label": "PER"}, {"start": 0, "end": 13, "label": "PER"})
FORMATS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "conll": ("train.conll", CONLL.encode(), {}),
    "tabs": ("train.BIO", CONLL.replace(" ", "\t").encode("utf-16"), {}),
    "lists": ("train.jsonl", lists(), {}),
    "named": ("train.jsonl", lists("w", "t"), {"text": "w", "label": "t"}),
    "places": ("train.jsonl", spans(*PERSONS), {}),
    "first of IOB1": ("train.iob", CONLL.replace("B-", "I-").encode(), {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path):
    file, content, columns = FORMATS[name]
    (tmp_path / file).write_bytes(content)
    (tmp_path / file.replace("train", "validation")).write_bytes(content)
    task = load_task("mine", str(tmp_path), Columns(kind="tokens", **columns))
    assert task.spec.labels == NAMES and task.spec.metrics == ("entity_f1", "tag_accuracy")
    assert (
        [(row["text_a"], row["label"]) for row in task.train]
        == ROWS
        == [(row["text_a"], row["label"]) for row in task.validation]
    )
    mended = "2 tags I- have no B- before them: an entity is taken to begin there"
    assert (mended in task.notes) == (name == "first of IOB1")


def test_parquet_may_declare_the_names_of_tags(tmp_path: Path):
    names = ["O", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    ids = [[names.index(tag) for tag in tags] for tags in TAGS]
    Dataset.from_dict({"tokens": WORDS, "ner_tags": ids}, features=features).to_parquet(str(tmp_path / "a.parquet"))
    found = read_tagged(tmp_path / "a.parquet")
    assert found.declared == tuple(names)
    assert [word["tag"] for word in found.table.column("tags")[0].as_py()] == TAGS[0]


def test_universal_dependencies_have_named_columns(tmp_path: Path):
    (tmp_path / "a.conllu").write_text(CONLLU, encoding="utf-8")
    assert read_conll(tmp_path / "a.conllu") == ([["Ada", "ran"]], [["PROPN", "VERB"]])
    assert read_conll(tmp_path / "a.conllu", "lemma", "XPOS") == ([["ada", "run"]], [["NNP", "VBD"]])
    with pytest.raises(UserError, match=r"Unknown column of CoNLL-U.*'UPSO'.*Did you mean 'UPOS'"):
        read_conll(tmp_path / "a.conllu", label="UPSO")


def test_spaces_that_do_not_break_stand_within_words(tmp_path: Path):
    (tmp_path / "a.conll").write_text("New\u00a0York  B-LOC\nis O\n", encoding="utf-8")
    assert read_conll(tmp_path / "a.conll") == ([["New\u00a0York", "is"]], [["B-LOC", "O"]])


def test_rows_are_held_out_by_their_texts(tmp_path: Path):
    rows = [{"tokens": [f"w{number}", "x"], "tags": ["A", "B"]} for number in range(20)]
    (tmp_path / "a.jsonl").write_bytes(jsonl([*rows, *rows]))
    task = load_task("mine", str(tmp_path / "a.jsonl"), Columns(kind="tokens"))
    held = set(task.validation["text_a"])
    assert len(task.validation) == 4 and len(held) == 2 and not held & set(task.train["text_a"])


def test_tokens_without_letters_are_left_out_and_numbers_are_said_to_be_no_entities(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"tokens": ["a", " ", "b"], "tags": [0, 1, 2]}]))
    found = read_tagged(tmp_path / "a.jsonl")
    assert found.table.column("text").to_pylist() == ["a b"]
    assert found.notes == (
        "1 tokens without a letter are left out",
        "the tags are numbers without names, so that entities cannot be told: every word is one",
    )


WRONG: dict[str, tuple[str, bytes, dict[str, str], str]] = {
    "csv": ("a.csv", b"text,label\na,b\n", {}, "Tags of words cannot be read from this file; got a.csv"),
    "nothing": ("a.conll", b"\n\n", {}, "The data file has no rows"),
    "no tag": ("a.conll", b"Ada\nmet O\n", {}, "a.conll, line 1: needs a word and its tag; got Ada"),
    "uneven": ("a.conll", b"EU NNP B-ORG\nrejects VBZ\n", {}, "a.conll, line 2: 2 columns, and 3 in the line before"),
    "mixed": ("a.conll", b"EU B-ORG\nrejects VERB\n", {}, "tags of entities and others cannot go together; got 'VERB'"),
    "no word": ("a.jsonl", jsonl([{"tokens": ["a", None], "tags": ["O", "O"]}]), {}, "must be a string; got nothing"),
    "short": ("a.conllu", b"1\tAda\n", {}, "a.conllu, line 1: needs 10 columns"),
    "named columns": ("a.conll", b"a O\n", {"label": "x"}, "The columns of a.conll have no names; got x"),
    "lengths": ("a.jsonl", jsonl([{"tokens": ["a", "b"], "tags": ["O"]}]), {}, "row 1: as many tags as words"),
    "empty": ("a.jsonl", jsonl([{"tokens": [], "tags": []}]), {}, "row 1: there is no word"),
    "no list": ("a.jsonl", jsonl([{"tokens": ["a"], "tags": "O"}]), {}, "have to be lists, or the text one string"),
    "no tag there": ("a.jsonl", jsonl([{"tokens": ["a"], "tags": [None]}]), {}, "row 1: the label is missing"),
    "two columns": (
        *("a.jsonl", jsonl([{"tokens": ["a"], "ner_tags": ["O"], "pos_tags": ["X"]}]), {}),
        "several columns that may hold tags; got ner_tags, pos_tags; name one: --label-column",
    ),
    "no column": ("a.jsonl", jsonl([{"tokens": ["a"]}]), {}, "a.jsonl has no column 'tags'"),
    "beyond": ("a.jsonl", spans({"start": 17, "end": 21, "label": "PER"}), {}, "beyond its text; got 17 to 21"),
    "overlap": ("a.jsonl", spans(*PERSONS, {"start": 4, "end": 6, "label": "PER"}), {}, "entities overlap"),
    "spaces": ("a.jsonl", spans({"start": 3, "end": 4, "label": "PER"}), {}, "an entity of spaces alone; got 3 to 4"),
    "no end": ("a.jsonl", spans({"start": 3, "label": "PER"}), {}, "an entity needs start, end and label"),
    "no objects": ("a.jsonl", jsonl([{"text": "a", "spans": ["PER"]}]), {}, "are a list of objects; got list"),
    "damaged": ("a.parquet", b"PAR1", {}, "The data file cannot be read as parquet"),
    "half a line": ("a.jsonl", b'{"tokens": ', {}, "a.jsonl, line 1: not JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_and_nothing_is_written(name: str, tmp_path: Path):
    file, content, columns, expected = WRONG[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_task("mine", str(tmp_path / file), Columns(kind="tokens", **columns))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_commands_refuse_tags_that_training_has_not_seen(tmp_path: Path):
    save_tiny(tmp_path / "model", "base")
    (tmp_path / "train.conll").write_text(CONLL, encoding="utf-8")
    (tmp_path / "validation.conll").write_text("Oslo B-LOC\n", encoding="utf-8")
    said = run_cli(
        "finetune", tmp_path / "model", "--kind", "tokens", "--task", "x", "--data", tmp_path, "-o", tmp_path / "run"
    )
    assert_refused(said, ["validation.conll", "row 1: not in the tag set; got 'B-LOC'; allowed: O, B-PER, I-PER"])
    assert not (tmp_path / "run").exists()


def test_the_packaged_sentences_have_other_names_in_each_part():
    task = load_task("entities", None)
    assert (len(task.train), len(task.validation)) == (640, 200)
    names: list[set[str]] = []
    for rows in (task.train, task.validation):
        assert {tag for row in rows for *_, tag in row["label"]} == set(range(len(task.spec.labels)))
        first = {task.spec.labels.index(f"B-{kind}") for kind in ("LOC", "ORG", "PER")}
        names.append({row["text_a"][start:end] for row in rows for start, end, tag in row["label"] if tag in first})
    # First words of places of several words.
    assert names[0] & names[1] == {"Lake", "San"}


def test_tags_that_nearly_are_those_of_entities_are_said_to_be_none(tmp_path: Path):
    (tmp_path / "a.conll").write_text("Ann b-per\nLee i-per\ncame O\n", encoding="utf-8")
    [note] = read_tagged(tmp_path / "a.conll").notes
    assert "'b-per'" in note and "B-PER" in note
    (tmp_path / "b.conll").write_text("Ann NOUN\ncame VERB\n", encoding="utf-8")
    assert read_tagged(tmp_path / "b.conll").notes == ()


@pytest.mark.parametrize("name", ["train.conll", "a.iob2"])
def test_who_forgets_the_kind_is_told(name: str, tmp_path: Path):
    (tmp_path / name).write_text("Ann B-PER\ncame O\n", encoding="utf-8")
    for data in (tmp_path / name, *([tmp_path] if name.startswith("train") else [])):
        with pytest.raises(UserError, match=f"got {name}; give --kind tokens"):
            load_task("mine", str(data), Columns())
