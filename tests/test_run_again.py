"""Runs of `compress` that are started again: what is found, made again, shown, added and refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsebert.errors import UserError
from sparsebert.records import read_record
from test_run import compress
from test_stages import flipped
from tiny_run import QUICK, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A fine-tuned model, and its task."""
    folder = tmp_path_factory.mktemp("again")
    return SimpleNamespace(folder=folder, tuned=save_tiny(folder / "tuned"), data=write_task(folder / "data"))


def test_a_run_that_lost_a_model_makes_it_again(home):
    options = ("--sparsity", 0.3, "--no-finetune")
    first = compress(home, home.tuned, "lost", *options)
    shutil.rmtree(home.folder / "lost" / "0.3-sparsity")
    assert compress(home, home.tuned, "lost", *options).models[1].scores == first.models[1].scores


def test_what_training_began_with_may_be_gone_once_a_model_is_trained(home):
    options = ("--sparsity", 0.4, "--set", "finetune.max_steps=3")
    first, work = compress(home, home.tuned, "spent", *options), home.folder / "spent" / "work" / "0.4-sparsity"
    begun = (work / "member.json").stat().st_mtime_ns
    shutil.rmtree(work / "one-shot")
    assert compress(home, home.tuned, "spent", *options).models[1].scores == first.models[1].scores
    assert (work / "member.json").stat().st_mtime_ns == begun
    # Where the model itself is gone too, search and training are done again, both.
    shutil.rmtree(home.folder / "spent" / "0.4-sparsity")
    assert compress(home, home.tuned, "spent", *options).models[1].scores == first.models[1].scores
    assert (work / "member.json").stat().st_mtime_ns > begun and (work / "one-shot").is_dir()


def test_a_damaged_model_is_made_again_aloud(home):
    out, options = home.folder / "damaged", ("--sparsity", 0.3, "--no-finetune")
    compress(home, home.tuned, "damaged", *options)
    weights = out / "0.3-sparsity" / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:5000], flipped(content)):
        weights.write_bytes(damaged)
        again = run_cli("compress", home.tuned, "--task", "mine", "--data", home.data, "-o", out, *QUICK, *options)
        assert again.exit_code == 0 and "missing or damaged" in again.stderr
        assert weights.read_bytes() == content


def test_a_finished_run_is_shown_and_not_measured_anew(home):
    options = ("--sparsity", 0.3, "--no-finetune")
    before = compress(home, home.tuned, "shown", *options)
    said = run_cli(
        "compress", home.tuned, "--task", "mine", "--data", home.data, "-o", home.folder / "shown", *QUICK, *options
    )
    assert said.exit_code == 0 and "0.3-sparsity" in said.stdout and "nothing is measured anew" in said.stderr
    assert read_record(home.folder / "shown") == before


def test_a_target_can_be_added(home):
    out, options = home.folder / "added", ("--no-finetune", "--sparsity", 0.3)
    first = compress(home, home.tuned, "added", *options)
    made = (out / "0.3-sparsity" / "model.safetensors").stat().st_mtime_ns
    record = compress(home, home.tuned, "added", *options, "--sparsity", 0.6)
    assert [model.name for model in record.models] == ["dense", "0.3-sparsity", "0.6-sparsity"]
    assert record.models[1].scores == first.models[1].scores
    assert (out / "0.3-sparsity" / "model.safetensors").stat().st_mtime_ns == made


