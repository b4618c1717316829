"""Which dimensions of hidden states go, and what makes up for them: by hand, by NumPy, and on every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.models.heads import kind_of
from sparsebert.models.hidden import axes_of, narrow
from sparsebert.models.layout import layout_of
from sparsebert.pruning.hidden import (
    dimensions_kept,
    make_up,
    narrow_by_calibration,
    reading_groups,
    refit_norms,
)
from sparsebert.pruning.statistics import CalibrationBatch, CalibrationStatistics
from test_hidden import CUT
from tiny import HIDDEN, tiny_batch, tiny_model

SIZE = 24


def statistics_of(inputs: torch.Tensor, weight: torch.Tensor, centred: bool = True) -> CalibrationStatistics:
    """As a reader of `inputs` [rows, n] with this weight has them, every output counting alike."""
    none = torch.zeros(len(weight))
    return CalibrationStatistics(
        name="reader",
        width=1,
        weight=weight,
        input_norm=none,
        second=inputs.T @ inputs / len(inputs),
        mean=inputs.mean(dim=0),
        fisher=torch.eye(len(weight), dtype=torch.float64),
        activation=none,
        taylor=none,
        centred=centred,
        seed=0,
    )


def rows(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(200, count, generator=generator, dtype=torch.float64)


def test_dimensions_that_the_others_tell_go_first():
    """Of six, 1 is twice 0 plus 3, and 4 is constant: what all readers can tell from the rest costs nothing."""
    inputs = rows(6)
    inputs[:, 1] = 2 * inputs[:, 0] + 3
    inputs[:, 4] = 7
    weights = [torch.ones(2, 6, dtype=torch.float64), torch.arange(12, dtype=torch.float64).view(2, 6) + 1]
    kept = dimensions_kept([statistics_of(inputs, weight) for weight in weights], 4).tolist()
    assert 4 not in kept and len({0, 1} & set(kept)) == 1 and {2, 3, 5} < set(kept)


def left_over(inputs: torch.Tensor, weight: torch.Tensor, alive: list[int]) -> float:
    """Squared error of the best affine prediction of what a reader gives, from these dimensions alone."""
    given = (inputs @ weight.T).numpy()
    design = np.column_stack([inputs[:, alive].numpy(), np.ones(len(inputs))])
    return float(np.square(given - design @ np.linalg.lstsq(design, given, rcond=None)[0]).sum())


@pytest.mark.parametrize("seed", range(5))
def test_one_by_one_the_dimension_goes_that_costs_all_readers_together_least(seed: int):
    inputs = rows(7, seed) @ rows(7, seed + 50)[:7]
    weights = [rows(7, seed + 100 * reader)[: 2 + reader] for reader in (1, 2)]
    alive = list(range(7))
    while len(alive) > 3:
        errors = {
            gone: sum(left_over(inputs, one, [place for place in alive if place != gone]) for one in weights)
            for gone in alive
        }
        alive.remove(min(errors, key=lambda gone: errors[gone]))
    assert dimensions_kept([statistics_of(inputs, one) for one in weights], 3).tolist() == alive


@pytest.mark.parametrize("centred", [True, False])
def test_what_reads_is_made_up_by_least_squares(centred: bool):
    inputs = rows(5) @ rows(5, seed=1)[:5] + 2
    linear = nn.Linear(5, 3, bias=centred).double()
    weight = linear.weight.detach().clone()
    given = inputs @ weight.T + (linear.bias.detach() if centred else 0)
    kept = torch.tensor([0, 2, 3])
    make_up(linear, statistics_of(inputs, weight, centred), kept)
    design = inputs[:, kept].numpy()
    design = np.column_stack([design, np.ones(len(design))]) if centred else design
    best = design @ np.linalg.lstsq(design, given.numpy(), rcond=None)[0]
    found = inputs[:, kept] @ linear.weight[:, kept].T + (linear.bias if centred else 0)
    np.testing.assert_allclose(found.detach().numpy(), best, atol=2e-3 * np.abs(best).max())


def test_norms_keep_their_scale_and_mean_by_hand():
    """Tokens of one kind: the norm of a narrow model gives the same numbers as before in the dimensions that stay."""
    model = tiny_model("bert", "base", num_hidden_layers=1)
    with torch.no_grad():
        for table in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
            table.weight.zero_()
    batch = {"input_ids": torch.full((1, 4), 9), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    kept = list(range(0, HIDDEN, 2))
    norm = model.embeddings.LayerNorm
    before = norm(model.embeddings.word_embeddings.weight[9])[kept]
    axes = axes_of(model, layout_of(model))
    changed = tiny_model("bert", "base", num_hidden_layers=1)
    changed.load_state_dict(model.state_dict())
    refit_norms(changed, model, axes, torch.tensor(kept), [batch])
    small = narrow(changed, kept)
    after = small.embeddings.LayerNorm(small.embeddings.word_embeddings.weight[9])
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    plain = narrow(model, kept)
    assert (plain.embeddings.LayerNorm(plain.embeddings.word_embeddings.weight[9]) - before).abs().max() > 0.05


def test_padding_that_is_all_zeros_has_no_spread_to_fit():
    # Its embeddings add no positions, so that the norm reads nothing but the row of the padding token.
    model = tiny_model("deberta-v2", position_biased_input=False, type_vocab_size=0)
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    changed = tiny_model("deberta-v2", position_biased_input=False, type_vocab_size=0)
    changed.load_state_dict(model.state_dict())
    batch = {"input_ids": torch.tensor([[9, 8, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    refit_norms(changed, model, axes_of(model, layout_of(model)), torch.arange(SIZE), [batch])
    assert all(parameter.isfinite().all() for parameter in changed.parameters())


def batches() -> list[CalibrationBatch]:
    generator = torch.Generator().manual_seed(0)
    return [tiny_batch(seed, 5) | {"labels": torch.randint(0, 3, (5,), generator=generator)} for seed in range(20)]


def error(small: PreTrainedModel, dense: PreTrainedModel) -> float:
    """Mean square of what the hidden states of real tokens are off, in the dimensions that are left."""
    batch = tiny_batch()
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        own, whole = (model.base_model(**batch)[0][real] for model in (small, dense))
    return float((own - whole[:, small.config.kept_hidden]).square().mean())


@pytest.mark.parametrize("family", CUT)
def test_it_comes_nearer_to_the_dense_model_than_the_same_dimensions_alone(family: str):
    model = tiny_model(family)
    small = narrow_by_calibration(model, SIZE, batches(), kind_of(model), seed=0)
    assert small.config.hidden_size == len(small.config.kept_hidden) == SIZE
    plain = narrow(model, small.config.kept_hidden)
    assert error(small, model) < 0.8 * error(plain, model)


@pytest.mark.parametrize("shared", [False, True])
def test_what_reads_positions_is_no_reader_of_hidden_states(shared: bool):
    model = tiny_model("deberta-v2", share_att_key=shared)
    found = reading_groups(model, axes_of(model, layout_of(model)), batches()[0])
    local = {group.name.rpartition(".")[2] for group in found if ".self." in group.name}
    assert local == ({"value_proj"} if shared else {"query_proj", "key_proj", "value_proj"})


def test_the_head_is_a_reader_too():
    model = tiny_model("bert")
    names = [group.name for group in reading_groups(model, axes_of(model, layout_of(model)), batches()[0])]
    assert len(names) == 3 * 4 + 2 and names[-2:] == ["bert.pooler.dense", "classifier"]
