"""Every recipe that ships trains for three steps a phase on a tiny model; sweeps and comparisons of such runs."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sparsebert.errors import UserError
from sparsebert.models.load import load_model
from sparsebert.recipe.load import load_recipe
from sparsebert.records import FILE_NAME, PREDICTIONS, read_record, write_record
from sparsebert.reports import curves, families, family_rows
from sparsebert.reports.values import Value
from sparsebert.runs.claim import LOCK_FILE
from sparsebert.runs.context import set_up
from sparsebert.runs.run import run
from sparsebert.runs.sweep import Axis, axis, points
from sparsebert.runs.train import check_phases, unused_targets
from sparsebert.studies.significance import contenders, differences
from test_significance import contender
from tiny_run import assert_refused, run_cli, save_tiny, write_task

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "sparsebert" / "recipes"
TEXTS = {file: file.read_text(encoding="utf-8") for file in sorted(SHIPPED.glob("*.yaml"))}
RECIPES = [file for file, text in TEXTS.items() if "phases:" in text and "kind: pretrain" not in text]
# Those of other kinds are run in the tests of their commands.
OTHERS = [file for file in TEXTS if file not in RECIPES]
TRAINED = """
schema: 1
task: mine
sparsity: 0.5
phases:
  - name: prune
    training: {max_steps: 4, batch_size: 16, learning_rate: 1.0e-3}
    rules: [{every: {steps: 1}}]
measure: {timed: false}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    save_tiny(folder / "base", "base")
    write_task(folder / "data")
    (folder / "trained.yaml").write_text(TRAINED, encoding="utf-8")
    return folder


def test_every_recipe_is_run():
    assert len(RECIPES) == 31 and len(OTHERS) == 7


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe(file: Path, home: Path):
    plain = load_recipe(file)
    steps = [f"phases.{index}.training.max_steps=3" for index in range(len(plain.phases))]
    small = ["dense.max_steps=3", "measure.timed=false"]
    given = {"model": str(home / "base"), "task": "mine", "data": str(home / "data")}
    recipe = load_recipe(file, [*steps, *small], **given)
    folder = home / "runs" / file.stem
    record = run(recipe, folder, "test")
    result = record.models[-1]
    assert (record.kind, record.status, result.name) == ("train", "finished", "sparse")
    assert [phase.steps for phase in result.phases.values()] == [3] * len(plain.phases)
    taught = any(phase.teacher == "dense" for phase in plain.phases)
    assert (record.models[0].name == "dense") == (taught or plain.baseline)
    assert (result.sparsity_by_tensor and result.timeline == ()) or result.timeline
    logits = load_file(folder / PREDICTIONS)["sparse/validation/logits"]
    assert logits.shape == (40, 2) and np.isfinite(logits).all()
    model = load_model(folder / "sparse")
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def trained(home: Path, name: str, *settings: str) -> Path:
    given = {"model": str(home / "base"), "data": str(home / "data")}
    folder = home / name
    run(load_recipe(home / "trained.yaml", list(settings), **given), folder, "test")
    return folder


def test_all_seeds_see_the_same_rows_unless_told_otherwise(home):
    file = Path(shutil.copy(home / "data" / "train.csv", home / "alone.csv"))

    def held_out(setting: str) -> list[str]:
        recipe = load_recipe(None, [setting], model=str(home / "base"), task="mine", data=str(file))
        return set_up(recipe, home / "nothing").task.validation["text_a"][:]

    assert held_out("seed=0") == held_out("seed=1") != held_out("data_seed=1")


def test_a_phase_can_learn_from_attention_maps(home):
    with_maps = trained(home, "maps", "phases.0.teacher=dense", "phases.0.distill.attention=1", "dense.max_steps=3")
    without = trained(home, "no-maps", "phases.0.teacher=dense", "dense.max_steps=3")
    one, other = (load_file(folder / PREDICTIONS)["sparse/validation/logits"] for folder in (with_maps, without))
    assert not np.array_equal(one, other)
    said = run_cli("compress", home / "base", "--speedup", "2", "--set", "distill.attention=1")
    assert_refused(said, ["distill.attention is for phases"])


