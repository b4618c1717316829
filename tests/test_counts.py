from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.counts import Footprint, example_inputs, flops, footprint, sizes, sparsity
from sparsebert.errors import UserError
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.surgeon import shrink
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, VOCAB, tiny_model

ENCODER = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * NEURONS)
EMBEDDINGS = (VOCAB + 64 + 2) * HIDDEN
# Encoder biases and two norms a layer; the norm of the embeddings; pooler; classifier of 3 labels.
REST = LAYERS * (4 * HIDDEN + NEURONS + HIDDEN + 4 * HIDDEN) + 2 * HIDDEN + HIDDEN * (HIDDEN + 1) + 3 * (HIDDEN + 1)


def bert_flops(batch: int, length: int) -> int:
    tokens = batch * length
    attention = LAYERS * 2 * (2 * batch * HEADS * length * length * (HIDDEN // HEADS))
    return 2 * tokens * ENCODER + attention + 2 * batch * HIDDEN * HIDDEN + 2 * batch * HIDDEN * 3


def test_sizes_of_bert_by_hand() -> None:
    model = tiny_model("bert")
    found = sizes(model, encoder_linear_names(model), flops_at=(2, 8))
    assert found.encoder_linear_parameters == ENCODER
    assert found.embedding_parameters == EMBEDDINGS
    assert found.parameters == ENCODER + EMBEDDINGS + REST
    assert found.weight_bytes == 4 * found.parameters
    assert (found.flops, found.flops_batch, found.flops_length) == (bert_flops(2, 8), 2, 8)


def test_flops_are_absent_unless_asked_for() -> None:
    found = sizes(tiny_model("bert"), [])
    assert (found.flops, found.flops_batch, found.flops_length) == (None, None, None)


def test_half_precision_halves_the_bytes() -> None:
    model = tiny_model("bert")
    full = sizes(model, []).weight_bytes
    assert sizes(model.to(torch.bfloat16), []).weight_bytes == full // 2


def test_a_tied_weight_counts_once() -> None:
    model = tiny_model("bert", task="masked_lm")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    head = HIDDEN * HIDDEN + HIDDEN + 2 * HIDDEN + VOCAB
    without_pooler = REST - HIDDEN * (HIDDEN + 1) - 3 * (HIDDEN + 1)
    found = sizes(model, encoder_linear_names(model))
    assert found.parameters == ENCODER + EMBEDDINGS + without_pooler + head
    assert found.embedding_parameters == EMBEDDINGS


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flops_count_attention_whatever_runs_it(attention: str) -> None:
    assert flops(tiny_model("bert", attn_implementation=attention), 3, 16) == bert_flops(3, 16)


def test_every_family_can_be_counted() -> None:
    for family in FAMILIES:
        model = tiny_model(family)
        found = sizes(model, encoder_linear_names(model), flops_at=(1, 8))
        assert 0 < found.encoder_linear_parameters < found.parameters
        assert found.flops is not None and found.flops >= 2 * 8 * found.encoder_linear_parameters


def test_an_unknown_weight_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="nowhere"):
        sizes(tiny_model("bert"), ["nowhere.weight"])


def test_example_inputs_suit_all_models_and_follow_the_seed() -> None:
    models = [tiny_model("bert", vocab_size=50), tiny_model("roberta", pad_token_id=7)]
    inputs = example_inputs(models, 64, 40, seed=1)
    ids = inputs["input_ids"]
    assert ids.shape == inputs["attention_mask"].shape == (64, 40)
    assert set(ids.unique().tolist()) == set(range(50)) - {0, 7}
    assert bool(inputs["attention_mask"].all())
    assert torch.equal(ids, example_inputs(models, 64, 40, seed=1)["input_ids"])
    assert not torch.equal(ids, example_inputs(models, 64, 40, seed=2)["input_ids"])


@pytest.mark.parametrize(
    ("family", "pad", "longest"), [("bert", 0, 64), ("roberta", 1, 62), ("distilbert", 0, 64), ("crammed-bert", 0, 64)]
)
def test_a_length_without_positions_is_refused(family: str, pad: int, longest: int) -> None:
    model = tiny_model(family, pad_token_id=pad)
    model(**example_inputs([model], 1, longest))
    with pytest.raises(UserError, match=f"no positions for that length; got {longest + 1}; allowed: 1 to {longest}"):
        example_inputs([model], 1, longest + 1)


@pytest.mark.parametrize(("batch", "length"), [(0, 8), (8, 0)])
def test_empty_input_is_refused(batch: int, length: int) -> None:
    with pytest.raises(UserError, match=f"at least 1; got {batch} x {length}"):
        example_inputs([tiny_model("bert")], batch, length)


def test_models_without_position_embeddings_take_any_length() -> None:
    model = tiny_model("modernbert")
    assert model(**example_inputs([model], 1, 200))[0].shape == (1, 3)


def test_footprint_counts_weights_and_those_that_are_not_zero() -> None:
    model = tiny_model("bert")
    names = encoder_linear_names(model)
    full = footprint(model, names, bytes_on_disk=7)
    assert (full.encoder_linear, full.encoder_linear_nonzero) == (ENCODER, ENCODER)
    # Padding has a row of its own in the embedding, which may hold zeros; the rest of the weights are random.
    everything = sum(int((p != 0).sum()) for p in model.parameters())
    assert (full.whole_model, full.whole_model_nonzero) == (ENCODER + EMBEDDINGS + REST, everything)
    with torch.no_grad():
        model.get_parameter(names[0])[:5] = 0
    pruned = footprint(model, names, bytes_on_disk=7)
    assert (pruned.encoder_linear, pruned.encoder_linear_nonzero) == (ENCODER, ENCODER - 5 * HIDDEN)
    assert (pruned.whole_model, pruned.whole_model_nonzero) == (full.whole_model, everything - 5 * HIDDEN)
    assert pruned.bytes_on_disk == full.bytes_on_disk == 7


def test_the_three_sparsities() -> None:
    start = Footprint(100, 100, 400, 400, 1000)
    found = sparsity(start, Footprint(90, 10, 350, 300, 800))
    assert (found.encoder_linear, found.whole_model, found.bytes_on_disk) == pytest.approx((0.9, 0.25, 0.2))
    same = sparsity(start, start)
    assert (same.encoder_linear, same.whole_model, same.bytes_on_disk) == (0, 0, 0)


def test_zeros_that_were_there_before_are_sparsity_too() -> None:
    sparse = Footprint(100, 40, 400, 340, 1000)
    kept, filled = sparsity(sparse, sparse), sparsity(sparse, Footprint(100, 100, 400, 400, 1000))
    assert (kept.encoder_linear, kept.whole_model) == pytest.approx((0.6, 0.15))
    assert (filled.encoder_linear, filled.whole_model) == (0, 0)


@given(st.data())
def test_no_sparsity_of_weights_is_negative_where_nothing_was_added(data: st.DataObject) -> None:
    """Whatever was zero before or is zero after; only bytes of a file, which may be packed, can become more."""

    def some(most_encoder: int, most_rest: int) -> Footprint:
        encoder, rest = (data.draw(st.integers(1, most)) for most in (most_encoder, most_rest))
        left, others = data.draw(st.integers(0, encoder)), data.draw(st.integers(0, rest))
        return Footprint(encoder, left, encoder + rest, left + others, 1000)

    start = some(1000, 1000)
    small = some(start.encoder_linear, start.whole_model - start.encoder_linear)
    found = sparsity(start, small)
    assert 0 <= found.encoder_linear <= 1 and 0 <= found.whole_model <= 1


def test_nothing_of_an_encoder_without_matrices_is_removed() -> None:
    empty = Footprint(0, 0, 400, 400, 1000)
    assert sparsity(empty, empty).encoder_linear == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_empty_blocks_has_flops(family: str) -> None:
    model = tiny_model(family)
    small = shrink(model, {"layer.0.heads": torch.zeros(HEADS).bool(), "layer.1.neurons": torch.zeros(NEURONS).bool()})
    # Gradients are asked for, as of a model that was just trained.
    assert 0 < flops(small.requires_grad_(True), 1, 8) < flops(model, 1, 8)
