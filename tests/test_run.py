"""Whole runs of `compress`, through the command line: what is written, what it says, and that models load."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_config, load_model, load_tokenizer
from sparsebert.models.source import disk_bytes
from sparsebert.recipe.load import load_recipe
from sparsebert.records import Record, read_record
from sparsebert.runs.compress import LADDER, Compress, Member, wanted_targets
from sparsebert.runs.context import set_up
from sparsebert.runs.run_type import Entry
from tiny_run import QUICK, run_cli, save_tiny, write_task

CRITERIA = registry.names("unit_criterion")
LOGITS = """
import json, sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer
even, uneven = sys.argv[1:]
def logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model(**AutoTokenizer.from_pretrained(folder)("good w1 w2", return_tensors="pt")).logits.tolist()
first = logits(even)
assert "sparsebert" not in sys.modules
import sparsebert
print(json.dumps([first, logits(uneven)]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SimpleNamespace:
    """A base model, a fine-tuned one, and the task."""
    folder = tmp_path_factory.mktemp("run")
    return SimpleNamespace(
        folder=folder,
        base=save_tiny(folder / "base", "base"),
        tuned=save_tiny(folder / "tuned"),
        data=write_task(folder / "data"),
    )


def compress(home: SimpleNamespace, model: Path, name: str, *options: object, pictures: bool = False) -> Record:
    out = home.folder / name
    given = ("--task", "mine", "--data", home.data, "-o", out, *QUICK, *options)
    result = run_cli("compress", model, *given, pictures=pictures)
    assert result.exit_code == 0, result.output
    return read_record(out)


@pytest.fixture(scope="module")
def trained(home) -> tuple[Path, Record]:
    """A base model fine-tuned, made smaller twice, fine-tuned each time; the targets are given the strong one first."""
    options = ("--sparsity", 0.7, "--sparsity", 0.4, "--set", "finetune.max_steps=6", "--max-length", 8)
    return home.folder / "trained", compress(home, home.base, "trained", *options, pictures=True)


@pytest.fixture(scope="module")
def even(home) -> tuple[Path, Record]:
    return home.folder / "even", compress(home, home.tuned, "even", "--even", "--no-finetune", "--sparsity", 0.5)


def test_record_tells_the_whole_run(trained):
    _, record = trained
    assert (record.kind, record.status, record.task, record.main_metric) == ("compress", "finished", "mine", "accuracy")
    assert [model.name for model in record.models] == ["dense", "0.4-sparsity", "0.7-sparsity"]
    columns = {"text": [], "label": "label", "kind": "classification", "delimiter": None, "encoding": None}
    assert record.recipe["columns"] == columns
    assert record.models[0].training.steps == 6 and not record.models[0].training.teacher
    for model in record.models[1:]:
        assert model.training.steps == 6 and model.training.teacher
        assert {score.metric for score in model.one_shot_scores} == {"accuracy", "matthews"}
        assert model.output_difference < 1e-5
    for model in record.models:
        assert {(score.split, score.examples) for score in model.scores} == {("validation", 40)}
        assert {timing.scope for timing in model.timings} == {"encoder", "model"}
        assert model.size.flops > 0
        assert all(timing.rounds in (3, 6, 9, 12) and timing.batch == 1 for timing in model.timings)


def test_sizes_really_fall(trained):
    folder, record = trained
    saved = [(folder / model.folder / "model.safetensors").stat().st_size for model in record.models]
    assert saved == sorted(saved, reverse=True) and saved[2] < 0.75 * saved[0]
    for model, size in zip(record.models, saved, strict=True):
        assert model.sparsity.bytes_on_disk == pytest.approx(1 - size / saved[0])
        assert model.sparsity.encoder_linear >= (model.target_value or 0)
        assert 0 < size - model.size.weight_bytes < 8192
    assert record.models[2].sparsity.encoder_linear > record.models[1].sparsity.encoder_linear


def test_shapes_in_the_record_are_those_of_the_models(trained):
    folder, record = trained
    for result in record.models[1:]:
        config = load_model(folder / result.folder).config
        kept = config.kept_layers
        assert [result.shape.heads[layer] for layer in kept] == config.layer_heads
        assert [result.shape.neurons[layer] for layer in kept] == config.layer_neurons
        assert set(result.shape.dropped_layers) == set(range(3)) - set(kept)


def test_report_cards_and_nothing_half_written(trained):
    folder, record = trained
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "0.7-sparsity" in page and list((folder / "plots").glob("*.png"))
    for model in record.models:
        card = (folder / model.folder / "README.md").read_text(encoding="utf-8")
        assert f"{model.name}\n" in card.replace("\\", "") and "How each number was measured" in card
    assert not [path for path in folder.rglob(".*") if path.is_dir()]
    assert {path.suffix for path in (folder / "0.7-sparsity").iterdir()} == {".json", ".safetensors", ".md", ".py"}


def test_truncated_texts_are_noted(trained):
    _, record = trained
    assert any("longer than 8 tokens" in note and note.startswith("train") for note in record.notes)


def test_models_load_in_a_fresh_process(trained, even):
    """The even one with nothing but transformers, the uneven one after `import sparsebert`."""
    folders = [even[0] / "0.5-sparsity", trained[0] / "0.7-sparsity"]
    done = subprocess.run(
        [sys.executable, "-c", LOGITS, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for folder, logits in zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True):
        tokens = load_tokenizer(folder)("good w1 w2", return_tensors="pt")
        with torch.no_grad():
            expected = load_model(folder)(**tokens).logits
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-6, atol=1e-6)


def test_even_keeps_one_width_and_a_stock_class(even):
    folder, record = even
    config = json.loads((folder / "0.5-sparsity" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "bert" and "layer_heads" not in config
    shape = record.models[1].shape
    kept = [layer for layer in range(3) if layer not in shape.dropped_layers]
    assert {shape.heads[layer] for layer in kept} == {4}
    assert {shape.neurons[layer] for layer in kept} == {config["intermediate_size"]}
    assert len(kept) == config["num_hidden_layers"]


def family(home: SimpleNamespace, name: str, model: Path, settings: tuple[str, ...] = (), **values: object) -> Any:
    """Members made one-shot, without the measurement and the report of a whole run."""
    given = {"model": str(model), "task": "mine", "data": str(home.data), **values}
    recipe = load_recipe(None, [*QUICK[1::2], "finetune=null", *settings], **given)
    context = set_up(recipe, home.folder / name)
    made = Compress().make(context)
    return made.entries, made.notes, context


def removed(entry: Entry, dense: Entry) -> float:
    """The part of the encoder's linear weights that is gone, counted here."""
    left, full = (sum(e.model.get_parameter(n).numel() for n in encoder_linear_names(e.model)) for e in (entry, dense))
    return 1 - left / full


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_plugs_into_the_same_path(home, criterion):
    targets = [{"kind": "sparsity", "value": 0.5}]
    (dense, small), notes, context = family(home, criterion, home.tuned, criterion=criterion, targets=targets)
    assert (dense.name, small.name, notes) == ("dense", "0.5-sparsity", ())
    assert dense.facts["training"] is None and small.facts["training"] is None
    kept = json.loads((context.work / small.name / "member.json").read_text(encoding="utf-8"))
    assert context.score(small.predictions) == Member.model_validate(kept["result"]).one_shot_scores
    assert 0.5 <= removed(small, dense) < 0.75


def test_all_registered_criteria_were_covered():
    assert {"obs", "magnitude", "random", "gradient", "activation", "loss_increase"} == set(CRITERIA)


def test_layers_as_the_control(home):
    targets = [{"kind": "sparsity", "value": 0.66}]
    (_, small), *_ = family(home, "layers", home.tuned, shape="layers", targets=targets)
    shape = small.facts["shape"]
    assert len(shape.dropped_layers) == 2
    assert sorted(shape.heads) == [0, 0, 4] and sorted(shape.neurons) == [0, 0, 24]


def test_size_target_is_about_bytes(home):
    targets = [{"kind": "size", "value": 0.8}, {"kind": "size", "value": 0.6}]
    (dense, *small), *_ = family(home, "size", home.tuned, targets=targets)
    assert [entry.name for entry in small] == ["0.8-size", "0.6-size"]
    for entry in small:
        part = disk_bytes(entry.folder) / disk_bytes(dense.folder)
        assert entry.facts["target_value"] - 0.1 < part <= entry.facts["target_value"] + 0.02


def test_targets_of_a_kind_go_from_the_mildest_to_the_strongest():
    asked = [("speedup", 4), ("size", 0.3), ("speedup", 2), ("size", 0.6), ("latency_ms", 5), ("latency_ms", 9)]
    recipe = load_recipe(None, ["model=x", "task=mine"], targets=[{"kind": k, "value": v} for k, v in asked])
    found = [target.label for target in wanted_targets(recipe)]
    assert found == ["2x", "0.6-size", "4x", "0.3-size", "9ms", "5ms"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_halves_is_worked_on_in_float32(home, dtype):
    folder = home.folder / f"halves-{dtype}"
    save_tiny(folder)
    load_model(folder).to(dtype).save_pretrained(folder)
    assert load_model(folder).dtype == dtype
    compress(home, folder, f"from-{dtype}", "--sparsity", 0.5, "--set", "finetune.max_steps=3")
    for name in ("dense", "0.5-sparsity"):
        assert load_model(home.folder / f"from-{dtype}" / name).dtype == torch.float32
    notes = " ".join(read_record(home.folder / f"from-{dtype}").notes)
    assert f"saved in {str(dtype).removeprefix('torch.')}; it is worked on in float32" in notes
    assert "labels have no names" in notes


def test_max_drop_ends_where_models_cannot_get_smaller(home):
    settings = ("even=true", "search.drop_layers=false")
    entries, notes, _ = family(home, "ladder", home.tuned, settings, max_drop=100.0)
    assert len(entries) <= len(LADDER) and "cannot be met" in notes[0]


def test_max_drop_does_not_hide_what_went_wrong(home, monkeypatch: pytest.MonkeyPatch):
    def full(model: object, tokenizer: object, folder: Path) -> None:
        raise UserError("No space left on device")

    dense = family(home, "full", home.tuned, (), max_drop=100.0)[0][0].folder
    shutil.rmtree(dense.parent / "work" / "0.3-sparsity")
    monkeypatch.setattr("sparsebert.runs.compress.save_model", full)
    with pytest.raises(UserError, match="No space left"):
        family(home, "full", home.tuned, (), max_drop=100.0)


def test_max_drop_stops_where_too_much_is_lost(home):
    learn = ("dense.max_steps=60", "dense.learning_rate=0.003")
    entries, notes, context = family(home, "drop", home.base, learn, max_drop=5.0, criterion="random")
    scores = [next(s.value for s in context.score(e.predictions) if s.metric == "accuracy") for e in entries]
    assert scores[0] > 0.9
    assert all(100 * (scores[0] - score) <= 5 for score in scores)
    assert [entry.name for entry in entries[1:]] == [f"{value:g}-sparsity" for value in LADDER[: len(entries) - 1]]
    assert len(entries) <= len(LADDER)
    assert len(entries) > len(LADDER) or notes[0].startswith(f"{LADDER[len(entries) - 1]:g}-sparsity lost ")


def test_regression_is_scored_as_regression(home):
    options = ("--kind", "regression", "--label-column", "score", "--no-finetune", "--sparsity", 0.5)
    record = compress(home, home.base, "regression", *options)
    assert record.main_metric == "pearson"
    assert {score.metric for score in record.models[1].scores} == {"pearson", "spearman"}
    config = load_config(home.folder / "regression" / "0.5-sparsity")
    assert (config.problem_type, config.num_labels) == ("regression", 1)


def test_loss_that_is_no_number_ends_as_failed(home):
    out = home.folder / "diverged"
    arguments = ("compress", home.base, "--task", "mine", "--data", home.data, "-o", out, "--sparsity", 0.5, *QUICK)
    result = run_cli(*arguments, "--set", "dense.learning_rate=1e12", "--set", "dense.warmup=0")
    assert result.exit_code == 2
    assert result.stderr.count("error:") == 1 and "became nan at step" in result.stderr
    record = read_record(out)
    assert (record.status, record.models) == ("failed", ())
    assert 1 < record.failed_step <= 6
    assert f"step {record.failed_step}" in record.message
    assert not (out / "dense").exists() and not (out / "report.html").exists()


def test_unreachable_speedup_names_the_nearest(home):
    out = home.folder / "unreachable"
    arguments = ("compress", home.tuned, "--task", "mine", "--data", home.data, "-o", out, "--no-finetune", *QUICK)
    result = run_cli(*arguments, "--speedup", "900x")
    assert result.exit_code == 2
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: The target speedup 900 cannot be met") and "nearest reachable is about" in line
    record = read_record(out)
    assert (record.status, record.models, record.failed_step) == ("failed", (), None)