def test_a_sparse_file_is_packed_unless_told_otherwise(home):
    packed, plain = trained(home, "packed"), trained(home, "plain", "packed=false")
    assert (packed / "sparse" / "packed.safetensors").is_file() and not (
        packed / "sparse" / "model.safetensors"
    ).exists()
    one, two = load_model(packed / "sparse"), load_model(plain / "sparse")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    [result] = read_record(packed).models
    on_disk = (packed / "sparse" / "packed.safetensors").stat().st_size
    assert result.size.weight_bytes > 1.1 * on_disk
    assert family_rows(families([read_record(packed)]))[0].size_mb == Value(on_disk / 1e6)
    bytes_saved = result.sparsity.bytes_on_disk
    assert bytes_saved > 0.1 > abs(read_record(plain).models[0].sparsity.bytes_on_disk)


def test_a_model_without_a_teacher_is_timed_against_the_one_it_started_from(home):
    folder = trained(home, "timed", "measure.timed=true", "measure.rounds=3")
    record = read_record(folder)
    assert [model.name for model in record.models] == ["sparse"]
    for timing in record.models[0].timings:
        # Of a model with itself, every ratio is 1.
        assert (timing.speedup_q25, timing.speedup, timing.speedup_q75) != (1.0, 1.0, 1.0)
    assert record.models[0].output_difference is None


def test_a_sweep_is_ordinary_runs_and_skips_what_is_finished(home, tmp_path):
    common = ("--model", home / "base", "--data", home / "data", "-o", tmp_path / "sweep")
    arguments = ("sweep", home / "trained.yaml", *common, "--grid", "sparsity=0:0.8:0.4", "--seeds", 2)
    said = run_cli(*arguments)
    assert said.exit_code == 0, said.output
    names = [f"sparsity={value}_seed={seed}" for value in ("0.0", "0.4", "0.8") for seed in (0, 1)]
    records = {name: read_record(tmp_path / "sweep" / name) for name in names}
    assert {record.status for record in records.values()} == {"finished"}
    assert not (tmp_path / "sweep" / names[0] / "sparse").exists()
    [curve] = curves(list(records.values()))
    assert [point.asked for point in curve.points] == [0.0, 0.4, 0.8]
    assert [point.sparsity.mid for point in curve.points] == pytest.approx([0, 0.4, 0.8], abs=0.01)
    scores = [records[f"sparsity=0.4_seed={seed}"].models[0].scores[0].value for seed in (0, 1)]
    assert curve.points[1].score.mid == pytest.approx(100 * sum(scores) / 2)
    before = {name: (tmp_path / "sweep" / name / "record.json").stat().st_mtime_ns for name in names}
    again = run_cli(*arguments, pictures=True)
    assert again.exit_code == 0 and again.stderr.count("(done)") == 6
    assert "Score against sparsity" in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "sweep" / "plots" / "curves.png").is_file()
    assert before == {name: (tmp_path / "sweep" / name / "record.json").stat().st_mtime_ns for name in names}
    said = run_cli("compare", tmp_path / "sweep", "--resamples", 100, "--json")
    found = json.loads(said.stdout)
    assert [one["seeds"] for one in found] == [2, 2] and all(one["paired"] for one in found)


def test_a_sweep_drops_only_models_of_points_that_it_ran_and_makes_those_again_that_are_asked_for(home, tmp_path):
    common = ("--model", home / "base", "--data", home / "data", "-o", tmp_path / "sweep")
    arguments, model = ("sweep", home / "trained.yaml", *common), tmp_path / "sweep" / "seed=0" / "sparse"
    assert run_cli(*arguments).exit_code == 0 and not model.exists()
    kept = run_cli(*arguments, "--keep-models")
    assert "(done)" not in kept.stderr and model.is_dir()
    again = run_cli(*arguments)
    assert "(done)" in again.stderr and model.is_dir()


def test_points_of_a_sweep_share_their_teacher(home, tmp_path):
    common = ("--model", home / "base", "--data", home / "data", "-o", tmp_path / "sweep", "--keep-models")
    teacher = ("phases.0.teacher=dense", "dense.max_steps=3")
    given = (item for setting in teacher for item in ("--set", setting))
    said = run_cli("sweep", home / "trained.yaml", *common, *given, "--grid", "sparsity=0.4,0.8")
    assert said.exit_code == 0, said.output
    first, second = (tmp_path / "sweep" / f"sparsity={point}_seed=0" for point in ("0.4", "0.8"))
    assert (second / "dense" / "model.safetensors").samefile(first / "dense" / "model.safetensors")
    others = set(read_record(second).notes) - set(read_record(first).notes)
    # Each also says by its own score whether it is any good.
    [taken] = [note for note in others if "no better than" not in note and "predicts one class" not in note]
    assert taken.endswith("settings: work/teacher, dense, work/dense.json")
    assert not (tmp_path / "sweep" / "common").exists()
    one, two = (
        load_file(folder / PREDICTIONS) for folder in (trained(home, "whole", "sparsity=0.8", *teacher), second)
    )
    assert one.keys() == two.keys() and all(np.array_equal(value, two[name]) for name, value in one.items())


