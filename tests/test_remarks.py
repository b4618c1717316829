"""Scores beside chance: a model that always says the same is no gain, and a drop too small to see is said to be one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from example_record import example_record
from sparsebert.recipe.load import load_recipe
from sparsebert.records import ModelResult, Timing
from sparsebert.runs.context import RunContext, set_up
from sparsebert.runs.max_drop import answers, fell_too_far, least_drop, too_few_examples
from sparsebert.runs.remarks import doubt, remarks
from tiny_run import save_tiny

NO, YES = 45, 25
LABELS = np.array([0] * NO + [1] * YES)


def write_rows(file: Path, labels: list[str]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label", "score"])
        writer.writerows((f"w{number % 60} " + "w1 " * 150, name, number % 7) for number, name in enumerate(labels))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remarks")
    save_tiny(folder / "tuned")
    write_rows(folder / "train.csv", ["no"] * 60 + ["yes"] * 40)
    write_rows(folder / "validation.csv", ["no"] * NO + ["yes"] * YES)
    return folder


def bench_of(home: Path, **values: object) -> RunContext:
    return set_up(load_recipe(None, [], model=str(home / "tuned"), task="mine", data=str(home), **values), home / "out")


@pytest.fixture(scope="module")
def bench(home: Path) -> RunContext:
    return bench_of(home)


def says(classes: np.ndarray) -> dict[str, np.ndarray]:
    return {"validation": np.eye(2)[classes] * 2.0 - 1}


def flipped(*rows: int) -> np.ndarray:
    """The labels, but for these rows."""
    classes = LABELS.copy()
    classes[list(rows)] = 1 - classes[list(rows)]
    return classes


def test_scores_stand_beside_the_majority_and_their_interval(bench: RunContext):
    accuracy, matthews = bench.score(says(flipped(*range(14))))
    # 56 of 70 right, 1.96 * sqrt(0.8 * 0.2 / 70) = 0.094 either way; always "no" is right on 45 of 70.
    assert accuracy.value == 0.8 and accuracy.baseline == pytest.approx(45 / 70)
    assert (accuracy.low, accuracy.high) == pytest.approx((0.706, 0.894), abs=0.02)
    assert accuracy.above_baseline and accuracy.change_low is None
    assert matthews.baseline == 0 and matthews.low is not None and 0 < matthews.low < matthews.value


def test_a_change_has_the_interval_of_its_pairs(bench: RunContext):
    dense, small = says(flipped(*range(14))), says(flipped(*range(14, 70, 4)))
    accuracy = bench.score(small, dense)[0]
    assert accuracy.value == bench.score(dense)[0].value
    # As good on the whole, but 28 of 70 are decided otherwise: 1.96 * sqrt(28) / 70 = 0.148.
    assert (accuracy.change_low, accuracy.change_high) == pytest.approx((-0.148, 0.148), abs=0.02)
    alike = bench.score(dense, dense)[0]
    assert (alike.change_low, alike.change_high) == (0, 0)


def test_regression_stands_beside_no_relation_at_all(home: Path):
    bench = bench_of(home, columns={"kind": "regression", "label": "score"})
    labels = bench.labels("validation")
    good, noise = labels[:, None] + 0.1, np.random.default_rng(0).normal(size=(70, 1))
    assert [(one.metric, one.baseline, one.above_baseline) for one in bench.score({"validation": noise})] == [
        ("pearson", 0, False),
        ("spearman", 0, False),
    ]
    assert bench.decide({"validation": good}) is None and least_drop(bench) is None
    said = doubt(bench, bench.score({"validation": noise}), None)
    assert said is not None and said.startswith("dense is no better than always giving the mean (pearson")


def test_decisions_hold_what_was_mixed_up_and_which_texts_flipped(bench: RunContext):
    rows = [0, 1, 46]
    found = bench.decide(says(flipped(*rows)), says(LABELS))
    assert found is not None and found.classes == ("no", "yes") and found.only_class is None
    assert found.confusion == ((43, 2), (1, 24))
    assert found.agreement == pytest.approx(67 / 70)
    assert [(flip.label, flip.dense, flip.own) for flip in found.flips] == [("no", "no", "yes")] * 2 + [
        ("yes", "yes", "no")
    ]
    assert found.flips[2].text.startswith("w46 w1 w1") and len(found.flips[2].text) == 300
    every = bench.decide(says(1 - LABELS), says(LABELS))
    assert every is not None and len(every.flips) == 20 and every.agreement == 0
    alone = bench.decide(says(LABELS))
    assert alone is not None and alone.agreement is None and alone.flips == ()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (np.zeros(70, dtype=int), 'dense predicts one class, "no", for every validation example (accuracy'),
        # 69 of 70 are given one class, one rightly the other: 65.7 %, where always "no" gives 64.3 %.
        (np.arange(70) // 69, 'dense is no better than always saying "no" (accuracy 65.7%, 95% interval'),
        (1 - LABELS, 'dense is no better than always saying "no" (accuracy 0.0%'),
    ],
)
def test_a_dense_model_at_chance_is_doubted_and_label_order_named(bench: RunContext, classes: np.ndarray, words: str):
    said = doubt(bench, bench.score(says(classes)), bench.decide(says(classes)))
    assert said is not None and said.startswith(words)
    assert "always the same gives 64.3%" in said and "label order" in said


def test_a_good_model_is_not_doubted(bench: RunContext):
    for classes in (LABELS, flipped(0, 50)):
        assert doubt(bench, bench.score(says(classes)), bench.decide(says(classes))) is None


def test_a_drop_that_the_examples_cannot_tell_is_warned_of(home: Path):
    # Six decisions that all went wrong are the fewest that chance does not explain: 6 of 70.
    strict, wide = bench_of(home, max_drop=2), bench_of(home, max_drop=9)
    said = too_few_examples(strict, least_drop(strict))
    assert said is not None and said.startswith("On 70 examples a drop of less than about 8.6 points cannot be told")
    assert too_few_examples(wide, least_drop(wide)) is None


def test_a_drop_of_just_what_was_asked_for_is_within_it(home: Path):
    bench = bench_of(home, max_drop=30)
    dense, *small = (bench.main_value(says(flipped(*range(wrong)))) for wrong in (0, 21, 22))
    assert (dense, small[0]) == (1.0, 0.7) and 100 * (1.0 - 0.7) > 30
    assert [fell_too_far(bench, dense, value) for value in small] == [False, True]
    assert fell_too_far(bench, dense, None)


def test_models_at_chance_are_named_in_one_line(bench: RunContext):
    dense, good = model(bench, "dense", 90, 9, 0), model(bench, "2x", 60, 4, 0)
    # 48 of 70 are right: 68.6 %, whose interval holds the 64.3 % of always "no".
    poor = [model(bench, name, 60, 4, wrong) for name, wrong in (("4x", 22), ("8x", 45))]
    assert remarks(bench, [dense, good]) == remarks(bench, [good]) == []
    (alone,) = remarks(bench, [poor[0]])
    assert alone.startswith('4x is no better than always saying "no" (accuracy 68.6%, 95% interval')
    assert alone.endswith("; always the same gives 64.3%)")
    (together,) = remarks(bench, [dense, good, *poor])
    assert together.startswith('No better than always saying "no" (accuracy 64.3%): 4x 68.6% (57.')
    assert "%), 8x 35.7% (" in together and "2x" not in together


def model(bench: RunContext, name: str, megabytes: float, ms: float, wrong: int) -> ModelResult:
    """As a run measures it; `dense` is right on all rows."""
    full = example_record().models[0 if name == "dense" else 1]
    setting = bench.setting
    timing = Timing.model_validate(
        full.timings[0].model_dump() | {"scope": "model", "batch": setting.batch, "length": setting.length}
    )
    return full.model_copy(
        update={
            "name": name,
            "size": full.size.model_copy(update={"bytes_on_disk": int(megabytes * 1e6)}),
            "scores": bench.score(says(flipped(*range(wrong))), says(LABELS)),
            "decisions": bench.decide(says(flipped(*range(wrong))), says(LABELS)),
            "timings": (timing.model_copy(update={"median_ms": ms, "q25_ms": ms - 0.2, "q75_ms": ms + 0.3}),),
        }
    )


def test_max_drop_names_the_smallest_and_the_fastest(home: Path):
    bench = bench_of(home, max_drop=9)
    models = [model(bench, "dense", 90, 9, 0), model(bench, "a", 60, 4, 1), model(bench, "b", 50, 5, 3)]
    smallest, fastest = answers(bench, models)
    assert smallest.startswith(
        "b is the smallest model found that lost at most 9 points of accuracy (50.0 MB; −4.3 points, 95% interval −"
    )
    assert fastest == "a is the fastest of those (4.00 ms the whole model, batch 1, 64 tokens)"
    assert list(answers(bench, models[:1])) == [
        "No model found lost at most 9 points of accuracy: only the dense one is left"
    ]
    assert list(answers(bench_of(home), models)) == []


def test_a_model_is_not_called_fastest_by_noise(home: Path):
    bench = bench_of(home, max_drop=9)
    times = {"a": 4.0, "b": 4.4, "c": 5.1}
    small = [model(bench, name, 60, ms, 0) for name, ms in times.items()]
    said = list(answers(bench, [model(bench, "dense", 90, 9, 0), *small]))[1]
    assert said.endswith("64 tokens), but not shown to be faster than b: quartiles overlap")


def test_a_collapsed_model_is_no_answer_to_max_drop(home: Path):
    bench = bench_of(home, max_drop=40)
    empty = says(np.zeros(70, dtype=int))
    update = {"scores": bench.score(empty, says(LABELS)), "decisions": bench.decide(empty, says(LABELS))}
    small = model(bench, "a", 60, 4, 1).model_copy(update=update)
    _, said, *_ = answers(bench, [model(bench, "dense", 90, 9, 0), small])
    assert said.startswith('a predicts one class, "no", for every validation example (accuracy 64.3%')
    assert said.endswith("so it is no answer to how small the model may be")


def test_max_drop_says_where_chance_had_a_part(home: Path):
    bench = bench_of(home, max_drop=5)
    *_, note = answers(bench, [model(bench, "dense", 90, 9, 0), model(bench, "a", 60, 4, 1)])
    assert note.startswith("On 70 examples a drop of less than about 8.6 points cannot be told from chance")
