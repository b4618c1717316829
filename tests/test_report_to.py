"""Trainings logged to TensorBoard, read back with its own reader; loggers that are not here; nothing else changes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback

import sparsebert
from sparsebert.errors import UserError
from sparsebert.records import read_record
from sparsebert.training.loggers import TrainingLogger
from tiny import tiny_model
from tiny_run import assert_refused, run_cli, save_tiny, write_task

STEPS = {"training.max_steps": 6, "training.save_steps": 2, "training.batch_size": 16, "measure.timed": False}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    save_tiny(folder / "model", "base")
    write_task(folder / "data")
    return folder


def task(home: Path) -> tuple[object, ...]:
    return (home / "model", "--task", "mine", "--data", home / "data")


def finetune(home: Path, out: Path, *more: object) -> Any:
    settings = [text for key, value in STEPS.items() for text in ("--set", f"{key}={value}")]
    return run_cli("finetune", *task(home), "-o", out, *settings, *more)


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def scalars(folder: Path, tag: str) -> list[int]:
    """The steps that have a value."""
    return [event.step for event in events(folder).Scalars(tag)]


def runs(out: Path) -> list[str]:
    """The trainings that were logged, as TensorBoard calls them."""
    return sorted({str(file.parent.relative_to(out / "logs")) for file in out.rglob("events.out.tfevents.*")})


def text(folder: Path, tag: str) -> str:
    [event] = events(folder).Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_a_training_is_logged_under_its_run_and_changes_nothing_else(home: Path, tmp_path: Path):
    logged, plain = tmp_path / "logged", tmp_path / "plain"
    evaluated = ("--set", "training.evaluate.every.steps=2")
    for out, more in ((logged, ("--report-to", "tensorboard")), (plain, ())):
        said = finetune(home, out, *more, *evaluated)
        assert said.exit_code == 0, said.output
    assert runs(logged) == ["training"]
    place = logged / "logs" / "training"
    assert scalars(place, "train/loss") == scalars(place, "eval/accuracy") == [2, 4, 6]
    assert '"run_name": "logged: Fine-tuning"' in text(place, "args")
    with_logs, without = read_record(logged), read_record(plain)
    assert with_logs.recipe_hash == without.recipe_hash
    assert with_logs.models[0].scores == without.models[0].scores
    losses = [event.value for event in events(place).Scalars("train/loss")]
    assert losses[-1] == pytest.approx(with_logs.models[0].training.final_loss, abs=1e-6)
    assert sorted(path.name for path in plain.iterdir()) == sorted(
        path.name for path in logged.iterdir() if path.name != "logs"
    )


def test_a_finished_run_is_only_read_and_restart_removes_its_logs(home: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert finetune(home, out, "--report-to", "tensorboard").exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert finetune(home, out, "--report-to", "tensorboard").exit_code == 0
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert finetune(home, out, "--restart").exit_code == 0
    assert not (out / "logs").exists()


class Stop(TrainerCallback):
    """Somebody presses Ctrl-C after the fifth step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_a_step_that_is_trained_again_is_logged_once(home: Path, tmp_path: Path):
    given: dict[str, Any] = {"task": "mine", "data": home / "data", "output": tmp_path / "out", "progress": False}
    given |= STEPS | {"report_to": "tensorboard"}
    with pytest.raises(KeyboardInterrupt):
        sparsebert.finetune(home / "model", callbacks=[Stop()], **given)
    place = tmp_path / "out" / "logs" / "training"
    assert scalars(place, "train/loss") == [2, 4]
    # The last checkpoint is damaged, so step 4 is trained and logged once more.
    (tmp_path / "out" / "work" / "training" / "checkpoint-4" / "model.safetensors").write_bytes(b"")
    sparsebert.finetune(home / "model", **given)
    assert scalars(place, "train/loss") == [2, 4, 6]
    assert len(list(place.iterdir())) == 2


def test_every_training_of_a_run_is_a_run_of_its_own_there(home: Path, tmp_path: Path):
    out = tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    training = "training: {max_steps: 4, save_steps: 2, batch_size: 16}"
    recipe.write_text(
        f"kind: train\nsparsity: 0.5\nmeasure: {{timed: false}}\nphases:\n- {{name: warm, {training}}}\n"
        f"- {{name: prune, {training}, rules: [{{start: {{steps: 1}}, every: {{steps: 1}}, stop: {{steps: 3}}}}]}}\n"
    )
    said = run_cli("train", *task(home), "-o", out, "--recipe", recipe, "--report-to", "tensorboard")
    assert said.exit_code == 0, said.output
    assert runs(out) == ["phase0-warm/training", "phase1-prune/training"]
    warm, prune = (out / "logs" / name for name in runs(out))
    assert "train/sparsity" in events(prune).Tags()["scalars"]
    [last] = [event for event in events(prune).Scalars("train/sparsity") if event.step == 4]
    assert last.value == pytest.approx(0.5, abs=0.01)
    assert '"run_name": "out: prune"' in text(prune, "args") and '"run_name": "out: warm"' in text(warm, "args")


