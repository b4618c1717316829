"""Weights in 8 and 4 bits: the nearest level, scales of the least error, zeros kept, and the same again when loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from sparsebert.errors import UserError
from sparsebert.models.load import load_model, save_model
from sparsebert.models.pack import METADATA, pack, packed_bytes, read_packed, unpack, write_packed
from sparsebert.models.rounding import to_codes
from sparsebert.models.storage import Packing, rounding_of
from sparsebert.models.surgeon import convert_ffn, shrink
from sparsebert.recipe.storing import LEVELLED, Weights
from test_pack import sparse
from test_shrunk import FAMILIES
from tiny import tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny


def there_and_back(values: torch.Tensor, how: Weights) -> torch.Tensor:
    return unpack(*pack({"w": values}, {"w": how}))["w"]


def test_int8_is_the_nearest_of_levels_without_a_zero():
    # The largest is 127.5, so that the scale is 1 and the levels are halves.
    found = there_and_back(torch.tensor([[127.5, -127.5, 0.001, -0.001, 1.2, -1.2, 0.0, 99.9]]), "int8")
    assert found.tolist() == [[127.5, -127.5, 0.5, -0.5, 1.5, -1.5, 0.0, 99.5]]


def test_int4_is_exact_where_weights_are_levels():
    levels = torch.tensor([[-2.733, -0.1284, 0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]])
    assert torch.equal(there_and_back(levels, "int4"), levels)
    # The first of two codes lies in the lower bits; codes count levels from the lowest, and what is left over is 0.
    codes = to_codes(torch.tensor([-2.733, 2.733, 0.1284]), "int4")["values"]
    assert codes[0].item() == 0 + 15 * 16 and codes[1].item() % 16 == 8


def test_a_scale_is_sought_that_errs_less_than_the_largest_weight_would():
    group = torch.cat([torch.full((63,), 0.3), torch.tensor([1.0])])[None]
    error = (there_and_back(group, "int4") - group).square().sum()
    scale = torch.tensor(1 / 2.733).bfloat16().float()
    levels = scale * torch.tensor([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733])
    by_largest = (levels[(levels - group[..., None]).abs().argmin(-1)] - group).square().sum()
    assert error < 0.2 * by_largest


@pytest.mark.parametrize(("how", "most"), [("int8", 4e-5), ("int4", 0.0085)])
def test_the_error_of_normally_distributed_weights(how: Weights, most: float):
    values = torch.randn(64, 640, generator=torch.Generator().manual_seed(0))
    error = (there_and_back(values, how) - values).square().mean()
    # Max's table says 0.0095 of sixteen levels of one scale for all; a scale for 64 weights knows more.
    assert 0.5 * most < error < most


@given(
    st.integers(1, 40),
    st.integers(1, 90),
    st.sampled_from([0.0, 0.002, 0.3, 0.9, 0.99, 1.0]),
    st.sampled_from(LEVELLED),
    st.sampled_from([1e-44, 1e-30, 1.0, 1e30]),
    st.integers(0, 9),
)
def test_zeros_stay_and_no_other_weight_becomes_one(
    rows: int, columns: int, sparsity: float, how: Weights, size: float, seed: int
):
    values = sparse(rows, columns, sparsity, seed) * size
    stored, contents = pack({"w": values}, {"w": how})
    found = unpack(stored, contents)["w"]
    assert torch.equal(found == 0, values == 0) and torch.equal(found.sign(), values.sign())
    assert torch.equal(there_and_back(values, how), found) and found.dtype == torch.float32
    if size == 1.0:
        assert (found - values).abs().max() <= (1 / 100 if how == "int8" else 0.4) * values.abs().max()


@pytest.mark.parametrize(
    ("sparsity", "form"), [(0.0, "dense"), (0.001, "holes"), (0.5, "bitmask"), (0.9, "bitmask"), (0.995, "rows")]
)
@pytest.mark.parametrize("how", LEVELLED)
def test_codes_lie_in_the_smallest_form(sparsity: float, form: str, how: Weights):
    values = sparse(64, 512, sparsity)
    if sparsity == 0.001:
        values = torch.ones(64, 512).index_fill(1, torch.tensor([7]), 0.0)[:, :512]
        values[1:, 7] = 1
    stored, contents = pack({"w": values}, {"w": how})
    assert contents["w"] == {"form": form, "shape": [64, 512], "dtype": "float32", "numbers": how}
    assert torch.equal(unpack(stored, contents)["w"] == 0, values == 0)


def test_what_a_weight_takes():
    values = {"w": torch.ones(64, 64)}
    assert packed_bytes(values, {"w": "int8"}) == 64 * 64 + 64 * 2
    assert packed_bytes(values, {"w": "int4"}) == 64 * 32 + 64 * 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", LEVELLED)
def test_every_family_loads_as_it_was_rounded(family: str, how: Weights, tmp_path: Path):
    small = shrink(tiny_model(family, num_labels=2), {})
    save_model(small, None, tmp_path / "packed", Packing(how))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "packed")
    again = load_model(tmp_path / "packed")
    expected = unpack(*pack(small.state_dict(), rounding_of(small, Packing(how))))
    assert loaded.dtype == torch.float32
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in expected.items())
    assert torch.equal(again(**tiny_batch()).logits, loaded.eval()(**tiny_batch()).logits)
    changed = {name for name, value in small.state_dict().items() if not torch.equal(value, expected[name])}
    assert changed and all(small.state_dict()[name].dim() > 1 for name in changed)


def test_layers_tables_trees_and_heads_each_have_their_numbers():
    model = convert_ffn(tiny_model("bert", num_labels=2), 2)
    found = rounding_of(model, Packing("int8", embeddings="int4"))
    tables = {name for name, how in found.items() if how == "int4"}
    assert tables == {f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")}
    assert {name for name, how in found.items() if how == "bf16"} == {"bert.pooler.dense.weight", "classifier.weight"}
    assert {name.rpartition(".")[2] for name, how in found.items() if how == "int8"} == {"weight", "w_in", "w_out"}
    assert not any("norm" in name.lower() or name.endswith("bias") for name in found)
    assert rounding_of(model, Packing(embeddings="int8")) == dict.fromkeys(tables, "int8")
    assert rounding_of(model, Packing()) == {}


def test_bf16_in_a_plain_file_is_what_plain_transformers_computes_in_float32(tmp_path: Path):
    model = tiny_model("bert", num_labels=2).eval()
    save_model(model, None, tmp_path / "plain", Packing("bf16", plain=True))
    held = load_file(tmp_path / "plain" / "model.safetensors")
    assert held["bert.pooler.dense.weight"].dtype == torch.bfloat16
    assert held["bert.pooler.dense.bias"].dtype == torch.float32
    own = load_model(tmp_path / "plain")(**tiny_batch()).logits
    torch.save(tiny_batch(), tmp_path / "batch.pt")
    code = (
        "import sys, torch, transformers\n"
        "model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()\n"
        "assert 'sparsebert' not in sys.modules and model.dtype == torch.float32\n"
        "torch.save(model(**torch.load(sys.argv[2])).logits.detach(), sys.argv[3])\n"
    )
    given = [tmp_path / "plain", tmp_path / "batch.pt", tmp_path / "logits.pt"]
    subprocess.run([sys.executable, "-c", code, *map(str, given)], check=True, env=dict(os.environ, HF_HUB_OFFLINE="1"))
    assert torch.equal(torch.load(tmp_path / "logits.pt"), own)
    assert not torch.equal(own, model(**tiny_batch()).logits)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda stored: stored.pop("w:scales"), "w:scales"),
        (lambda stored: stored.update({"w:scales": stored["w:scales"][:-1]}), "3 scales of torch.bfloat16 for 4"),
        (lambda stored: stored["w:scales"].fill_(float("nan")), "a scale is not a positive number"),
        (lambda stored: stored["w:scales"].neg_(), "a scale is not a positive number"),
        (lambda stored: stored.update({"w:scales": stored["w:scales"].float()}), "4 scales of torch.float32"),
        (lambda stored: stored.update({"w:values": stored["w:values"][1:]}), "codes of"),
        (lambda stored: stored.update({"w:values": stored["w:values"].short()}), "codes of torch.int16"),
    ],
)
@pytest.mark.parametrize("how", LEVELLED)
def test_damage_is_named_in_one_line(damage, said: str, how: Weights, tmp_path: Path):
    stored, contents = pack({"w": torch.ones(4, 64)}, {"w": how})
    damage(stored)
    save_file(stored, tmp_path / "packed.safetensors", metadata={METADATA: json.dumps(contents)})
    with pytest.raises(UserError, match="do not fit together") as error:
        read_packed(tmp_path / "packed.safetensors")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_not_rounded(value: float, tmp_path: Path):
    model = shrink(tiny_model("bert", num_labels=2), {})
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] = value
    with pytest.raises(UserError, match=r"word_embeddings\.weight cannot be stored in int8: one is NaN"):
        save_model(model, None, tmp_path / "out", Packing("int8"))
    assert not (tmp_path / "out").exists()


def test_the_same_weights_give_the_same_bytes(tmp_path: Path):
    for how in LEVELLED:
        for number in range(3):
            write_packed({"a": sparse(9, 99, 0.3), "b": torch.ones(3)}, tmp_path / f"{how}{number}", {"a": how})
        assert len({(tmp_path / f"{how}{number}").read_bytes() for number in range(3)}) == 1


def test_the_command_rounds_checks_and_says_so(tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    sizes = {}
    for name, options in {
        "exact": (),
        "bf16": ("--weights", "bf16"),
        "int8": ("--weights", "int8"),
        "mixed": ("--weights", "int8", "--embedding-weights", "int4"),
        "int4": ("--weights", "int4"),
    }.items():
        said = run_cli("pack", folder, "-o", tmp_path / name, *options, "--json")
        found = json.loads(said.stdout)
        assert found["exact"] == (name == "exact")
        sizes[name] = packed_size(tmp_path / name)
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())
    said = run_cli("pack", folder, "-o", tmp_path / "said", "--weights", "int4")
    assert said.exit_code == 0 and "loads again, weights rounded" in said.stdout


def packed_size(folder: Path) -> int:
    return sum(t.numel() * t.element_size() for t in load_file(folder / "packed.safetensors").values())


def test_what_cannot_be_asked_for(tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    out = tmp_path / "out"
    assert_refused(run_cli("pack", folder, "-o", out, "--weights", "int5"), ["--weights", "int5", "bf16, int8, int4"])
    assert_refused(run_cli("pack", folder, "-o", out, "--weights", "int8", "--unpack"), ["A plain file cannot hold"])
    assert_refused(run_cli("finetune", folder, "-o", out, "--weights", "nf4"), ["weights", "nf4"])
    never = run_cli("finetune", folder, "-o", out, "--weights", "int8", "--set", "packed=false")
    assert_refused(never, ["int8 or int4 need a packed file, which `packed: false` forbids"])
    even = run_cli("compress", folder, "-o", out, "--speedup", "2", "--even", "--embedding-weights", "int4")
    assert_refused(even, ["int8 or int4 need a packed file, which `even` forbids"])
    nothing = run_cli("compress", folder, "-o", out, "--weights", "int8")
    assert_refused(nothing, ["Nothing to do", "sparsebert pack --weights"])
    assert_refused(run_cli("prune-curve", folder, "-o", out, "--set", "weights=int8"), ["weights"])
    assert not out.exists()