def test_a_point_that_fails_does_not_stop_the_others(home, tmp_path):
    common = ("--model", home / "base", "--data", home / "data", "-o", tmp_path / "sweep")
    said = run_cli("sweep", home / "trained.yaml", *common, "--grid", "phases.0.training.learning_rate=0.001,1e+12")
    assert said.exit_code == 2 and "1 of 2 points failed" in said.stderr
    assert read_record(tmp_path / "sweep" / "learning-rate=0.001_seed=0").status == "finished"
    failed = tmp_path / "sweep" / "learning-rate=1e+12_seed=0"
    assert read_record(failed).status == "failed"
    (failed / "work").mkdir(exist_ok=True)
    (failed / "work" / "begun").touch()
    with (failed / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = run_cli("sweep", home / "trained.yaml", *common, "--grid", "phases.0.training.learning_rate=0.001,1e+12")
    assert "Another command is working" in said.stderr and (failed / "work" / "begun").is_file()


def test_a_point_that_is_refused_leaves_nothing(home, tmp_path):
    common = ("--model", home / "base", "--data", home / "data", "-o", tmp_path / "sweep")
    grid = ("--grid", "phases.0.rules.0.structure=element,head", "--set", "phases.0.rules.0.scope=[ffn]")
    said = run_cli("sweep", home / "trained.yaml", *common, *grid)
    assert said.exit_code == 2
    assert "1 of 2 points failed" in said.stderr and "has no heads" in said.stderr
    assert read_record(tmp_path / "sweep" / "structure=element_seed=0").status == "finished"
    assert not (tmp_path / "sweep" / "structure=head_seed=0").exists()


def test_axes():
    assert axis("sparsity=0:0.9:0.3") == Axis("sparsity", (0.0, 0.3, 0.6, 0.9))
    assert axis("task=mrpc,sst2") == Axis("task", ("mrpc", "sst2"))
    assert axis("sparsity=0.5,0.9") == Axis("sparsity", (0.5, 0.9))
    assert axis("scope=[ffn],[all]") == Axis("scope", (["ffn"], ["all"]))
    assert axis("structure={kind: block, rows: 4},head") == Axis("structure", ({"kind": "block", "rows": 4}, "head"))
    file = SHIPPED / "random.yaml"
    names = [point.name for point in points(file, [], [axis("sparsity=0.5,0.9"), axis("phases.0.name=a,b")], range(2))]
    assert names[:3] == ["sparsity=0.5_name=a_seed=0", "sparsity=0.5_name=b_seed=0", "sparsity=0.9_name=a_seed=0"]
    assert len(set(names)) == 8
    scopes = points(file, [], [axis("phases.0.rules.0.scope=[ffn],[attention, ffn]")], [0])
    assert [point.recipe.phases[0].rules[0].scope for point in scopes] == [("ffn",), ("attention", "ffn")]


BAD_SWEEPS = {
    "sparsity": "must look like KEY=A,B,C",
    "sparsity=0:1": "sparsity: Input should be a valid number",
    "sparsity=0.9:0:0.1": "upwards",
    "sparsity=a:b:c": "must be numbers",
    "sparsety=0.5,0.6": "Did you mean 'sparsity'",
    "phases.3.name=a": "'3' is no entry of a list of 1",
    "sparsity=0.5,1.5": "less than 1",
    "sparsity=0:1:nan": "must go upwards",
    "sparsity=0:0.5:inf": "must go upwards",
    "phases.0.rules.0.scope=[a": "The values of a grid are not YAML",
    "seed=5": "give --seeds N",
    "model=a/b,a-b": "would share a folder; got model=a-b_seed=0",
    "name=Base,base": "would share a folder",
}


@pytest.mark.parametrize("grid", BAD_SWEEPS)
def test_a_bad_grid_is_refused_before_anything_is_written(grid: str, home, tmp_path):
    said = run_cli("sweep", home / "trained.yaml", "--grid", grid, "-o", tmp_path / "out")
    assert_refused(said, [BAD_SWEEPS[grid]])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("setting", "words"), [("seed=5", "give --seeds N"), ("sparsity=0.8", "leave one of them")])
