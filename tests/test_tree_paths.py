"""What paths of trees know of tokens: the measure by hand, and the study of models with trees."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import convert_ffn
from sparsebert.studies.tree_paths import Aspect, TreeTokens, knowledge, shared_information, tree_paths
from tiny_run import assert_refused, run_cli, save_tiny

CONLL = "good X\nw1 Y\nbad X\n\nw2 Y\ngood X\n\n"


def test_what_is_shared_is_mutual_information_over_the_entropy_of_the_classes() -> None:
    classes = np.array([0, 0, 1, 1])
    assert shared_information(np.array([5, 5, 9, 9]), classes) == pytest.approx(1)
    assert shared_information(np.array([3, 4, 3, 4]), classes) == pytest.approx(0)
    # One node of three tokens and one of one: ln 2 + H(3/4) - H(1/2, 1/4, 1/4) over ln 2.
    three = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    joint = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    found = shared_information(np.array([1, 1, 1, 2]), classes)
    assert found == pytest.approx((math.log(2) + three - joint) / math.log(2))
    assert shared_information(np.array([1, 2, 3, 4]), np.zeros(4, dtype=int)) == 0


def test_levels_trees_and_tokens_that_nothing_is_said_of() -> None:
    # Two trees of two levels: the first parts the classes, the second parts nothing.
    paths = np.array([[[0, 1], [0, 1], [0, 2], [0, 2], [0, 2]], [[0, 1]] * 5])
    aspect = Aspect("tag", ("x", "y"), np.array([0, 0, 1, 1, -1]))
    (row,) = knowledge(TreeTokens("m", {3: paths}, (aspect,)), seed=0)
    assert (row.layer, row.level, row.tokens, row.known) == (3, 1, 4, pytest.approx(0.5)) and row.chance < 0.5
    found = tree_paths([TreeTokens("m", {3: paths}, (aspect,))])
    assert found.rows[0].values[:5] == (4, 1, 2, "tag", 4)
    assert found.answer.startswith("The leaves of m know 50.0% of the tag (chance ")
    heat = found.chart.panels[-1]
    assert heat.values == ((1.0, 0.0), (0.0, 1.0)) and heat.rows == ("x", "y")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    tokenizer = load_tokenizer(save_tiny(folder / "dense"))
    save_model(convert_ffn(load_model(folder / "dense"), depth=2, layers=[1, 2]), tokenizer, folder / "trees")
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        (folder / "data" / f"{split}.conll").write_text(CONLL, encoding="utf-8")
    return folder


def test_tags_of_a_task_are_those_of_the_first_tokens_of_words(home: Path) -> None:
    task = ("--task", "tags", "--data", home / "data", "--kind", "tokens")
    said = run_cli("study", "tree-paths", home / "trees", *task, "--json")
    assert said.exit_code == 0, said.output
    rows = json.loads(said.stdout)["rows"]
    assert [(row["layer"], row["level"], row["aspect"]) for row in rows if row["level"] == 1] == [
        (layer, 1, aspect) for layer in (2, 3) for aspect in ("place", "kind", "tag")
    ]
    # Five words, and of each of the two texts the first and the last token besides.
    assert {row["aspect"]: row["tokens"] for row in rows} == {"kind": 9, "place": 9, "tag": 5}
    assert all(0 <= row["known"] <= 1 for row in rows)


def test_texts_have_no_tags_and_dense_models_no_paths(home: Path) -> None:
    (home / "texts.txt").write_text("good w1\nbad\n", encoding="utf-8")
    said = run_cli("study", "tree-paths", home / "trees", "--texts", home / "texts.txt", "--json")
    assert {row["aspect"] for row in json.loads(said.stdout)["rows"]} == {"kind", "place"}
    said = run_cli("study", "tree-paths", home / "dense", "--texts", home / "texts.txt")
    assert_refused(said, ["The model 'dense' has no trees"])
