"""`compress --vocabulary`: entries that the texts do not need go first, and every smaller model is without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sparsebert.models.load import load_tokenizer
from sparsebert.records import read_record
from tiny_run import QUICK, SPECIAL, WORDS, assert_refused, run_cli, save_tiny, write_task

UNUSED = [f"never{number}" for number in range(40)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with forty words that no text has, and a task."""
    found = tmp_path_factory.mktemp("vocabulary")
    save_tiny(found / "model", num_hidden_layers=2, vocab_size=len(SPECIAL) + len(WORDS) + len(UNUSED))
    file = found / "model" / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    state["model"]["vocab"] |= {word: len(SPECIAL) + len(WORDS) + number for number, word in enumerate(UNUSED)}
    file.write_text(json.dumps(state), encoding="utf-8")
    write_task(found / "task", train=200)
    return found


def own(home: Path) -> tuple[object, ...]:
    return (home / "model", "--task", "own", "--data", home / "task", *QUICK)


def test_every_smaller_model_is_without_what_no_text_needs(home: Path, tmp_path: Path):
    recovery = ("--set", "finetune.max_steps=2", "--set", "score_train=true")
    command = ("compress", *own(home), "--vocabulary", "auto", "--sparsity", 0.4, *recovery, "-o", tmp_path / "out")
    said = run_cli(*command)
    assert said.exit_code == 0, said.output
    dense, vocabulary, small = read_record(tmp_path / "out" / "record.json").models
    assert (dense.name, vocabulary.name, small.target_value) == ("dense", "vocabulary", 0.4)
    entries = len(SPECIAL) + len(WORDS)
    assert dense.vocabulary is None and vocabulary.vocabulary == small.vocabulary
    assert vocabulary.vocabulary is not None and vocabulary.vocabulary.model_dump() == {
        "entries": entries,
        "before": entries + len(UNUSED),
        "texts_changed": 0,
        "texts": 40,
    }
    assert [score.value for score in vocabulary.scores] == pytest.approx([score.value for score in dense.scores])
    assert vocabulary.sparsity.encoder_linear == 0 < vocabulary.sparsity.whole_model < small.sparsity.whole_model
    assert "in other pieces. More" not in said.stdout
    assert "67 of 107 entries stay" in said.stderr and "0 of 40 validation texts" in said.stderr
    for name in ("vocabulary", small.folder):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / name)
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / name)
        assert len(tokenizer) == model.config.vocab_size == entries
    again = run_cli(*command)
    assert again.exit_code == 0 and read_record(tmp_path / "out" / "record.json").models[1].files == vocabulary.files
    card = (tmp_path / "out" / small.folder / "README.md").read_text(encoding="utf-8")
    assert "67 of 107 entries of the tokenizer stay" in card and "have the size they had" not in card
    alike = run_cli("study", "feature-similarity", tmp_path / "out", "--task", "own", "--data", home / "task")
    assert alike.exit_code == 0 and "vocabulary" in alike.stdout, alike.output
    answers = run_cli("predict", tmp_path / "out" / small.folder, "good w1 never3", "--json")
    assert answers.exit_code == 0, answers.output


def test_a_part_of_the_bytes_is_of_all_that_the_dense_model_had(home: Path, tmp_path: Path):
    chosen = ("--vocabulary", 30, "--size", 0.7, "--no-finetune")
    said = run_cli("compress", *own(home), *chosen, "-o", tmp_path / "out")
    assert said.exit_code == 0, said.output
    dense, vocabulary, small = read_record(tmp_path / "out" / "record.json").models
    left = vocabulary.vocabulary
    assert left is not None and left.entries == 30 and 4 < left.texts_changed <= 40
    assert f"{left.texts_changed / 40:.0%} of the validation texts are read in other pieces" in said.stdout
    # The file has names and places of tensors too, which are much of a tiny model's.
    assert small.size.bytes_on_disk is not None and dense.size.bytes_on_disk is not None
    assert 0.6 < small.size.bytes_on_disk / dense.size.bytes_on_disk < 0.8


