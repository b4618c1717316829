"""What a search says: steps to a score, tables, pictures, and two searches side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from example_record import full_record
from made_search import MadeTrials
from sparsebert import api
from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe
from sparsebert.recipe.space import read_space
from sparsebert.records import Evaluation, write_record
from sparsebert.records.searched import read_search, write_search
from sparsebert.reports.render import as_markdown
from sparsebert.reports.search_plots import front_plot, history_plot, is_log, steps_plot, value_plot
from sparsebert.reports.search_tables import best_table, chosen_table, short_key, threshold_table
from sparsebert.reports.searched import read_searched
from sparsebert.runs.hyperparameters import search
from sparsebert.runs.search_definition import SearchPlan
from sparsebert.studies.thresholds import steps_to, threshold_rows
from tiny_run import assert_refused, run_cli, save_tiny, write_task

pytestmark = pytest.mark.pictures

RATE = "training.learning_rate"
SPACE = (f"{RATE}=1e-6:1e-2:log", "training.lr_schedule=linear,cosine")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two searches of which the second likes higher rates, one with two objectives, and a folder of other runs."""
    home = tmp_path_factory.mktemp("searches")
    save_tiny(home / "model")
    write_task(home / "data")
    named = {"model": str(home / "model"), "task": "mine", "data": str(home / "data")}
    recipe, space = load_recipe(None, kind="finetune", **named), read_space(SPACE)
    for name, rate in (("dense", 5e-5), ("sparse", 5e-4)):
        made = MadeTrials(fails=(2,), best_rate=rate)
        search(SearchPlan(recipe, space, trials=13, repeats=2), home / name, "the <command>", work=made)
    both = SearchPlan(recipe, space, ("accuracy", "latency_ms"), trials=8, repeats=0)
    search(both, home / "two", "", work=MadeTrials())
    for place, shift in enumerate((0.0, -0.02)):
        values = {"finetune": {"learning_rate": (1e-5, 2e-4)[place]}}
        record = full_record(accuracy_shift=shift, **values)
        (home / "runs" / f"run-{place}").mkdir(parents=True)
        write_record(record, home / "runs" / f"run-{place}")
    return home


def seen(*pairs: tuple[int, float]) -> list[Evaluation]:
    return [Evaluation(step=step, split="held_out", scores={"accuracy": score}) for step, score in pairs]


def test_steps_to_a_score_by_hand():
    evaluations = [*seen((10, 0.5), (20, 0.8), (30, 0.7), (40, 0.9)), Evaluation(step=5, split="held_out", scores={})]
    assert steps_to(evaluations, "accuracy", 0.8) == 20 and steps_to(evaluations, "accuracy", 0.85) == 40
    assert steps_to(evaluations, "accuracy", 0.95) is None and steps_to(evaluations, "f1", 0.1) is None


def test_the_fastest_trial_of_each_search(home: Path):
    found = read_searched([home / "dense", home / "sparse"])
    rows = threshold_rows(found, [0.8, 0.99])
    assert [(row.label, row.threshold) for row in rows] == [
        *(("dense", 0.8), ("sparse", 0.8)),
        *(("dense", 0.99), ("sparse", 0.99)),
    ]
    for row, one in zip(rows[:2], found, strict=True):
        steps = {run.name: steps_to(run.evaluations, "accuracy", 0.8) for run in one.runs}
        got = [value for value in steps.values() if value is not None]
        assert row.steps == min(got) == steps[str(row.run)] and row.reached == len(got) and row.watched == 12
    assert rows[2].steps is None and rows[2].run is None
    text = as_markdown(threshold_table(rows, found[0].aim))
    assert "none of 12" in text and f"{rows[0].reached} of 12 got there" in text


def test_scores_that_all_have_reached(home: Path):
    found = read_searched([home / "dense", home / "sparse"])
    best = min(max(e.scores["accuracy"] for run in one.runs for e in run.evaluations) for one in found)
    rows = threshold_rows(found)
    assert [row.threshold for row in rows[::2]] == [pytest.approx(part * best) for part in (0.9, 0.95, 0.99)]
    assert all(row.steps is not None for row in rows)


