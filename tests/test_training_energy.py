"""The energy of a training over all of its starts: one joule a step, by a made-up counter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainingArguments

from powercap import energy_of, set_energy, zone
from sparsebert import energy
from sparsebert.recipe.schema import Training
from sparsebert.records import TrainingRun
from sparsebert.training.energy import FILE, TrainingEnergy
from sparsebert.training.finetune import fine_tune
from tiny import tiny_model
from toy import toy_collate, toy_rows

ROWS = toy_rows(16)
TRAINING = Training(max_steps=10, save_steps=3, batch_size=4)
PER_KWH = 3_600_000


class Spending(TrainerCallback):
    """Every step takes a joule; the step `until` is the last one before somebody pulls the plug."""

    def __init__(self, package: Path, until: int | None = None) -> None:
        self.package, self.until = package, until

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        set_energy(self.package, energy_of(self.package) + 1_000_000)
        if state.global_step == self.until:
            raise KeyboardInterrupt


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 77)


def train(folder: Path, *callbacks: TrainerCallback) -> TrainingRun:
    model = tiny_model("bert", num_labels=2, num_hidden_layers=1)
    return fine_tune(model, ROWS, toy_collate, TRAINING, folder, 0, "test", callbacks=callbacks).run


def interrupted(folder: Path, package: Path) -> None:
    """A training that ends after step 8, of which its checkpoint of step 6 is left."""
    with pytest.raises(KeyboardInterrupt):
        train(folder, Spending(package, until=8))
    assert [one.name for one in folder.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_training_counts_what_it_takes(tmp_path: Path, package: Path):
    run = train(tmp_path / "out", Spending(package))
    assert run.energy_kwh == pytest.approx(10 / PER_KWH)
    assert run.energy_source == "RAPL package-0, all programs" and run.energy_missing is None
    again = train(tmp_path / "out", Spending(package))
    assert again.energy_kwh == pytest.approx(run.energy_kwh) and again.steps == 10


def test_starts_are_summed_but_for_what_was_lost(tmp_path: Path, package: Path):
    interrupted(tmp_path / "out", package)
    set_energy(package, 500_000_000)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", Spending(package, until=10))
    assert energy_of(package) == 504_000_000
    set_energy(package, 0)
    run = train(tmp_path / "out", Spending(package))
    assert run.steps == 10 and run.energy_kwh == pytest.approx(10 / PER_KWH)
    assert energy_of(package) == 1_000_000


def test_a_part_that_was_not_measured_leaves_no_number(tmp_path: Path, package: Path):
    away = package.rename(tmp_path / "away")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", Spending(away, until=5))
    away.rename(package)
    run = train(tmp_path / "out", Spending(package))
    assert (run.energy_kwh, run.energy_source) == (None, None)
    assert run.energy_missing == f"no RAPL counters in {package.parent}"


def test_a_checkpoint_of_an_older_version_is_a_part_that_was_not_measured(tmp_path: Path, package: Path):
    interrupted(tmp_path / "out", package)
    checkpoint = tmp_path / "out" / "checkpoint-6"
    meter = TrainingEnergy(tmp_path)
    with meter.measured(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), str(checkpoint)):
        assert meter.facts()["energy_kwh"] == pytest.approx(6 / PER_KWH)
    (checkpoint / FILE).unlink()
    with meter.measured(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), str(checkpoint)):
        assert meter.facts()["energy_missing"] == "an earlier part of the training was not measured"


def test_counters_that_stand_still_are_no_measurement(tmp_path: Path, package: Path):
    run = train(tmp_path / "out")
    assert (run.energy_kwh, run.energy_missing) == (None, "the counters stood still")


def test_several_processes_are_not_one_machine(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    meter = TrainingEnergy(tmp_path)
    with meter.measured(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), None):
        set_energy(package, 5_000_000)
    assert meter.facts()["energy_missing"] == "2 processes train together, and each sees its own machine"
