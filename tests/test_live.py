"""What asks models for the explorer, without models: what is one, texts and limits, the line of work, times, a race."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from example_record import full_record
from exploring import runs_of
from sparsebert.energy import Counter, Counters
from sparsebert.errors import UserError
from sparsebert.explorer.library import Library
from sparsebert.explorer.models import ShownModel, shown_models
from sparsebert.live.agreement import MOST_LISTED, compared
from sparsebert.live.attribution import gradient_times_input, received
from sparsebert.live.bench import MOST_WAITING, UNASKED_S, Bench, Errand
from sparsebert.live.catalogue import AskedModel, catalogue, divided, medians
from sparsebert.live.lane import TURN_S, Progress, Runner
from sparsebert.live.pool import cores, sides_of
from sparsebert.live.race import Racer, run
from sparsebert.live.routes import examples
from sparsebert.live.texts import (
    FILE_LETTERS,
    FILE_TEXTS,
    LETTERS,
    TextQueue,
    as_pairs,
    built_in,
    of_file,
    repeated,
    typed,
)
from sparsebert.live.turns import FEWEST, MOST, WARM_CALLS, in_turns, ratio, spread
from sparsebert.serve.door import from_elsewhere
from sparsebert.serve.limits import RefusedError
from sparsebert.timing import median_interval


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def shown(home: Path) -> list[ShownModel]:
    return shown_models(Library([home]).look().runs)


def test_what_is_given_is_a_run_a_model_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs_of(tmp_path, one=full_record())
    model_folder(tmp_path / "own")
    assert divided(["one", "own", "owner/name"]) == ([Path("one")], ("own", "owner/name"))
    for name in ("gone", "one/5x", "/owner/name", "a/b/c"):
        with pytest.raises(UserError, match="no such run or model"):
            divided([name])


def test_models_of_runs_are_there_where_their_folders_are(tmp_path: Path) -> None:
    home = runs_of(tmp_path, a=full_record(0), b=full_record(1))
    own = str(model_folder(tmp_path / "mine"))
    assert list(catalogue([], shown(home))) == []
    for name in ("a/dense", "a/4x", "b/4x"):
        model_folder(home / name)
    found = catalogue([own], shown(home))
    assert list(found) == [f"model: {own}", "a/dense", "a/4x", "b/4x"]
    assert [one.dense for one in found.values()] == [False, True, False, False]
    assert found["a/4x"].place == str(home / "a" / "4x") and found["a/4x"].task == "sst2"
    median = next(model.key for model in shown(home) if len(model.family.records) > 1 and model.name == "4x")
    assert medians(found, shown(home))[median] == "a/4x"
    assert not any("8x" in key for key in medians(found, shown(home)))


def test_examples_are_the_texts_that_were_decided_otherwise(tmp_path: Path) -> None:
    home = runs_of(tmp_path, a=full_record())
    model_folder(home / "a" / "4x")
    model = catalogue([], shown(home))["a/4x"]
    first = examples(model)[0]
    assert first["text"] == "a film that is not without charm" and (first["dense"], first["own"]) == (
        "positive",
        "negative",
    )
    flip = model.flips[0].model_copy(update={"text": "one / two"})
    for task, sides in (("mrpc", ("one", "two")), ("sst2", ("one / two", "")), ("no task", ("one / two", ""))):
        (told,) = examples(AskedModel("k", "n", "p", task, flips=(flip,)))
        assert (told["text"], told["pair"]) == sides


def test_typed_texts_have_something_in_them_and_an_end() -> None:
    assert typed(" a ") == " a "
    for value, words in (("", "empty"), (" \n", "empty"), (None, "empty"), ("\ud83d", "half of a letter")):
        with pytest.raises(UserError, match=words):
            typed(value)
    with pytest.raises(UserError, match=r"too long; got 1,048,576 characters; allowed: 20,000") as error:
        typed("a" * 2**20)
    assert len(str(error.value)) < 200


def test_a_file_of_lines_keeps_the_numbers_of_its_lines() -> None:
    queue = of_file("mine.txt", "one\r\n\r\n three\x0cmore\n", ())
    assert queue == TextQueue(["one", " three\x0cmore"], None, [1, 3], 1)
    for content, words in (
        ("", "no text"),
        ("\n \n", "no text"),
        (7, "no text"),
        ("a" * (LETTERS + 1), "text 1 is too"),
    ):
        with pytest.raises(UserError, match=words):
            of_file("mine.txt", content, ())
    with pytest.raises(UserError, match="too large; got 2,097,153"):
        of_file("mine.txt", "a" * (FILE_LETTERS + 1), ())
    with pytest.raises(UserError, match="too many texts; got 5,001"):
        of_file("mine.txt", "a\n" * (FILE_TEXTS + 1), ())
    with pytest.raises(UserError, match="has no columns"):
        of_file("mine.txt", "a", ["text"])


def test_a_file_of_columns_gives_those_that_are_named_or_usual() -> None:
    table = 'n;sentence;other\n1;"a; b";x\n2;;y\n3;c;\n'
    assert of_file("t.csv", table, ()) == TextQueue(["a; b", "c"], None, [1, 3], 1)
    assert of_file("t.CSV", table, ["sentence", "other"]) == TextQueue(["a; b", "c"], ["x", ""], [1, 3], 1)
    assert of_file("t.tsv", "first, one\tb\nu\tv\n", ["first, one"]).first == ["u"]
    with pytest.raises(UserError, match=r"Which column of t\.tsv holds the texts\?; allowed: id, review; name it"):
        of_file("t.tsv", "id\treview\n1\tv\n", ())
    assert of_file("t.csv", "what\nu\n", ()).first == ["u"]
    for content, columns, words in (
        (table, ["gone"], "no such column; got gone; allowed: n, sentence, other"),
        ("a,a\n1,2\n", ["a"], "more than once"),
        (table, ["n", "sentence", "other"], "a pair has two"),
        ("a,b\n1\n", ["a"], "line 2: 1 values for 2 columns"),
    ):
        with pytest.raises(UserError, match=words):
            of_file("t.csv", content, columns)


def test_texts_of_a_race_come_again_and_may_be_paired() -> None:
    assert len(built_in().first) > 100
    queue = repeated(TextQueue(["a", "b"], None, [1, 4]), 5)
    assert (queue.first, queue.numbers) == (["a", "b", "a", "b", "a"], [1, 4, 1, 4, 1])
    assert as_pairs(queue).part(3, 5) == (["b", "a"], ["a", "a"])
    pairs = TextQueue(["a"], ["b"], [1])
    assert as_pairs(pairs) is pairs and repeated(pairs, 2).second == ["b", "b"]


def test_sides_are_models_that_are_there_and_threads_that_are() -> None:
    models = {"k": AskedModel("k", "name", "place")}
    side = {"key": "k", "runtime": "eager"}
    left, right = sides_of({"left": side, "right": side, "threads": 1}, models)
    assert left == right and (left.model.name, left.way.runtime, left.way.threads) == ("name", "eager", 1)
    for asked, words in (
        ({"left": side, "right": {"key": "gone", "runtime": "eager"}, "threads": 1}, "no such model"),
        ({"left": side, "right": None, "threads": 1}, "no such model"),
        ({"left": {"key": "k", "runtime": 1}, "right": side, "threads": 1}, "runtime is a name"),
        *(({"left": side, "right": side, "threads": value}, "threads") for value in (0, cores() + 1, True, "1", None)),
    ):
        with pytest.raises(UserError, match=words):
            sides_of(asked, models)


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


def ended(bench: Bench, number: str) -> dict[str, Any]:
    while (told := bench.look(number))["state"] in ("waiting", "running"):
        threading.Event().wait(0.005)
    return told


def test_one_works_and_others_wait_and_are_told_so(bench: Bench) -> None:
    begun, free = threading.Event(), threading.Event()

    def held(job: Errand) -> None:
        job.report({"a": 1})
        begun.set()
        free.wait(20)

    first = bench.put("a race", held)
    others = [bench.put("an answer", lambda job: job.report({"b": 2})) for _ in range(MOST_WAITING)]
    begun.wait(20)
    assert bench.look(first) == {"state": "running", "found": {"a": 1}, "line": ""}
    second, last = bench.look(others[0]), bench.look(others[-1])
    assert second["state"] == "waiting" and second["line"].startswith("It waits: a race is at work. ")
    assert f"and {MOST_WAITING - 1} more before this one" in last["line"]
    with pytest.raises(UserError, match="9 others wait"):
        bench.put("an answer", lambda job: None)
    bench.stop(others[0])
    free.set()
    assert ended(bench, others[0]) == {"state": "stopped", "found": {}, "line": ""}
    assert ended(bench, others[1]) == {"state": "done", "found": {"b": 2}, "line": ""}
    with pytest.raises(RefusedError, match="no such job"):
        bench.look("nothing")


def test_what_fails_is_a_line_and_the_next_one_works(bench: Bench) -> None:
    def user(job: Errand) -> None:
        raise UserError("no model\nhere")

    def library(job: Errand) -> None:
        raise RuntimeError("shapes\ndo not fit " + "x" * 1000)

    told = [ended(bench, bench.put("a race", work)) for work in (user, library, lambda job: None)]
    assert [one["state"] for one in told] == ["failed", "failed", "done"]
    assert told[0]["line"] == "no model here."
    assert told[1]["line"].startswith("The model could not be run: RuntimeError: shapes do not fit x")
    assert len(told[1]["line"]) < 260


def test_a_job_that_nobody_looks_at_ends() -> None:
    now = [0.0]
    job = Errand("a race", lambda: now[0])
    job.go_on()
    now[0] = UNASKED_S + 1
    with pytest.raises(UserError, match="stopped"):
        job.go_on()


def ticking(*lengths: float) -> tuple[Callable[[], float], list[Callable[[], None]], list[int]]:
    """A clock, calls that take so many of its seconds each, and which of them was called when."""
    now, called = [0.0], list[int]()

    def call(place: int) -> Callable[[], None]:
        def taking() -> None:
            called.append(place)
            now[0] += lengths[place]

        return taking

    return lambda: now[0], [call(place) for place in range(len(lengths))], called


def test_calls_take_turns_and_none_is_always_second() -> None:
    clock, calls, called = ticking(0.001, 0.002)
    times = in_turns(calls, clock=clock)
    assert [len(one) for one in times] == [MOST, MOST]
    assert times[0] == pytest.approx([1.0] * MOST) and times[1] == pytest.approx([2.0] * MOST)
    assert called[: 2 * WARM_CALLS] == [0] * WARM_CALLS + [1] * WARM_CALLS
    assert called[2 * WARM_CALLS :][:8] == [0, 1, 1, 0, 0, 1, 1, 0]
    clock, calls, _ = ticking(1.0, 1.0)
    assert [len(one) for one in in_turns(calls, clock=clock)] == [FEWEST, FEWEST]


def test_a_ratio_has_the_interval_of_its_median() -> None:
    assert spread([1.0]) is None and ratio([], []) is None
    assert spread([1.0, 2.0, 3.0, 4.0]) == {"median": 2.5, "q25": 1.75, "q75": 3.25, "n": 4}
    draw = np.random.default_rng(0)
    for size in (6, 7, 12, 41, 300):
        first, second = draw.lognormal(size=(2, size)).tolist()
        found = ratio(first, second)
        assert found and (found["low"], found["high"]) == median_interval(np.divide(first, second).tolist())
    few = ratio([2.0] * 5, [1.0] * 5)
    assert few and (few["median"], few["low"]) == (2.0, None)


def racer(
    name: str, answers: Callable[[int, int], object], total: int, found: Counters, clock: Any = time.time
) -> Racer:
    return Racer(name, "eager", Runner(answers, total, 1, found, clock).turn)


def test_a_race_is_in_turns_and_ends_with_the_first() -> None:
    """A text takes one of them an eighth of a second and the other a quarter of that: two a turn, or seven."""
    now, parts = [0.0], list[tuple[str, int, int]]()
    joules = count(step=2)
    found = Counters((Counter("RAPL package-0", lambda: float(next(joules))),))

    def taking(name: str, seconds: float) -> Racer:
        def answers(start: int, end: int) -> None:
            parts.append((name, start, end))
            now[0] += seconds * (end - start)

        return racer(name, answers, 20, found, lambda: now[0])

    job, told = Errand("a race", lambda: 0.0), list[dict[str, Any]]()
    job.report = told.append
    run(job, [taking("slow", 1 / 8), taking("fast", 1 / 32)], 20, found, clock=lambda: now[0])
    slow, fast = told[-1]["sides"]
    assert (slow["done"], fast["done"], told[-1]["turns"], told[-1]["over"]) == (6, 20, 3, True)
    assert [one["over"] for one in told] == [False] * 3 + [True]
    assert (slow["rate"], fast["rate"]) == (8.0, 32.0) and told[-1]["faster"]["median"] == 4.0
    # Every turn reads the counter twice, two joules apart.
    assert (slow["joules"], fast["joules"]) == (6.0, 6.0) and told[-1]["energy"] == "RAPL package-0, all programs"
    order = [name for name, _, _ in parts]
    changes = [name for name, after in pairwise([*order, ""]) if name != after]
    assert changes == ["slow", "fast", "slow", "fast"] and TURN_S == 0.2
    assert [start for name, start, _ in parts if name == "fast"] == list(range(20))


def test_energy_that_is_not_measurable_is_none_and_says_why() -> None:
    job, found = Errand("a race", lambda: 0.0), Counters((), "no counters")
    run(job, [racer(name, lambda start, end: None, 3, found) for name in "ab"], 3, found)
    assert [side["joules"] for side in job.found["sides"]] == [None, None]
    assert job.found["energy"] == "not measurable here: no counters"
    # What a process of Python with torch holds.
    assert all(side["fits"] and 50 < side["peak_mb"] < 50_000 for side in job.found["sides"])


def test_a_model_that_has_held_more_than_the_limit_is_out() -> None:
    turns: list[str] = []

    def holding(name: str, peaks: list[float]) -> Racer:
        def turn() -> Progress:
            turns.append(name)
            done = turns.count(name)
            return Progress(done, 1.0 * done, [1.0] * done, peak_mb=peaks[done])

        return Racer(name, "eager", turn, Progress(peak_mb=peaks[0]))

    job, found = Errand("a race", lambda: 0.0), Counters((), "no counters")
    run(job, [holding("small", [100] * 5), holding("grows", [127.9, 128.0, 128.1, 128.1])], 4, found, 128)
    assert "".join(one[0] for one in turns) == "sg" + "gs" + "ss"
    assert [(side["done"], side["fits"]) for side in job.found["sides"]] == [(4, True), (2, False)]
    assert job.found["faster"] is None and job.found["limit_mb"] == 128
    turns.clear()
    run(job, [holding(name, [129.0]) for name in "ab"], 4, found, 128)
    assert not turns and job.found["over"] and [side["fits"] for side in job.found["sides"]] == [False, False]
    # What has made no turn has not used nothing: it was not measured.
    assert [side["joules"] for side in job.found["sides"]] == [None, None]


def classes(*chances: float) -> list[dict[str, Any]]:
    return [
        {
            "label": "yes" if yes > 0.5 else "no",
            "probability": max(yes, 1 - yes),
            "probabilities": {"yes": yes, "no": 1 - yes},
        }
        for yes in chances
    ]


def test_agreement_counts_labels_and_lists_the_largest_difference_first() -> None:
    queue = TextQueue(["a", "b", "c", "d"], ["w", "x", "y", "z"], [1, 3, 4, 9])
    found = compared(queue, classes(0.9, 0.6, 0.2, 0.9), classes(0.8, 0.4, 0.3, 0.1))
    assert (found["texts"], found["same"], found["more"]) == (4, 2, 0)
    assert [(row["number"], row["text"], row["pair"]) for row in found["rows"]] == [(9, "d", "z"), (3, "b", "x")]
    assert found["rows"][1]["said"] == ["yes, 60.0%", "no, 60.0%"]
    assert [row["distance"] for row in found["rows"]] == pytest.approx([0.8, 0.2])
    many = TextQueue(["t"] * 300, None, range(1, 301))
    found = compared(many, classes(*[0.9] * 300), classes(*[0.1] * 300))
    assert (found["same"], len(found["rows"]), found["more"]) == (0, MOST_LISTED, 300 - MOST_LISTED)


def test_agreement_of_numbers_is_a_mean_and_of_several_labels_their_set() -> None:
    queue = TextQueue(["a", "b"], None, [1, 2])
    found = compared(queue, [{"value": 1.0}, {"value": 2.0}], [{"value": 1.5}, {"value": 0.0}])
    assert (found["same"], found["mean"], [row["text"] for row in found["rows"]]) == (None, 1.25, ["b", "a"])
    several = [
        {"labels": ["x", "y"], "probabilities": {"x": 0.9, "y": 0.8}},
        {"labels": [], "probabilities": {"x": 0.4, "y": 0.1}},
    ]
    found = compared(queue, several, [several[0] | {"labels": ["y", "x"]}, several[1] | {"labels": ["x"]}])
    assert found["same"] == 1 and found["rows"][0]["said"] == ["none", "x"]


def test_vectors_are_as_far_apart_as_their_directions() -> None:
    vectors = [{"embedding": one} for one in ([1.0, 0.0], [3.0, 4.0], [0.0, 0.0])]
    others = [{"embedding": one} for one in ([2.0, 0.0], [4.0, 3.0], [1.0, 0.0])]
    found = compared(TextQueue(["a", "b", "c"], None, [1, 2, 3]), vectors, others)
    assert found["same"] is None and [row["text"] for row in found["rows"]] == ["c", "b", "a"]
    assert [row["distance"] for row in found["rows"]] == pytest.approx([1.0, 1 - 24 / 25, 0.0])
    assert found["rows"][0]["said"] == ["a vector", "a vector"]


def test_of_a_linear_model_the_parts_are_its_terms() -> None:
    """Score = sum of weight times input: by hand, 1*2 + 3*(-1) = -1, 0.5*4 + 0*7 = 2, and together 1."""
    weights = torch.tensor([[1.0, 3.0], [0.5, 0.0]])
    inputs = torch.tensor([[2.0, -1.0], [4.0, 7.0]])
    parts = gradient_times_input(lambda given: (weights * given).sum(), inputs)
    assert parts.tolist() == [-1.0, 2.0] and not inputs.requires_grad
    # A square has a gradient of twice its root, at this place; a token that is not looked at has no part.
    parts = gradient_times_input(lambda given: given[1, 0] ** 2, inputs)
    assert parts.tolist() == [0.0, 32.0]


def test_attention_that_is_received_leaves_out_padding() -> None:
    attention = torch.tensor([[[[0.5, 0.5, 0.0], [0.1, 0.9, 0.0], [0.3, 0.3, 0.4]]]])
    assert received(attention, torch.tensor([[1, 1, 0]]))[0, 0].tolist() == pytest.approx([0.3, 0.7, 0.0])


def test_a_page_from_elsewhere_is_told_by_its_origin() -> None:
    assert not from_elsewhere(None, "127.0.0.1:8080") and not from_elsewhere("http://LocalHost:80", "localhost:80")
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8081", "http://[", ""):
        assert from_elsewhere(origin, "127.0.0.1:8080")
