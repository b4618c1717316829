"""The embedded reviews: enough, balanced, no repeats across splits, and not solved by counting words."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import sparsebert.data
from sparsebert.data.load import load_task
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Columns

FOLDER = Path(sparsebert.data.__file__).parent / "reviews"


@pytest.fixture(scope="module")
def task():
    return load_task("reviews", None)


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_size_and_balance(task):
    assert (len(task.train), len(task.validation)) == (1944, 492)
    for rows in (task.train, task.validation):
        assert sum(rows["label"]) * 2 == len(rows)
    assert task.validation_name == "validation"
    assert not task.subset


@pytest.mark.parametrize(("split", "each"), [("train", 162), ("validation", 41)])
def test_every_domain_and_label_has_the_same_share(split, each):
    with (FOLDER / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        counts = Counter((row["domain"], row["label"]) for row in csv.DictReader(file))
    assert len(counts) == 12
    assert set(counts.values()) == {each}


def test_lengths(task):
    words = [len(text.split()) for rows in (task.train, task.validation) for text in rows["text_a"]]
    assert min(words) >= 5
    assert max(words) <= 45


def test_no_repeats_and_no_near_repeats(task):
    texts = [*task.train["text_a"], *task.validation["text_a"]]
    assert len({text.lower() for text in texts}) == len(texts)
    grams = [trigrams(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    for index, own in enumerate(grams):
        for gram in own:
            holders.setdefault(gram, []).append(index)
    shared = Counter((a, b) for rows in holders.values() for a in rows for b in rows if a < b)
    worst = max(count / len(grams[a] | grams[b]) for (a, b), count in shared.items())
    assert worst < 0.25


def test_no_close_words_across_splits(task):
    vectors = TfidfVectorizer()
    train = vectors.fit_transform(task.train["text_a"][:])
    assert (vectors.transform(task.validation["text_a"][:]) @ train.T).max() < 0.6


def test_a_bag_of_words_does_not_solve_it(task):
    vectors = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression(max_iter=1000).fit(
        vectors.fit_transform(task.train["text_a"][:]), task.train["label"][:]
    )
    assert model.score(vectors.transform(task.validation["text_a"][:]), task.validation["label"][:]) < 0.70


def test_the_licence_is_there():
    assert "CC0 1.0" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_three_reviews_of_one_domain_are_one_example_and_none_is_used_twice():
    task = load_task("review-domains", None)
    assert task.spec.labels == ("books", "films", "food", "gadgets", "services", "travel")
    for split, rows in (("train", task.train), ("validation", task.validation)):
        with (FOLDER / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            single = list(csv.DictReader(file))
        own = {domain: [row["text"] for row in single if row["domain"] == domain] for domain in task.spec.labels}
        made = {domain: [] for domain in task.spec.labels}
        for text, label in zip(rows["text_a"], rows["label"], strict=True):
            made[task.spec.labels[label]].append(text)
        for domain, texts in own.items():
            groups = [texts[start : start + 3] for start in range(0, len(texts) - 2, 3)]
            assert made[domain] == [" ".join(group) for group in groups]
    assert (len(task.train), len(task.validation)) == (648, 162)
    assert not task.subset and task.validation_name == "validation"


@pytest.mark.parametrize("name", ["reviews", "review-domains"])
def test_tasks_of_reviews_take_neither_data_nor_columns(tmp_path, name):
    with pytest.raises(UserError, match=rf"'{name}' ships in the package and takes no data.*--task custom"):
        load_task(name, str(tmp_path))
    with pytest.raises(UserError, match=rf"columns of task '{name}' are fixed"):
        load_task(name, None, Columns(text=("body",)))