def test_a_milder_target_that_is_added_is_where_the_others_go_on_from(home):
    options = ("--set", "finetune.max_steps=3")
    compress(home, home.tuned, "milder", "--sparsity", 0.6, *options)
    both = ("--sparsity", 0.3, "--sparsity", 0.6)
    added = compress(home, home.tuned, "milder", *both, *options)
    whole = compress(home, home.tuned, "both", *both, *options)
    assert [model.scores for model in added.models] == [model.scores for model in whole.models]
    files = [home.folder / name / "0.6-sparsity" / "model.safetensors" for name in ("milder", "both")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_failure_keeps_what_was_measured_before(home, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise UserError("No")

    out, options = home.folder / "failing", ("--sparsity", 0.3, "--no-finetune")
    before = compress(home, home.tuned, "failing", *options)
    shutil.rmtree(out / "0.3-sparsity")
    monkeypatch.setattr("sparsebert.runs.run.write_predictions", fail)
    again = run_cli("compress", home.tuned, "--task", "mine", "--data", home.data, "-o", out, *QUICK, *options)
    assert again.exit_code == 2 and "error: No." in again.stderr
    assert read_record(out) == before


CHANGES = {
    "labels": lambda text: text.replace(",yes,", ",?,").replace(",no,", ",yes,").replace(",?,", ",no,"),
    "rows": lambda text: text + "good w1 w2,yes,1.0\n",
    "fewer": lambda text: "".join(text.splitlines(keepends=True)[:-2]),
    "texts": lambda text: text.replace("w1", "w2"),
    "third": lambda text: text + "w1 w2,maybe,1.0\n",
}


def untimed(home: SimpleNamespace, data: Path, out: Path) -> tuple[object, ...]:
    goal = ("--no-finetune", "--sparsity", 0.3, "--set", "measure.timed=false")
    return ("compress", home.tuned, "--task", "mine", "--data", data, "-o", out, *QUICK, *goal)


@pytest.fixture(scope="module")
def made(home: SimpleNamespace) -> Path:
    """Data, and a finished run of it; what a test changes is a copy in the folder that the run was made in."""
    folder = home.folder / "made"
    shutil.copytree(home.data, folder / "data")
    said = run_cli(*untimed(home, folder / "data", folder / "out"))
    assert said.exit_code == 0, said.output
    return folder.rename(home.folder / "kept")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("file", ["train.csv", "validation.csv"])
def test_other_data_under_the_same_path_is_noticed(change: str, finished: bool, file: str, home, made: Path):
    if (change, file) == ("third", "validation.csv"):
        pytest.skip("a label that the train file does not have is refused as such")
    place = home.folder / "made"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(made, place)
    data, out = place / "data", place / "out"
    if not finished:
        (out / "record.json").unlink()
        shutil.rmtree(out / "0.3-sparsity")
    (data / file).write_text(CHANGES[change]((data / file).read_text()))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said = run_cli(*untimed(home, data, out))
    assert said.exit_code == 2 and "is not the same any more; different: the" in said.stderr, said.output
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    if finished or change == "rows":
        assert run_cli(*untimed(home, data, out), "--restart").exit_code == 0


def test_a_log_has_a_line_a_step_and_no_blank_ones(home, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ("compress", home.tuned, "--task", "mine", "--data", home.data, "-o", out, *QUICK)
    said = run_cli(*arguments, "--sparsity", 0.3, "--set", "finetune.max_steps=3")
    lines = said.stderr.splitlines()
    steps = [re.sub(r" \d+:\d\d", "", text) for text in lines if text.startswith("[")]
    assert steps == [
        "[1/5] The dense model",
        "[2/5] 0.3-sparsity: searching what to remove",
        "[3/5] 0.3-sparsity: training what is left",
        "[4/5] Measuring all models together",
        "[5/5] Writing the report",
    ]
    assert "" not in lines and not any("\r" in text for text in lines)


def test_a_page_that_is_gone_is_written_again(home):
    out, options = home.folder / "paged", ("--sparsity", 0.3, "--no-finetune")
    compress(home, home.tuned, "paged", *options)
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    compress(home, home.tuned, "paged", *options)
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_home_and_the_slash_of_completion_name_the_same_folders(home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(home.folder))
    monkeypatch.chdir(home.folder)
    options = (*QUICK, "--sparsity", 0.3, "--no-finetune")
    named = ("compress", "~/tuned", "--task", "mine", "--data", "~/data")
    first = run_cli(*named, "-o", "~/tilde", *options)
    assert first.exit_code == 0 and (home.folder / "tilde" / "record.json").is_file() and not Path("~").exists()
    again = run_cli("compress", "~/tuned/", "--task", "mine", "--data", "~/data/", "-o", "~/tilde", *options)
    assert "This run has finished before" in again.stderr