def test_the_points_of_a_sweep_keep_their_logs(home: Path, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"kind: finetune\nmodel: {home / 'model'}\ntask: mine\ndata: {home / 'data'}\n")
    settings = [part for key, value in STEPS.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "out"
    said = run_cli("sweep", recipe, "--seeds", 2, "-o", out, *settings, "--report-to", "tensorboard")
    assert said.exit_code == 0, said.output
    for seed in (0, 1):
        place = out / f"seed={seed}"
        assert runs(place) == ["training"] and not (place / "work").exists()
        assert f'"run_name": "seed={seed}: Fine-tuning"' in text(place / "logs" / "training", "args")


@pytest.mark.parametrize("command", ["glue", "multitask", "search"])
def test_other_commands_that_train_refuse_a_logger_that_is_not_installed(home: Path, tmp_path: Path, command: str):
    if not absent("mlflow"):
        pytest.skip("mlflow is installed here")
    model, data = home / "model", home / "data"
    given: dict[str, tuple[object, ...]] = {
        "glue": (model, "--tasks", "rte", "--data", data),
        "multitask": (model, "--data", data),
        "search": ("finetune", "--model", model, "--task", "mine", "--data", data, "--space", "seed=1,2"),
    }
    said = run_cli(command, *given[command], "-o", tmp_path / "out", "--report-to", "mlflow")
    assert_refused(said, ["mlflow, which --report-to mlflow needs, is not installed"])
    assert list(tmp_path.iterdir()) == []


def test_trials_of_a_search_are_logged(home: Path, tmp_path: Path):
    out, settings = tmp_path / "out", [part for key, value in STEPS.items() for part in ("--set", f"{key}={value}")]
    space = ("--space", "training.learning_rate=1e-4,1e-3", "--trials", 2, "--repeats", 1)
    data = ("--model", home / "model", "--task", "mine", "--data", home / "data")
    said = run_cli("search", "finetune", *data, *space, *settings, "-o", out, "--report-to", "tensorboard")
    assert said.exit_code == 0, said.output
    places = {str(file.parents[2].relative_to(out)) for file in out.rglob("events.out.tfevents.*")}
    assert {"trials/own", "trials/0000", "trials/0001"} < places
    assert [Path(place).parent.name for place in places if not place.startswith("trials/")] == ["chosen"]


def absent(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return True
    return False


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(home: Path, tmp_path: Path, name: str):
    if not absent(name):
        pytest.skip(f"{name} is installed here")
    out = tmp_path / "out"
    expected = [f"{name}, which --report-to {name} needs, is not installed", f"pip install {name}"]
    assert_refused(finetune(home, out, "--report-to", "tensorboard", "--report-to", name), expected)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"kind: finetune\nmodel: {home / 'model'}\ntask: mine\ndata: {home / 'data'}\n")
    assert_refused(run_cli("sweep", recipe, "-o", out, "--report-to", name), expected)
    with pytest.raises(UserError, match="is not installed"):
        # The model would be saved beside the output first.
        sparsebert.finetune(tiny_model("bert"), data=home / "data", output=out, report_to=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


def test_a_folder_that_wandb_left_is_not_the_package(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not absent("wandb"):
        pytest.skip("wandb is installed here")
    (tmp_path / "wandb").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert_refused(finetune(home, tmp_path / "out", "--report-to", "wandb"), ["is not installed"])


def test_an_unknown_logger_is_refused(home: Path, tmp_path: Path):
    said = finetune(home, tmp_path / "out", "--report-to", "tensorbord")
    assert_refused(said, ["Unknown logger 'tensorbord'", "tensorboard, wandb, mlflow", "Did you mean 'tensorboard'?"])
    assert list(tmp_path.iterdir()) == []


class Noted(TrainerCallback):
    """A logger of somebody's own."""

    folders: tuple[Path, ...] = ()

    def __init__(self, folder: Path) -> None:
        Noted.folders += (folder,)


OWN = TrainingLogger("pytest", Noted)


def test_a_logger_of_ones_own(home: Path, tmp_path: Path):
    said = finetune(home, tmp_path / "out", "--report-to", "test_report_to:OWN")
    assert said.exit_code == 0, said.output
    assert Noted.folders == (tmp_path / "out" / "logs" / "training",)
