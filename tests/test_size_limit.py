"""`max_size` and small targets of size: bytes are met, by fewer bits first, and what cannot be had is said."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedModel

from sparsebert.errors import UnreachableError
from sparsebert.measurement.setting import Setting
from sparsebert.models.load import saved_part
from sparsebert.models.sentence import KEY, SentenceVector
from sparsebert.models.source import disk_bytes
from sparsebert.models.storage import AS_TRAINED, Packing, bytes_each, stored_as
from sparsebert.models.surgeon import shrink
from sparsebert.pruning import targets
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found
from sparsebert.pruning.targets import Goal, byte_table, meet, packing_for_size
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.schema import Search, Target
from sparsebert.records import ModelResult, Stored, read_record
from sparsebert.reports import families, family_table
from sparsebert.runs.dense import Recovering
from sparsebert.runs.size_limit import Fitted, Limit, fit, least_part, limit_for
from sparsebert.runs.sparse_model import packings_of, save_made, stored_bytes
from tiny import tiny_model
from tiny_run import QUICK, SPECIAL, WORDS, assert_refused, run_cli, save_tiny, write_task
from toy import toy_collate, toy_rows

MODEL = tiny_model("bert", num_labels=2, hidden_size=64, intermediate_size=256, vocab_size=400)


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    return calibrate(MODEL, MODEL, toy_rows(16), toy_collate, "magnitude", 16, 8, seed=0)


def goal(kind: str, value: float, **recipe: Any) -> Goal:
    search = Search(candidates=3, drop_layers=recipe.pop("drop_layers", True))
    target = Target.model_validate({"kind": kind, "value": value})
    return Goal(target, CompressRecipe(search=search, **recipe), Setting(1, 8), MODEL, MODEL, MODEL)


def no_table(_: PreTrainedModel) -> CostTable:
    raise AssertionError("what is counted needs no latency table")


def as_pairs(packings: tuple[Packing, ...]) -> list[tuple[str | None, str | None]]:
    return [(one.weights, one.embeddings) for one in packings]


@pytest.mark.parametrize(
    ("given", "even", "expected"),
    [
        ({}, False, [(None, None), ("bf16", "bf16"), ("int8", "int8"), ("int8", "int4"), ("int4", "int4")]),
        ({}, True, [(None, None), ("bf16", "bf16")]),
        ({"weights": "bf16"}, False, [("bf16", "bf16"), ("bf16", "int8"), ("bf16", "int4")]),
        ({"weights": "bf16"}, True, [("bf16", "bf16")]),
        ({"weights": "int4"}, False, [("int4", "int4")]),
        ({"embedding_weights": "int4"}, False, [(None, "int4"), ("bf16", "int4"), ("int8", "int4"), ("int4", "int4")]),
        ({"weights": "int8", "embedding_weights": "bf16"}, False, [("int8", "bf16")]),
    ],
)
def test_what_the_user_gave_stays_and_the_rest_gets_coarser(given: dict[str, Any], even: bool, expected: list[Any]):
    found = packings_of(CompressRecipe(**given), even)
    assert as_pairs(found) == expected
    sizes = [sum(one.numel() * bytes_each(MODEL, how)[name] for name, one in MODEL.named_parameters()) for how in found]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_bytes_that_are_said_are_those_of_a_saved_folder(tmp_path: Path):
    model = tiny_model("bert", "embeddings", **{KEY: SentenceVector(("mean",), normalize=True).plain()})
    for number, packing in enumerate((*packings_of(CompressRecipe(), False), Packing(None, "int4"))):
        for kind, one in (("labels", MODEL), ("vectors", model)):
            save_made(one, None, tmp_path / f"{kind}{number}", packing)
            assert stored_bytes(one, packing, tmp_path) == disk_bytes(tmp_path / f"{kind}{number}")
            layers, tables = packing.weights or "float32", packing.embeddings or packing.weights or "float32"
            assert stored_as(saved_part(one), tmp_path / f"{kind}{number}") == Stored(weights=layers, embeddings=tables)
    assert len([*tmp_path.iterdir()]) == 12


def test_a_size_out_of_reach_in_float32_keeps_half_of_the_layers_in_fewer_bits(calibrated: Calibrated):
    """Of a model whose tables are 30,016 and whose layers are 150,000 or so weights: which form is taken where."""
    packings = packings_of(CompressRecipe(), False)
    dense = 4 * sum(one.numel() for one in MODEL.parameters())

    def half(packing: Packing) -> float:
        """The part of the bytes in which just half of the layers' bytes may stay."""
        table = byte_table(replace(goal("size", 0.5), packing=packing))
        layers = sum(table.cost(layer.units) for layer in calibrated.layout.layers)
        return (table.fixed + layers / 2) / dense

    least = byte_table(goal("size", 0.5)).fixed / dense
    assert packing_for_size(goal("size", least + 0.02), packings, calibrated) == packings[0]
    assert least > half(packings[2]) > half(packings[3]) > half(packings[4])
    for place in (2, 3, 4):
        chosen = packing_for_size(goal("size", half(packings[place]) + 1e-4), packings, calibrated)
        assert chosen == packings[place]
    # Where no form leaves half, the coarsest one leaves most.
    assert packing_for_size(goal("size", half(packings[4]) - 1e-3), packings, calibrated) == packings[4]


