"""`compress --runtime`: a whole run whose targets are about a runtime of the user's own, which runs one program."""

from __future__ import annotations

from pathlib import Path

import pytest

from forked import RemoteCopy
from sparsebert.measurement import station
from sparsebert.records import read_record
from tiny_run import run_cli, save_tiny, write_task

QUICK = ("--no-finetune", "--set", "measure.rounds=3", "--set", "search.examples=16", "--set", "search.candidates=2")
SEARCH = ("--set", "search.score_examples=8", "--set", "dense.max_steps=2", "--batch", 2, "--length", 16)


def test_targets_are_about_the_runtime_that_the_recipe_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(station, "Remote", RemoteCopy)
    model = save_tiny(tmp_path / "model", num_labels=2)
    data = write_task(tmp_path / "data")
    output = tmp_path / "run"
    own = ("--runtime", "tiny:AS_ONE_PROGRAM", "--speedup", 1.2, "--output", output)
    said = run_cli("compress", model, "--task", "custom", "--data", data, *own, *QUICK, *SEARCH)
    assert said.exit_code == 0, said.output
    record = read_record(output)
    assert record.recipe["measure"]["runtime"] == "tiny:AS_ONE_PROGRAM"
    timed = [(timing.backend, timing.scope) for timing in record.models[1].timings]
    assert timed == [("eager", "model"), ("eager", "encoder"), ("tiny:AS_ONE_PROGRAM", "model")]


def test_a_runtime_that_cannot_run_ends_the_run_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    model, data = save_tiny(tmp_path / "model", num_labels=2), write_task(tmp_path / "data")
    own = ("--runtime", "compile", "--speedup", 1.2, "--output", tmp_path / "run")
    said = run_cli("compress", model, "--task", "custom", "--data", data, *own, *QUICK, *SEARCH)
    assert said.exit_code == 2 and not (tmp_path / "run" / "1.2x").exists()
    reason = "error: The runtime 'compile' is not available: no C++ compiler found (no-such-compiler)."
    assert said.stderr.splitlines()[-1] == reason
