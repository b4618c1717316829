"""`sparsebert fff`: FFF conversion, block-wise distillation and training beside controls, found again, and shown."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from sparsebert.counts import flops
from sparsebert.fast_feedforward.convert import trees_of
from sparsebert.fast_feedforward.layer import FastFeedForward, Routing
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_model
from sparsebert.models.surgeon import convert_ffn
from sparsebert.records import Record, read_record, write_record
from sparsebert.reports import as_html
from sparsebert.reports.maps import describe
from sparsebert.reports.trees import level_table, tree_table
from tiny import HIDDEN, LAYERS, NEURONS, tiny_model
from tiny_run import QUICK, assert_refused, run_cli, save_tiny, write_task

SHORT = (*QUICK, "--set", "trees.steps=30", "--set", "trees.examples=32")
TWO = ("--trees", 2, "--depth", 2, "--set", "finetune.max_steps=4")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("fff")
    return SimpleNamespace(folder=folder, tuned=save_tiny(folder / "tuned"), data=write_task(folder / "data"))


def fff(home: SimpleNamespace, name: str, *options: object, pictures: bool = False):
    given = ("--task", "mine", "--data", home.data, "-o", home.folder / name, *SHORT, *options)
    return run_cli("fff", home.tuned, *given, pictures=pictures)


@pytest.fixture(scope="module")
def whole(home) -> tuple[Path, Record, str]:
    said = fff(home, "whole", *TWO, pictures=True)
    assert said.exit_code == 0, said.output
    return home.folder / "whole", read_record(home.folder / "whole"), said.stdout


def test_the_record_has_the_trees_and_their_controls(whole):
    _, record, _ = whole
    assert (record.kind, record.status) == ("fff", "finished")
    assert [model.name for model in record.models] == ["dense", "fff-2x2", "dense-6", "no-ffn"]
    assert [set(model.shape.neurons) for model in record.models] == [{NEURONS}, {0}, {6}, {0}]
    for model in record.models[1:]:
        assert model.training.steps == 4 and model.training.teacher
        assert model.one_shot_scores and model.scores and model.timings
    fits = record.models[1].trees
    assert [(fit.layer, fit.name) for fit in fits] == [(layer, "2x2") for layer in range(LAYERS)]
    for fit in fits:
        assert fit.error > 0 and 0 <= fit.dead < 1
        assert len(fit.entropy) == len(fit.agreement) == len(fit.chance) == 3
        assert fit.entropy[0] == fit.agreement[0] == fit.chance[0] == 1
    assert not any(model.trees for model in record.models if model.name != "fff-2x2")


def test_the_visits_of_every_node_are_kept(whole):
    folder, record, _ = whole
    visits = load_file(folder / "visits.safetensors")
    assert set(visits) == {f"layer.{layer}.tree.{tree}" for layer in range(LAYERS) for tree in range(2)}
    for fit in record.models[1].trees:
        trees = [visits[f"layer.{fit.layer}.tree.{tree}"] for tree in range(2)]
        assert all(len(tree) == 7 and int(tree[1:3].sum()) == int(tree[3:].sum()) == int(tree[0]) > 0 for tree in trees)
        assert fit.dead == pytest.approx(sum(int((tree == 0).sum()) for tree in trees) / 14)
        assert len(fit.dead_subtrees) == 3 and fit.dead_subtrees[0] == 0
        assert fit.dead_subtrees[1] == sum(int((tree[1:3] == 0).sum()) for tree in trees) / 2


def test_all_models_load_with_the_auto_classes(whole):
    folder, record, _ = whole
    for result in record.models:
        model = AutoModelForSequenceClassification.from_pretrained(folder / result.folder)
        trees = [module for module in model.modules() if isinstance(module, FastFeedForward)]
        assert len(trees) == (LAYERS if result.name == "fff-2x2" else 0)


def test_the_report_shows_them(whole):
    folder, record, said = whole
    assert "Fast feedforward layers, error after block-wise distillation" in said and "2x2" in said
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Fast feedforward layers" in page and "nodes that no token visits" in page
    assert describe(record.models[1]).startswith("layer 1: 4 heads, fast feedforward 2x2; layer 2")
    html = as_html(tree_table([record]))
    assert html.count("<tr") >= LAYERS + 1
    fit = record.models[1].trees[1]
    assert f"<span>{sum(fit.dead_subtrees):g}</span>" in html
    dead, even, *_ = level_table([record]).sections
    assert [cell.text for cell in dead.rows[1]] == ["2", *(f"{one:g}" for one in fit.dead_subtrees)]
    assert [cell.text for cell in even.rows[1]] == ["2", *(f"{one:.2f}" for one in fit.entropy)]


def test_the_pictures_of_the_trees_are_there_if_the_visits_are(whole, tmp_path: Path):
    folder, record, _ = whole
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count(", tree 1: 7 nodes") == page.count(", tree 2: 7 nodes") == LAYERS
    assert "Who visits which node" in page and (folder / "plots" / "visits.png").is_file()
    alone = tmp_path / "run"
    write_record(record, alone)
    assert run_cli("report", alone, pictures=True).exit_code == 0
    bare = (alone / "report.html").read_text(encoding="utf-8")
    assert "Fast feedforward layers" in bare and "Who visits which node" not in bare
    (alone / "visits.safetensors").write_bytes(b"short")
    assert_refused(
        run_cli("report", alone / "record.json", pictures=True), ["visits.safetensors is damaged or cut short"]
    )
    (alone / "visits.safetensors").write_bytes((folder / "visits.safetensors").read_bytes())
    assert run_cli("report", alone / "record.json", pictures=True).exit_code == 0
    again = (alone / "report.html").read_text(encoding="utf-8")
    assert again.count(", tree 2: 7 nodes") == LAYERS


def test_a_finished_run_is_found_again(home, whole):
    before = {file: file.stat().st_mtime_ns for file in (home.folder / "whole" / "work").rglob("*.json")}
    again = fff(home, "whole", *TWO, pictures=True)
    assert again.exit_code == 0
    assert before == {file: file.stat().st_mtime_ns for file in (home.folder / "whole" / "work").rglob("*.json")}
    assert_refused(fff(home, "whole", *TWO, "--set", "trees.trees=1"), ["another recipe; different: trees.trees"])


def test_some_layers_and_the_depth_by_itself(home):
    said = fff(home, "some", "--layer", 1, "--no-controls", "--no-finetune")
    assert said.exit_code == 0, said.output
    record = read_record(home.folder / "some")
    # 24 neurons a block: a tree of depth 3 has 15, one of depth 4 has 31.
    assert [model.name for model in record.models] == ["dense", "fff-1x4"]
    assert record.models[1].shape.neurons == (NEURONS, 0, NEURONS)
    assert record.models[1].training is None and [fit.layer for fit in record.models[1].trees] == [1]


def test_a_control_keeps_the_other_layers_whole(home):
    said = fff(home, "control", "--layer", 0, "--depth", 1, "--no-finetune")
    assert said.exit_code == 0, said.output
    shapes = [model.shape.neurons for model in read_record(home.folder / "control").models]
    assert shapes == [(NEURONS,) * 3, (0, NEURONS, NEURONS), (2, NEURONS, NEURONS), (0, NEURONS, NEURONS)]


def test_routing_of_the_recipe_is_distilled_trained_and_kept(home):
    losses = []
    for name, weight in {"plain": 0, "hardened": 100}.items():
        wanted = ("trees.soft=true", f"trees.hardening={weight}", "finetune.max_steps=4", "finetune.save_steps=2")
        settings = [part for setting in wanted for part in ("--set", setting)]
        said = fff(home, name, "--depth", 2, "--no-controls", "--set", "measure.timed=false", *settings)
        assert said.exit_code == 0, said.output
        [result] = [model for model in read_record(home.folder / name).models if model.trees]
        losses.append(result.training.final_loss)
        for folder in (f"work/{result.name}/one-shot", result.folder):
            trees = trees_of(load_model(home.folder / name / folder)).values()
            assert [tree.routing for tree in trees] == [Routing(soft=True, hardening=weight)] * LAYERS
    # A hundred times the entropy of shares of about a half (0.69), in each of three layers.
    assert losses[0] < 20 and losses[1] == pytest.approx(losses[0] + 100 * LAYERS * math.log(2), rel=0.3)


def test_flops_count_what_is_on_the_path():
    # Query, key, value and output, and two products of tokens with tokens: the same in both models.
    dense, tokens = tiny_model("bert"), 2 * 8
    torch.manual_seed(0)
    tree = convert_ffn(dense, depth=3, trees=2)
    assert "neuron" not in layout_of(tree).layers[0].groups
    less = LAYERS * 4 * tokens * HIDDEN * (NEURONS - 2 * 4)
    assert flops(dense, 2, 8) - flops(tree, 2, 8) == less


BAD = {
    "There is no such layer with a feedforward block; got [7]; allowed: [0, 1, 2]": ("--layer", 7),
    "trees.depth: Input should be less than or equal to 20": ("--set", "trees.depth=30"),
    "got trees.balance=.nan": ("--set", "trees.balance=.nan"),
    "got trees.hardening=.inf": ("--set", "trees.hardening=.inf"),
    "trees.hardening: Input should be greater than or equal to 0": ("--set", "trees.hardening=-0.5"),
    "Unknown recipe key 'max_drop'": ("--set", "max_drop=1"),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input(home, said: str):
    assert_refused(fff(home, "bad", *BAD[said]), [said])
    assert not (home.folder / "bad").exists()


def test_recipes_go_to_their_command(home, tmp_path: Path):
    file = tmp_path / "trees.yaml"
    file.write_text("task: mine\ntrees: {depth: 2}\n", encoding="utf-8")
    assert_refused(run_cli("compress", home.tuned, "--recipe", file), ["has trees", "use `sparsebert fff`"])
    file.write_text("task: mine\n", encoding="utf-8")
    assert_refused(run_cli("fff", home.tuned, "--recipe", file), ["The recipe has no trees", "give --trees or --depth"])