def fitted(asked: Goal, calibrated: Calibrated, scratch: Path, dense: int) -> tuple[Limit | None, Fitted[Any]]:
    limit, packing = limit_for(asked, calibrated, dense)

    def build(found: Found) -> Any:
        return SimpleNamespace(small=assemble(MODEL, calibrated.candidates, found.choices, asked.recipe.even))

    def search(one: Goal) -> tuple[Found, float]:
        return meet(one, no_table, calibrated, lambda choices: sum(choice.error for choice in choices))

    return limit, fit(replace(asked, packing=packing), limit, search, build, scratch)


def test_random_parts_are_met_by_the_finest_form_that_fits(calibrated: Calibrated, tmp_path: Path):
    draw, dense = random.Random(3), stored_bytes(MODEL, AS_TRAINED)
    packings, forms = packings_of(CompressRecipe(), False), set()
    least = least_part(MODEL, CompressRecipe(), packings[-1], dense)
    for part in (*(draw.uniform(least, 0.8) for _ in range(5)), least + 1e-4, 0.15):
        limit, made = fitted(goal("sparsity", 0.2, max_size=part), calibrated, tmp_path, dense)
        assert limit is not None and limit.most <= part * dense
        sizes = {one: stored_bytes(made.built.small, one) for one in packings}
        assert sizes[made.packing] <= part * dense
        finer = packings[: packings.index(made.packing)]
        assert all(sizes[one] > part * dense for one in finer) or made.cut_further
        assert made.achieved >= 0.2 and made.cut_further == (made.achieved > 0.3)
        forms.add(made.packing)
    assert len(forms) > 2


def test_random_sizes_are_met_and_nearly_used(calibrated: Calibrated, tmp_path: Path):
    draw, dense = random.Random(4), stored_bytes(MODEL, AS_TRAINED)
    least = byte_table(goal("size", 0.5)).fixed / dense
    for part in (draw.uniform(0.1, least - 0.01) for _ in range(3)):
        limit, made = fitted(goal("size", part), calibrated, tmp_path, dense)
        assert limit is not None and limit.is_target and not made.cut_further
        whole, taken = stored_bytes(MODEL, made.packing), stored_bytes(made.built.small, made.packing)
        assert min(whole, 0.9 * part * dense) <= taken <= part * dense


@pytest.mark.parametrize("even", [False, True])
def test_speed_is_what_was_asked_for_or_more(
    calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, even: bool
):
    # Time is of heads alone, so that what is fast may still be large.
    table = CostTable({"head": {0: 0.0, 4: 40.0}, "neuron": {0: 0.0, 256: 4.0}}, layer=1.0, fixed=10.0)
    dense = stored_bytes(MODEL, AS_TRAINED)

    def timed(dense: object, small: PreTrainedModel, *args: object) -> tuple[float, float]:
        cost = sum(table.cost(layer.units) for layer in targets.layout_of(small).layers)
        return 135 / cost, 10 + cost

    monkeypatch.setattr(targets, "measure_pair", timed)
    asked = goal("speedup", 1.4, max_size=0.3 if even else 0.12, even=even)
    limit, packing = limit_for(asked, calibrated, dense)

    def build(found: Found) -> Any:
        return SimpleNamespace(small=assemble(MODEL, calibrated.candidates, found.choices, even))

    def search(one: Goal) -> tuple[Found, float]:
        return meet(one, lambda _: table, calibrated, lambda choices: sum(choice.error for choice in choices))

    made = fit(replace(asked, packing=packing), limit, search, build, tmp_path)
    assert made.cut_further and made.achieved > 1.4 * 0.98
    assert made.packing == (Packing("bf16", "bf16") if even else Packing("int4", "int4"))
    assert stored_bytes(made.built.small, made.packing) <= asked.recipe.max_size * dense


def test_whole_layers_are_as_few_as_there_is_room_for(calibrated: Calibrated, tmp_path: Path):
    dense = stored_bytes(MODEL, AS_TRAINED)
    two, three = (stored_bytes(shrink(MODEL, {}, range(count, 3)), Packing("int4", "int4")) / dense for count in (2, 3))
    asked = goal("sparsity", 0.05, max_size=(two + three) / 2, shape="layers", weights="int4")
    _, made = fitted(asked, calibrated, tmp_path, dense)
    assert sum(not choice.dropped for choice in made.found.choices) == 2 and made.cut_further
    with pytest.raises(UnreachableError, match=r"No shape was found for sparsity 0\.05"):
        fitted(goal("sparsity", 0.05, max_size=0.02, shape="layers"), calibrated, tmp_path, dense)


# Whole runs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("limit")
    save_tiny(found / "model", hidden_size=64, intermediate_size=256, vocab_size=400)
    write_task(found / "data")
    return found


def command(home: Path, out: str, *options: object) -> tuple[object, ...]:
    task = ("--task", "mine", "--data", home / "data", "-o", home / out, "--set", "measure.timed=false")
    return ("compress", home / "model", *task, *QUICK, *options)