def test_a_value_that_the_grid_or_the_seeds_would_override_is_refused(setting: str, words: str, home, tmp_path):
    said = run_cli("sweep", home / "trained.yaml", "--grid", "sparsity=0.5", "--set", setting, "-o", tmp_path / "out")
    assert_refused(said, [words])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_is_refused(home):
    folder = trained(home, "alone")
    with pytest.raises(UserError, match="only one model"):
        differences(contenders([folder]), 100, 0)
    with pytest.raises(UserError, match="same examples"):
        differences([contender("a", 0.8), contender("b", 0.8, rows=300)], 100, 0)
    with pytest.raises(UserError, match="No record found"):
        contenders([home / "data"])
    with pytest.raises(UserError, match="have the same seed"):
        contenders([folder, folder])
    (folder / PREDICTIONS).unlink()
    with pytest.raises(UserError, match="has no predictions"):
        contenders([folder])


def test_train_without_phases_and_compress_with_them_are_refused(home):
    assert_refused(run_cli("train", home / "base", "--data", home / "data", "--task", "mine"), ["no phases"])
    said = run_cli("compress", home / "base", "--recipe", home / "trained.yaml", "--data", home / "data")
    assert_refused(said, ["has phases", "sparsebert train"])


RULE = "phases.0.rules.0"
LATER = "{kind: linear, initial: 0.3, final: 0, stop: {steps: 80}}"
LATE = "{kind: linear, initial: 0, final: 1, stop: {steps: 90}}"
AGAIN = "phases=[{name: one, rules: [{}]}, {name: two, rules: [{schedule: linear, initial: %s, sparsity: 0.8}]}]"
BAD_RULES = {
    "matches nothing": f"{RULE}.scope=[atention]",
    "n weights of every m": f"{RULE}.structure={{kind: 'n:m', n: 5, m: 4}}",
    "An n:m pattern decides its sparsity itself": f"{RULE}.structure={{kind: 'n:m', n: 3, m: 4}}",
    "do not divide": f"{RULE}.structure={{kind: block, rows: 5, cols: 5}}",
    "stops before it starts": f"{RULE}.start={{percent: 95}}",
    "needs a gate": f"{RULE}.penalty=l0",
    "goes on after the training ends": f"{RULE}.penalty={{kind: l1, weight: {LATE}}}",
    "goes on after the training ends; got start 0, stop 90": (
        f"{RULE}={{gate: hard_concrete, penalty: {{kind: l0, weight: {LATE}}}}}"
    ),
    "goes on after the training ends; got start 0, stop 80": (
        f"{RULE}={{schedule: constant, stop: {{percent: 100}}, update: {{kind: swap, fraction: {LATER}}}}}"
    ),
    "Weights cannot go back": f"{RULE}.update={{kind: rewind, to: {{percent: 60}}}}",
    "target is under the current sparsity; got 0.4": AGAIN % 0.4,
}


@pytest.mark.parametrize("said", BAD_RULES)
def test_bad_rules_are_refused_before_the_teacher_is_trained(said: str, home, tmp_path):
    arguments = ("train", home / "base", "--recipe", home / "trained.yaml", "--data", home / "data")
    teacher = ("--set", "phases.0.teacher=dense", "--set", "dense.max_steps=3", "-o", tmp_path / "out")
    assert_refused(run_cli(*arguments, *teacher, "--set", BAD_RULES[said]), [said])
    assert not (tmp_path / "out").exists()


def test_the_rehearsal_of_a_phase_has_as_many_steps_as_its_training(home):
    """64 rows in batches of 24 are 3 steps an epoch, and 1.5 epochs 5 steps."""
    training = "phases.0.training={epochs: 1.5, batch_size: 24}"
    record = read_record(trained(home, "counted", training, f"{RULE}.stop={{epochs: 1.6}}"))
    assert record.models[-1].phases["prune"].steps == 5
    for late in ("epochs: 2", "steps: 6"):
        given = {"model": str(home / "base"), "data": str(home / "data")}
        recipe = load_recipe(home / "trained.yaml", [training, f"{RULE}.stop={{{late}}}"], **given)
        with pytest.raises(UserError, match=r"stop 6 \(steps\); allowed: at most 5,"):
            check_phases(set_up(recipe, home / "nothing"))


def test_a_phase_may_go_on_from_the_sparsity_of_the_last(home):
    folder = trained(home, "again", AGAIN % 0.5, "phases.0.training.max_steps=2", "phases.1.training.max_steps=2")
    assert read_record(folder).models[-1].sparsity.encoder_linear == pytest.approx(0.8, abs=0.01)


