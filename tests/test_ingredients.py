"""Arms of a comparison: which recipe is the base, what differs, and what each ingredient is worth, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from example_record import HEADS, LAYERS, NEURONS, example_record, train_record
from sparsebert.cli.options import shipped
from sparsebert.recipe.load import load_recipe
from sparsebert.records import PREDICTIONS, Record, Shape, write_record
from sparsebert.reports import families
from sparsebert.reports.ingredient_tables import component_table, ingredient_table
from sparsebert.reports.ingredients import Arm, arms, base_of, comparable
from sparsebert.reports.page import write_report
from tiny_run import assert_refused, run_cli

ROWS = 200
DENSE_RIGHT = 180
# Heads and neurons of a layer that stay: half and a quarter.
SHAPE = Shape(
    heads=(12, 6, 6, 6, 6, 0),
    neurons=(1536, 384, 384, 0, 0, 0),
    full_heads=HEADS,
    full_neurons=NEURONS,
)
ARMS: dict[str, tuple[dict[str, Any], int]] = {
    "proposal-activation": ({"criterion": "mean_activation"}, 164),
    "proposal-base": ({}, 160),
    "proposal-l1": ({"penalty": {"kind": "l1", "weight": 0.5}}, 158),
    "proposal-sigmoid": ({"schedule": "sigmoid", "stop": {"percent": 50}}, 161),
}


def arm_record(name: str, seed: int, sparsity: float = 0.5, only: str = "", right: int | None = None) -> Record:
    """A dense model right on 180 of 200 rows, and a sparse one right on what ARMS says, less one for a later seed."""
    own, usual = ARMS.get(name, ({}, 150))
    rules = [{"structure": "head", "scope": ["attention"]} | own, {"structure": "neuron", "scope": ["ffn"]} | own]
    rules = [rule for rule in rules if only in ("", rule["structure"])]
    phases = [{"name": "prune", "rules": rules}]
    # The example's phases are others than the recipe's here.
    record = train_record(seed, sparsity, phases=[{"name": "warm"}, *phases], name=name)
    plain = record.recipe | {
        "phases": train_record(seed, sparsity, phases=[*phases, {"name": "warm"}]).recipe["phases"]
    }
    dense = example_record().models[0]
    share = ((usual if right is None else right) - seed) / ROWS
    [made] = record.models
    score = made.scores[0].model_copy(update={"value": share, "examples": ROWS})
    made = made.model_copy(update={"scores": (score,), "shape": SHAPE, "phases": {"warm": made.phases["warm"]}})
    before = dense.scores[0].model_copy(update={"value": DENSE_RIGHT / ROWS, "examples": ROWS})
    models = (dense.model_copy(update={"scores": (before,)}), made)
    return record.model_copy(update={"models": models, "recipe": plain})


def all_arms(seeds: int = 2) -> list[Arm]:
    return arms(families([arm_record(name, seed) for name in ARMS for seed in range(seeds)]))


def test_the_base_is_what_the_others_differ_least_from_and_stands_first():
    found = all_arms()
    assert [arm.label for arm in found] == [
        "proposal-base",
        "proposal-activation",
        "proposal-l1",
        "proposal-sigmoid",
    ]
    assert [arm.settings for arm in found] == [
        (),
        ("criterion: magnitude → mean_activation",),
        ("penalty: none → l1 (weight 0.5)",),
        ("schedule: cubic → sigmoid", "stop: 70 percent → 50 percent"),
    ]


def test_every_recipe_of_the_proposal_differs_from_the_base_in_one_ingredient():
    """The same budget, rate, target and model for all; a gate of its own comes with its penalty."""
    names = [name for name in shipped() if name.startswith("proposal-")]
    records = [
        arm_record("proposal-base", 0).model_copy(update={"recipe": load_recipe(name).plain() | {"name": name}})
        for name in names
    ]
    found = {arm.label: {one.split(":")[0] for one in arm.settings} for arm in arms(families(records))}
    assert found == {
        "proposal-base": set(),
        "proposal-activation": {"criterion"},
        "proposal-gradient": {"criterion"},
        "proposal-group": {"penalty"},
        "proposal-heads": {"without neuron"},
        "proposal-l0": {"gate", "penalty"},
        "proposal-l0-target": {"gate", "penalty"},
        "proposal-l1": {"penalty"},
        "proposal-neurons": {"without head"},
        "proposal-reactivate": {"gate"},
        "proposal-sigmoid": {"schedule"},
    }


def test_what_only_one_component_has_is_said_once():
    records = [arm_record("proposal-base", 0), arm_record("proposal-heads", 0, only="head")]
    [base, heads] = arms(families(records))
    assert base.label == "proposal-base" and heads.settings == ("without neuron",)


def test_change_worth_and_cost_by_hand():
    base, activation, *_ = all_arms()
    # 160 and 159 of 200 right, against 180 dense; the other 164 and 163.
    assert base.worth is None and activation.worth is not None and base.change is not None
    assert base.row.score_points is not None and base.row.score_points.mid == pytest.approx(79.75)
    assert (base.change.mid, base.change.low, base.change.high) == pytest.approx((-10.25, -10.5, -10))
    assert (activation.worth.mid, activation.worth.low, activation.worth.high) == pytest.approx((2, 2, 2))
    # Half of the encoder is five tenths.
    assert base.cost is not None and (base.cost.low, base.cost.high) == pytest.approx((2.0, 2.1))


def test_seeds_that_only_one_arm_has_say_nothing_of_worth():
    [_, other] = arms(families([arm_record("proposal-base", 0), arm_record("proposal-l1", 1)]))
    assert other.worth is None


def test_little_that_is_removed_has_no_cost():
    [arm, _] = arms(families([arm_record("proposal-base", 0, 0.01), arm_record("proposal-l1", 0, 0.5)]))
    assert arm.cost is None


def test_the_table_says_what_differs_and_what_it_is_worth():
    table = ingredient_table(all_arms(seeds=3))
    dense, base, row, *_ = table.sections[0].rows
    assert [cell.text for cell in dense] == ["dense", "–", "22.7 M", "90.8 MB", "1.00×", "90.0%", "–", "–", "–"]
    assert (base[0].text, base[7].text, row[0].text) == ("proposal-base", "–", "proposal-activation")
    assert row[0].small == "criterion: magnitude → mean_activation; n = 3"
    assert [row[place].text for place in (1, 6, 7)] == ["50.0%", "−8.5", "+2.0"]
    assert not any("another sparsity" in note for note in table.notes)
    off = arms(families([arm_record("proposal-base", 0), arm_record("proposal-l1", 0, 0.7)]))
    assert any(
        "another sparsity than the base" in note and "proposal-l1." in note for note in ingredient_table(off).notes
    )


def test_what_is_left_by_layer():
    table = component_table(all_arms())
    assert table is not None
    cells = [(cell.text, cell.small) for cell in table.sections[0].rows[0][1:]]
    # 36 of 72 heads; 2304 of 9216 neurons.
    assert cells == [
        ("50.0%", "25.0%"),
        ("100.0%", "100.0%"),
        *[("50.0%", "25.0%")] * 2,
        *[("50.0%", "0.0%")] * 2,
        ("0.0%", "0.0%"),
    ]
    assert len(table.columns) == LAYERS + 2


@pytest.mark.parametrize("kind", ["one", "without dense", "other task", "compress"])
def test_what_is_no_comparison_has_no_table(kind: str):
    pair = [arm_record("proposal-base", 0), arm_record("proposal-l1", 0)]
    records = {
        "one": pair[:1],
        "without dense": [pair[0], pair[1].model_copy(update={"models": pair[1].models[1:]})],
        "other task": [pair[0], pair[1].model_copy(update={"task": "cola"})],
        "compress": [example_record(), example_record(criterion="magnitude")],
    }[kind]
    assert not comparable(families(records)) and comparable(families(pair))


def test_a_report_of_several_arms_has_both_tables(tmp_path: Path):
    records = [arm_record(name, 0) for name in ARMS]
    page = write_report(records, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Ingredients</h2>" in page and "criterion: magnitude → mean_activation" in page
    assert "<h2>What is left of heads and neurons</h2>" in page
    alone = write_report(records[:1], tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "<h2>Ingredients</h2>" not in alone


def write_arms(folder: Path, seeds: int = 3, **numbers: int) -> Path:
    """Runs with predictions that give the scores of their records: right on the first rows, wrong on the others."""
    labels = np.arange(ROWS) % 2
    for name in ARMS:
        for seed in range(seeds):
            record = arm_record(name, seed, right=numbers.get(name.split("-")[1]))
            place = folder / f"{name}_seed={seed}"
            place.mkdir(parents=True)
            write_record(record, place)
            logits = {}
            for model in record.models:
                count = round(model.scores[0].value * ROWS)
                guess = np.where(np.arange(ROWS) < count, labels, 1 - labels)
                logits[f"{model.name}/validation/logits"] = np.eye(2, dtype=np.float32)[guess]
            save_file({"validation/labels": labels, **logits}, place / PREDICTIONS)
    return folder


def test_one_command_judges_every_ingredient(tmp_path: Path):
    runs = write_arms(tmp_path / "runs", activation=178)
    said = run_cli("compare", runs, "--ingredients", "--resamples", 400, "--json")
    assert said.exit_code == 0, said.output
    base, activation, l1, _ = json.loads(said.stdout)
    assert base["recipe"] == "proposal-base" and "worth" not in base
    assert base["change"]["points"] == pytest.approx(-10.5) and base["change"]["high"] < 0
    worth = activation["worth"]
    assert worth["points"] == pytest.approx(9) and 0 < worth["low"] < 9 < worth["high"]
    assert (worth["seeds"], worth["paired"]) == (3, True)
    assert l1["worth"]["points"] == pytest.approx(-1) and l1["worth"]["p_corrected"] > worth["p_corrected"]


def test_the_command_prints_both_tables_and_verdicts(tmp_path: Path):
    said = run_cli("compare", write_arms(tmp_path / "runs", activation=178), "--ingredients", "--resamples", 400)
    assert said.exit_code == 0, said.output
    assert "criterion: magnitude → mean_activation" in " ".join(said.stdout.split())
    assert "proposal-activation: against dense: " in said.stdout and "; against the base: better" in said.stdout
    assert "Layer 6" in said.stdout and "proposal-base: against dense: worse" in said.stdout


@pytest.mark.parametrize(("options", "words"), [((), "two recipes or more"), (("--model", "sparse"), "leave one")])
def test_what_cannot_be_judged_is_refused(options: tuple[str, ...], words: str, tmp_path: Path):
    runs = write_arms(tmp_path / "runs")
    given = runs if options else runs / "proposal-base_seed=0"
    assert_refused(run_cli("compare", given, "--ingredients", *options), [words])


def test_base_of_two_is_the_first():
    groups = families([arm_record("proposal-l1", 0), arm_record("proposal-base", 0)])
    assert base_of(groups).label == "proposal-l1"