def made_by(home: Path, out: str, *options: object) -> tuple[list[ModelResult], str]:
    said = run_cli(*command(home, out, *options))
    assert said.exit_code == 0, said.output
    return list(read_record(home / out).models), said.stdout


def part(dense: ModelResult, small: ModelResult) -> float:
    return small.size.file_bytes / dense.size.file_bytes


def test_record_table_and_card_say_how_each_member_is_stored(home: Path):
    (dense, first, second), said = made_by(
        home, "two", "--sparsity", 0.2, "--sparsity", 0.6, "--max-size", 0.24, "--set", "finetune.max_steps=2"
    )
    assert dense.stored == Stored(weights="float32", embeddings="float32")
    assert first.stored == Stored(weights="int8", embeddings="int4")
    assert second.stored == Stored(weights="int8", embeddings="int8")
    assert all(0.1 < part(dense, one) <= 0.24 for one in (first, second))
    listed = "dense float32; 0.2-sparsity int8, tables of embeddings int4; 0.6-sparsity int8."
    assert f"In the file, and float32 in memory: {listed}" in " ".join(said.split())
    assert "Note: 0.2-sparsity is stored in int8, tables of embeddings in int4, so that its file is small" in said
    record = read_record(home / "two")
    wide = family_table(families([record]))
    assert "Stored" in [column.text for column in wide.columns]
    card = (home / "two" / "0.2-sparsity" / "README.md").read_text(encoding="utf-8")
    assert "weights are in int8 and tables of embeddings in int4" in card
    # The next member is cut out of what was trained, before it was rounded.
    assert (home / "two" / "work" / "0.2-sparsity" / "exact" / "model.safetensors").is_file()


def test_an_interrupted_run_stores_its_member_as_it_was_planned(home: Path, monkeypatch: pytest.MonkeyPatch):
    options = ("--sparsity", 0.2, "--max-size", 0.12, "--set", "finetune.max_steps=2")
    with monkeypatch.context() as patched:
        patched.setattr(Recovering, "train", lambda *args: 1 / 0)
        assert isinstance(run_cli(*command(home, "again", *options)).exception, ZeroDivisionError)
        patched.undo()
        # It was found before, so that nothing is searched again.
        patched.setattr("sparsebert.runs.compress.meet", no_table)
        (dense, small), said = made_by(home, "again", *options)
    assert small.stored == Stored(weights="int4", embeddings="int4") and part(dense, small) <= 0.12
    assert "has a smaller shape than its target alone asks for" in said


def test_entries_that_go_count_too(home: Path):
    options = ("--vocabulary", "auto", "--sparsity", 0.2, "--max-size", 0.23, "--no-finetune")
    (dense, vocabulary, small), _ = made_by(home, "vocabulary", *options)
    assert vocabulary.stored == dense.stored and vocabulary.vocabulary is not None
    assert vocabulary.vocabulary.entries == len(SPECIAL) + len(WORDS)
    # With all entries it would have to be coarser: see the test of two members.
    assert small.stored == Stored(weights="int8", embeddings="int8") and part(dense, small) <= 0.23


def test_a_small_size_is_made_in_fewer_bits_and_a_large_one_as_before(home: Path):
    (dense, large, small), said = made_by(home, "size", "--size", 0.6, "--size", 0.1, "--no-finetune")
    assert large.stored == dense.stored and 0.55 < part(dense, large) < 0.63
    assert small.stored == Stored(weights="int4", embeddings="int4") and 0.09 < part(dense, small) <= 0.1
    assert "0.1-size is stored in int4, so that its file is small enough" in said and "smaller shape" not in said


def test_what_cannot_be_met_is_said_before_anything_is_made(home: Path):
    for options, words in (
        (("--sparsity", 0.5, "--max-size", 0.01), ["max_size 0.01 cannot be met; allowed: the nearest reachable"]),
        (("--size", 0.01), ["The target size 0.01 cannot be met", "would help: --vocabulary auto."]),
        (("--sparsity", 0.5, "--max-size", 0.03, "--weights", "bf16"), ["--weights int4"]),
        (("--sparsity", 0.5, "--max-size", 0.05, "--even"), ["no --even, so that weights may be in int8 or int4"]),
        (("--vocabulary", "auto", "--max-size", 0.5), ["max_size is of models with a target"]),
        (("--max-size", 0.5), ["Nothing to do: no target"]),
        (("--sparsity", 0.5, "--max-size", 1.5), ["max_size"]),
    ):
        assert_refused(run_cli(*command(home, "refused", *options)), words)
        assert not (home / "refused").exists()


def test_the_nearest_that_is_said_can_be_had(home: Path):
    said = run_cli(*command(home, "refused", "--sparsity", 0.5, "--max-size", 0.01, "--no-finetune"))
    nearest = said.stderr.split("is about ")[1].split(";")[0]
    (dense, small), _ = made_by(home, "nearest", "--sparsity", 0.5, "--max-size", nearest, "--no-finetune")
    assert part(dense, small) <= float(nearest)
