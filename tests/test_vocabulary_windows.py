"""Texts that are read in parts or windows, by a tokenizer that makes more pieces of them after entries went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizerFast

from sparsebert.data.smaller_vocabulary import cut_tokenizer
from sparsebert.models.heads import HeadName
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.records import read_record
from sparsebert.runs.compress import Compress, CompressContext
from sparsebert.runs.vocabulary import ids_that_stay
from tiny import tiny_model
from tiny_run import QUICK, SPECIAL, WORDS, run_cli

LIMIT = 16
PIECES = ("w", "q", *(f"##{digit}" for digit in range(10)))
QUESTIONS = ("w45 w41", "w45 w42 w43")
CONTEXTS = [" ".join(f"w{(7 * text + word) % 40}" for word in range(30)) for text in range(6)]
"""Of which each is asked both QUESTIONS; none of their words are left but in pieces."""
LEFT = ("good", "w45", "w41")


def save_model(folder: Path, head: HeadName, labels: int = 2) -> Path:
    entries = (*SPECIAL, *WORDS, *PIECES)
    tiny_model("bert", head, vocab_size=len(entries), num_labels=labels).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(entries)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("windows")
    save_model(folder / "spans", "spans")
    save_model(folder / "tokens", "tokens", labels=3)
    rows = [
        {"question": asked, "context": text, "answers": [{"text": "w9", "answer_start": text.find("w9")}] * found}
        for text in CONTEXTS
        for asked, found in zip(QUESTIONS, ("w9" in text, False), strict=True)
    ]
    tagged = "\n\n".join("\n".join(f"{word}\tO" for word in text.split()) for text in CONTEXTS).replace(
        "w9\tO", "w9\tB-X"
    )
    (folder / "spans.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "tokens.conll").write_text(tagged, encoding="utf-8")
    (folder / "entries.txt").write_text("\n".join(LEFT), encoding="utf-8")
    return folder


def context_of(home: Path, kind: str) -> CompressContext:
    data = str(home / f"{kind}.{'jsonl' if kind == 'spans' else 'conll'}")
    own: dict[str, Any] = {"columns": {"kind": kind}, "vocabulary": {"entries": str(home / "entries.txt")}}
    plain: dict[str, Any] = {"model": str(home / kind), "task": "mine", "data": data, "threshold_rows": 0}
    return Compress().set_up(CompressRecipe(**own, **plain, max_length=LIMIT), home / "run", ())


@pytest.mark.parametrize("kind", ["spans", "tokens"])
def test_what_is_read_fits_the_smaller_vocabulary_too(home: Path, kind: str):
    context = context_of(home, kind)
    wanted = context.recipe.vocabulary
    assert wanted is not None
    ids = ids_that_stay(context.whole, context.tokenizer, wanted)
    small = cut_tokenizer(context.tokenizer, ids)
    for rows in (context.task.train, context.task.validation):
        second = rows["text_b"][:] if "text_b" in rows.column_names else None
        for tokenizer in (context.tokenizer, small):
            read = tokenizer(rows["text_a"][:], second)
            assert max(len(ids) for ids in read["input_ids"]) <= LIMIT


def test_a_family_of_windows_is_compared_window_by_window_and_each_text_counts_once(home: Path, tmp_path: Path):
    given = ("--kind", "spans", "--task", "mine", "--data", home / "spans.jsonl", "--set", f"max_length={LIMIT}")
    settings = ("measure.timed=false", "threshold_rows=0", "finetune.max_steps=1", "score_train=true")
    more = tuple(part for one in settings for part in ("--set", one))
    smaller = ("--vocabulary", home / "entries.txt", "--sparsity", 0.3)
    said = run_cli("compress", home / "spans", *given, *QUICK, *more, *smaller, "-o", tmp_path / "run")
    assert said.exit_code == 0, said.output
    dense, vocabulary, small = read_record(tmp_path / "run" / "record.json").models
    left = vocabulary.vocabulary
    # One text is held out, and two questions about it, of which one is still read as it was.
    assert left is not None and (left.texts, left.texts_changed) == (3, 2)
    for model in (vocabulary, small):
        assert {one.metric: one.examples for one in model.scores} == {one.metric: one.examples for one in dense.scores}
        assert model.scores[0].change_low is not None
    assert "Read in other pieces: 2 of 3 validation texts" in said.stderr