def test_without_a_target_the_vocabulary_alone_gets_smaller(home: Path, tmp_path: Path):
    (tmp_path / "more.txt").write_text("never7 good\nnever9\n", encoding="utf-8")
    (tmp_path / "entries.txt").write_text("good\n\nbad\nnever1\n", encoding="utf-8")
    for number, (chosen, entries) in enumerate(
        (
            (("auto", "--vocabulary-text", tmp_path / "more.txt"), {*SPECIAL, *WORDS, "never7", "never9"}),
            ((tmp_path / "entries.txt",), {*SPECIAL, "good", "bad", "never1"}),
        )
    ):
        out = tmp_path / str(number)
        said = run_cli("compress", *own(home), "--vocabulary", *chosen, "-o", out)
        assert said.exit_code == 0, said.output
        record = read_record(out / "record.json")
        assert [model.name for model in record.models] == ["dense", "vocabulary"]
        assert set(load_tokenizer(out / "vocabulary").get_vocab()) == entries
        assert record.inputs is not None and set(record.inputs.files) == {str(chosen[-1])}


def test_max_drop_is_about_the_vocabulary_too(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the dense model's values and the one without entries, which lost too much before anything else was cut."""
    values = iter([0.9, 0.9, 0.5, 0.5, 0.5])
    monkeypatch.setattr("sparsebert.runs.context.RunContext.main_value", lambda self, predictions: next(values))
    command = ("compress", *own(home), "--vocabulary", "auto", "--max-drop", 1, "-o", tmp_path / "out")
    said = run_cli(*command)
    assert said.exit_code == 0, said.output
    assert [model.name for model in read_record(tmp_path / "out" / "record.json").models] == ["dense"]
    assert "vocabulary lost 40.0 points of accuracy, more than 1" in said.stdout


def test_the_smallest_may_be_the_one_with_fewer_entries_alone(home: Path, tmp_path: Path):
    command = ("compress", *own(home), "--vocabulary", "auto", "--max-drop", 0, "--no-finetune", "-o", tmp_path / "out")
    said = run_cli(*command)
    assert said.exit_code == 0, said.output
    assert "No model found" not in said.stdout and "is the smallest model found" in said.stdout


def test_a_tokenizer_that_cannot_be_cut_is_refused_before_anything_is_trained(home: Path, tmp_path: Path):
    save_tiny(tmp_path / "model", num_hidden_layers=1, vocab_size=len(SPECIAL) + len(WORDS), num_labels=3)
    tokenizer = load_tokenizer(tmp_path / "model")
    tokenizer.add_tokens(["beyond"])
    tokenizer.save_pretrained(tmp_path / "model")
    before = sorted(tmp_path.iterdir())
    given = (tmp_path / "model", *own(home)[1:], "--vocabulary", "auto", "-o", tmp_path / "out")
    assert_refused(run_cli("compress", *given), ["no embedding for, and that cannot go", "id 67"])
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_of_other_texts_is_another_run(home: Path, tmp_path: Path):
    file = tmp_path / "more.txt"
    command = ("compress", *own(home), "--vocabulary", "auto", "--vocabulary-text", file, "-o", tmp_path / "out")
    file.write_text("never1\n", encoding="utf-8")
    assert run_cli(*command).exit_code == 0
    file.write_text("never2\n", encoding="utf-8")
    assert_refused(run_cli(*command), [f"files ({file})"])


def test_what_is_no_vocabulary_is_refused_and_nothing_written(home: Path, tmp_path: Path):
    (tmp_path / "entries.txt").write_text("good\nnowhere\n", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    for chosen, words in (
        (("--vocabulary", 4), ["smaller than what it cannot do without; got 4"]),
        (("--vocabulary", tmp_path / "none.txt"), ["there is no such file; got", "none.txt"]),
        (("--vocabulary", tmp_path / "entries.txt"), ["The tokenizer lacks 1 entries of", "got 'nowhere'"]),
        (("--vocabulary", "auto", "--vocabulary-text", tmp_path / "none.txt"), ["there is no such file; got"]),
        (("--vocabulary", tmp_path / "entries.txt", "--vocabulary-text", home), ["leave most and texts out"]),
        ((), ["Nothing to do: no target", "--vocabulary"]),
    ):
        assert_refused(run_cli("compress", *own(home), *chosen, "-o", tmp_path / "out"), words)
        assert sorted(tmp_path.iterdir()) == before
    said = run_cli("compress", *own(home), "--vocabulary-text", home, "-o", tmp_path / "out")
    assert said.exit_code == 2 and "goes with --vocabulary" in said.stderr