def test_tables(home: Path):
    [one] = found = read_searched([home / "dense"])
    text = as_markdown(best_table(found))
    assert f"| {one.best.name} | {one.best.score.mid:.1f}%" in text and "always giving the same answer" in text
    assert "12 trials with a score; the first is the best of them" in text and "learning rate" in text
    chosen = as_markdown(chosen_table(found))
    score = one.best.score.mid
    # The made runs on validation score a point less, and 0.2 more with the second seed.
    assert f"{score - 0.9:.1f}% ({score - 1:.1f}–{score - 0.8:.1f}; n = 2)" in chosen and "best of 12" in chosen


def test_a_trial_whose_record_is_gone_keeps_its_score(home: Path, tmp_path: Path):
    shutil.copytree(home / "dense", tmp_path / "dense")
    whole = {run.name: run.score.mid for run in read_searched([home / "dense"])[0].runs}
    shutil.rmtree(tmp_path / "dense" / "trials" / "0001")
    [one] = read_searched([tmp_path / "dense"])
    assert {run.name: run.score.mid for run in one.runs} == pytest.approx(whole)
    assert [run.score.low is None for run in one.runs if run.number == 1] == [True]


def test_the_page_and_its_pictures(home: Path, tmp_path: Path):
    page = api.report_searches([home / "dense", home / "sparse"], tmp_path / "both.html", [0.8])
    names = {file.name for file in (tmp_path / "both-plots").iterdir()}
    assert names == {"history.png", "steps.png", "value-learning-rate.png", "importance-1.png", "importance-2.png"}
    assert all(file.read_bytes().startswith(PNG) for file in (tmp_path / "both-plots").iterdir())
    text = page.read_text(encoding="utf-8")
    for words in (
        "Score against learning rate",
        "Steps to a score",
        "PED-ANOVA",
        "n_startup_trials 10",
        "nan at step 3",
    ):
        assert words in text
    assert "the &lt;command&gt;" in text and "<command>" not in text


def test_importance_is_absent_where_too_few_trials_tell(home: Path, tmp_path: Path):
    text = api.report_searches([home / "two"], tmp_path / "two.html").read_text(encoding="utf-8")
    assert "What the score depends on" not in text and "Pareto front" in text and "Best so far" not in text


def test_pictures_show_what_there_is(home: Path):
    dense, sparse = read_searched([home / "dense", home / "sparse"])
    figure = value_plot([dense, sparse], RATE)
    assert figure is not None
    [axes] = figure.axes
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "Accuracy, %"
    drawn = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 12]
    assert [sorted(line) for line in drawn] == [sorted(run.values[RATE] for run in one.runs) for one in (dense, sparse)]
    assert value_plot([dense], "training.lr_schedule") is None and value_plot([dense], "gone") is None
    assert steps_plot(threshold_rows([dense], [0.99]), "accuracy") is None
    assert history_plot([dense]) is not None and front_plot(dense) is None
    assert not is_log([dense], "training.batch_size")


def test_runs_that_no_search_made_stand_beside_one(home: Path, tmp_path: Path):
    found = read_searched([home / "dense", home / "runs"])
    assert found[1].search is None and len(found[1].runs) == 2
    page = api.report_searches([home / "dense", home / "runs"], tmp_path / "page.html")
    assert "runs: 2 trials with a score" in page.read_text(encoding="utf-8")


def test_other_objectives_are_not_drawn_together(home: Path, tmp_path: Path):
    folder = tmp_path / "sized"
    sized = read_search(home / "two")
    aims = tuple(aim for aim in sized.objectives if aim.name != "accuracy")
    write_search(sized.model_copy(update={"objectives": aims}), folder)
    with pytest.raises(UserError, match="different objectives"):
        read_searched([home / "dense", folder])


def test_names_of_keys():
    keys = [RATE, "phases.0.training.learning_rate", "training.lr_schedule"]
    assert short_key(RATE, keys) == RATE.replace("_", " ") and short_key(keys[2], keys) == "lr schedule"


def test_report_of_the_command_line(home: Path, tmp_path: Path):
    said = run_cli("report", home / "dense", home / "sparse", "-o", tmp_path / "page.html", "--threshold", "0.8")
    assert said.exit_code == 0, said.output
    assert (tmp_path / "page.html").is_file() and said.stdout.startswith("Report: ")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "search.json").write_text("{}")
    assert_refused(run_cli("report", tmp_path / "broken"), ["The search is not readable: Field required"])
