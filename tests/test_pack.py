"""Packed files: exact, small, loaded by the Auto classes, and refused where they are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from sparsebert.errors import UserError
from sparsebert.models import shrunk
from sparsebert.models.load import load_model, save_model
from sparsebert.models.pack import pack, packed_bytes, read_packed, unpack, write_packed
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import shrink
from sparsebert.recipe.storing import Weights
from test_shrunk import FAMILIES
from tiny import tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny


def sparse(rows: int, columns: int, sparsity: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    return (values * (torch.rand(rows, columns, generator=generator) >= sparsity)).to(dtype)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    st.integers(0, 9),
)
def test_what_goes_in_comes_out(rows: int, columns: int, sparsity: float, dtype: torch.dtype, seed: int):
    tensors = {"w": sparse(rows, columns, sparsity, seed, dtype), "b": torch.randn(columns), "n": torch.arange(3)}
    stored, contents = pack(tensors)
    found = unpack(stored, contents)
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    assert sum(t.numel() * t.element_size() for t in stored.values()) <= sum(
        t.numel() * t.element_size() for t in tensors.values()
    )


@pytest.mark.parametrize(
    ("sparsity", "form"),
    [(0.0, "dense"), (0.02, "dense"), (0.5, "bitmask"), (0.9, "bitmask"), (0.99, "rows"), (1.0, "rows")],
)
def test_the_smallest_form_is_taken(sparsity: float, form: str):
    _, contents = pack({"w": sparse(64, 512, sparsity)})
    assert contents["w"]["form"] == form


@pytest.mark.parametrize(("how", "bits"), [(None, 32), ("bf16", 16), ("int8", 8.25), ("int4", 4.25)])
def test_nine_tenths_of_zeros_in_the_shapes_of_bert(how: Weights | None, bits: float):
    shapes = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
    tensors = {str(index): sparse(*shape, 0.9, index) for index, shape in enumerate(shapes)}
    part = packed_bytes(tensors, {name: how for name in tensors if how}) / sum(4 * t.numel() for t in tensors.values())
    assert part == pytest.approx((1 + 0.1 * bits) / 32, abs=0.001)


def test_bfloat16_rounds_to_nearest_even_and_only_matrices():
    tensors = {"w": torch.tensor([[1.00390625, 0.0, 1.01171875]]), "b": torch.tensor([1.00390625])}
    found = unpack(*pack(tensors, {"w": "bf16"}))
    assert found["w"].tolist() == [[1.0, 0.0, 1.015625]] and found["w"].dtype == torch.float32
    assert torch.equal(found["b"], tensors["b"])


def test_bfloat16_rounds_what_is_wider_and_leaves_the_type():
    value = 1.00390625
    for dtype, expected in ((torch.float64, 1.0), (torch.float32, 1.0), (torch.float16, value)):
        found = unpack(*pack({"w": torch.tensor([[value, 0.0]], dtype=dtype)}, {"w": "bf16"}))["w"]
        assert found.dtype == dtype and found.tolist() == [[expected, 0.0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_through_the_auto_classes(family: str, tmp_path):
    model = tiny_model(family, num_labels=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(torch.rand_like(parameter) > 0.8)
    small = shrink(model, {})
    save_model(small, None, tmp_path / "packed", Packing())
    assert [file.name for file in (tmp_path / "packed").glob("*.safetensors")] == ["packed.safetensors"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "packed")
    assert type(loaded) is type(small) and loaded.name_or_path == str(tmp_path / "packed")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in small.state_dict().items())
    again = load_model(tmp_path / "packed")
    assert torch.equal(again(**tiny_batch()).logits, model.eval()(**tiny_batch()).logits)
    loaded.save_pretrained(tmp_path / "plain")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in small.state_dict().items())


def test_base_and_language_models_too(tmp_path):
    for task, auto in (("base", AutoModel), ("masked_lm", AutoModelForMaskedLM)):
        small = shrink(tiny_model("bert", task), {})
        save_model(small, None, tmp_path / task, Packing())
        loaded, report = auto.from_pretrained(tmp_path / task, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in small.state_dict().items())
    tied = AutoModelForMaskedLM.from_pretrained(tmp_path / "masked_lm")
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def test_a_head_that_shares_the_table_of_tokens_is_rounded_as_it_is(tmp_path: Path):
    save_tiny(tmp_path / "model", "masked_lm")
    said = run_cli("pack", tmp_path / "model", "-o", tmp_path / "packed", "--weights", "int8")
    assert said.exit_code == 0, said.output
    found = load_model(tmp_path / "packed")
    assert torch.equal(found.get_input_embeddings().weight, found.get_output_embeddings().weight)


def test_plain_weights_beside_packed_ones_win(tmp_path):
    small = shrink(tiny_model("bert", num_labels=2), {})
    save_model(small, None, tmp_path / "both", Packing())
    with torch.no_grad():
        small.classifier.bias.fill_(7)
    small.save_pretrained(tmp_path / "both")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "both").classifier.bias[0].item() == 7


def test_damage_is_named(tmp_path):
    file = tmp_path / "packed.safetensors"
    write_packed({"w": sparse(8, 64, 0.5)}, file)
    content = file.read_bytes()
    file.write_bytes(content[:-9])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_packed(file)
    stored, contents = pack({"w": sparse(8, 64, 0.5)})
    stored["w:values"] = stored["w:values"][:-1]
    with pytest.raises(UserError, match="do not fit together: w has"):
        unpack(stored, contents)
    del stored["w:mask"]
    with pytest.raises(UserError, match="do not fit together"):
        unpack(stored, contents)
    save_tiny(tmp_path / "model")
    with pytest.raises(UserError, match="is not packed"):
        read_packed(tmp_path / "model" / "model.safetensors")
    with pytest.raises(UserError, match="A stock model has no packed form"):
        save_model(tiny_model("bert"), None, tmp_path / "out", Packing())
    assert not (tmp_path / "out").exists() and file.name == shrunk.PACKED_FILE


def test_the_command_packs_checks_and_unpacks(tmp_path):
    folder = save_tiny(tmp_path / "model")
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(torch.rand_like(parameter) > 0.9)
    model.save_pretrained(folder)
    said = run_cli("pack", folder, "-o", tmp_path / "packed", "--json")
    found = json.loads(said.stdout)
    assert found["exact"] and found["bytes_after"] < 0.6 * found["bytes_before"]
    assert found["encoder_packed_part"] <= 0.16 and found["encoder_zeros"] == pytest.approx(0.9, abs=0.02)
    said = run_cli("pack", folder, "-o", tmp_path / "half", "--weights", "bf16")
    assert said.exit_code == 0 and "weights rounded" in said.stdout and "0.0 MB" not in said.stdout
    assert run_cli("pack", tmp_path / "packed", "-o", tmp_path / "plain", "--unpack").exit_code == 0
    one, two = load_model(folder), load_model(tmp_path / "plain")
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert (tmp_path / "plain" / "tokenizer.json").is_file()
    assert_refused(run_cli("pack", folder, "-o", tmp_path / "packed"), ["exists already"])


def test_the_same_weights_give_the_same_bytes(tmp_path: Path):
    weights = {"a": torch.eye(8), "b": torch.ones(3)}
    for number in range(16):
        write_packed(weights, tmp_path / str(number))
    assert len({(tmp_path / str(number)).read_bytes() for number in range(16)}) == 1
