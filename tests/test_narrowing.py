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


def test_the_readers_share_one_choice():
    """The first reads dimension 0 much and 1 little, the second the other way round and four times as much."""
    readers = [torch.tensor([[2.0, 1.0]]).double(), torch.tensor([[1.0, 8.0]]).double()]
    assert dimensions_kept([statistics_of(rows(2), one) for one in readers], 1).tolist() == [1]
    assert dimensions_kept([statistics_of(rows(2), readers[0])], 1).tolist() == [0]


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