def test_a_lost_phase_is_trained_again_with_all_after_it_unless_they_are_done(home):
    settings = (AGAIN % 0.5, "phases.0.training.max_steps=2", "phases.1.training.max_steps=2")
    work = trained(home, "lost", *settings) / "work"
    done = [work / folder / "done.json" for folder in ("phase0-one", "phase1-two")]
    before = [file.stat().st_mtime_ns for file in done]
    (work.parent / FILE_NAME).unlink()
    shutil.rmtree(work / "phase0-one" / "model")
    trained(home, "lost", *settings)
    assert before == [file.stat().st_mtime_ns for file in done]
    (work.parent / FILE_NAME).unlink()
    shutil.rmtree(work / "phase1-two" / "model")
    trained(home, "lost", *settings)
    assert all(file.stat().st_mtime_ns > time for file, time in zip(done, before, strict=True))


@pytest.mark.parametrize("command", ["train", "fff", "sweep"])
def test_every_command_that_trains_takes_the_columns_of_own_data(home, tmp_path, command: str):
    model = ("--model", home / "base", home / "trained.yaml") if command == "sweep" else (home / "base",)
    recipe = ("--recipe", home / "trained.yaml") if command == "train" else ()
    data = ("--task", "mine", "--data", home / "data")
    columns = ("--text-column", "label", "--label-column", "text", "--kind", "regression")
    said = run_cli(command, *model, *recipe, *data, *columns, "-o", tmp_path / "out")
    assert said.exit_code == 2
    assert "column 'text', row 1: the label of a regression must be a finite number" in " ".join(said.stderr.split())


@pytest.fixture(scope="module")
def runs(home: Path) -> list[Path]:
    """Three that differ in what they aim at."""
    settings = ("phases.0.teacher=dense", "dense.max_steps=3", "phases.0.distill.hidden=0")
    return [trained(home, f"compared-{part}", *settings, f"sparsity={part}") for part in (0.3, 0.6, 0.9)]


def test_runs_are_compared_by_their_last_models(runs):
    def compared(*options: object) -> list[tuple[str, str]]:
        said = run_cli("compare", *options, "--resamples", 100, "--json")
        assert said.exit_code == 0, said.output
        return [(one["against"], one["name"]) for one in json.loads(said.stdout)]

    first = "trained, sparsity=0.3: "
    assert compared(*runs) == [(f"{first}sparse", f"trained, sparsity={part}: sparse") for part in (0.6, 0.9)]
    assert compared(*runs[:2], "--model", "dense") == [(f"{first}dense", "trained, sparsity=0.6: dense")]
    assert compared(runs[0]) == [("dense", "sparse")]
    assert_refused(run_cli("compare", *runs, "--model", "sparce"), ["Unknown model 'sparce'", "Did you mean 'sparse'"])


def test_failed_runs_are_left_out_of_a_comparison_aloud(runs, tmp_path):
    runs = [Path(shutil.copytree(one, tmp_path / one.name)) for one in runs]
    record = read_record(runs[2])
    write_record(record.model_copy(update={"status": "failed", "models": (), "message": "the disk was full"}), runs[2])
    refused = run_cli("compare", runs[2])
    assert refused.exit_code == 2 and f"error: There is no finished run; got {runs[2]}." in refused.stderr
    assert run_cli("compare", *runs, "--resamples", 100).exit_code == 0
    (runs[0].parent / "both").mkdir()
    for run_folder in runs[1:]:
        run_folder.rename(runs[0].parent / "both" / run_folder.name)
    said = run_cli("compare", runs[0], runs[0].parent / "both", "--resamples", 100)
    assert said.exit_code == 0 and "compared-0.9 failed and is left out: the disk was full" in said.stderr


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_aims_at_its_sparsity_but_the_one_whose_penalty_decides(file: Path):
    notes = unused_targets(load_recipe(file))
    assert len(notes) == (2 if file.stem == "proposal-l0" else 0)


def test_a_rule_that_aims_at_no_sparsity_says_so(home):
    soft = "{gate: soft_movement, penalty: {kind: %s}}"
    rules = f"phases.0.rules=[{soft % 'l0'}]"
    record = read_record(trained(home, "no-aim", rules))
    assert any("Rule 1 of phase 'prune' does not aim at a sparsity: soft_movement with l0" in n for n in record.notes)
    with_target = f"phases.0.rules=[{soft % 'lagrangian'}]"
    assert unused_targets(load_recipe(home / "trained.yaml", [with_target])) == ()
    assert unused_targets(load_recipe(home / "trained.yaml", ["phases.0.rules=[{gate: hard_concrete}]"])) != ()
