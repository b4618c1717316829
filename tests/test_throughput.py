"""Tokens a second and utilisation, by products that are counted by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from sparsebert.models.presets import new_model, preset_config
from sparsebert.tasks.kind import IGNORED
from sparsebert.training.throughput import Throughput, flops_per_token, peak_flops

ROWS, LENGTH, HIDDEN, NEURONS, LAYERS, WORDS = 4, 16, 128, 512, 2, 50
CPU = torch.device("cpu")


def batch(predicted: int) -> dict[str, torch.Tensor]:
    """Rows of which the first tokens are predicted."""
    ids = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH) % WORDS
    labels = torch.where(torch.arange(LENGTH) < predicted, ids, torch.full_like(ids, IGNORED))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


# A token's products with the matrices of a layer, and with the keys and values of its row.
BLOCKS = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * NEURONS + 2 * LENGTH * HIDDEN)
HEAD = HIDDEN * WORDS


@pytest.mark.parametrize("predicted", [4, 16])
@pytest.mark.parametrize(
    ("preset", "head"),
    [
        ("crammed-tiny", lambda share: share * HEAD),
        ("bert-tiny", lambda share: HIDDEN * HIDDEN + HEAD),
    ],
)
def test_operations_of_a_step_are_those_of_its_products(preset: str, head, predicted: int) -> None:
    model = new_model(preset_config(preset, WORDS, LENGTH), seed=0)
    before = torch.random.get_rng_state()
    found = flops_per_token(model, batch(predicted))
    assert found == pytest.approx(3 * 2 * (BLOCKS + head(predicted / LENGTH)))
    assert not model.training and torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_log_says_what_was_reached_since_its_last_entry(tmp_path, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("sparsebert.training.throughput.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("sparsebert.training.throughput.peak_flops", lambda *_: 1000.0)
    args, state, control = TrainingArguments(str(tmp_path), use_cpu=True), TrainerState(), TrainerControl()
    counter = Throughput(flops_per_token=2.0, bf16=False, device=CPU, processes=2)
    state.num_input_tokens_seen = 500
    assert counter.facts(state) == {"tokens": 500}
    counter.on_train_begin(args, state, control)
    for moment, seen, rate in ((110.0, 1500, 100.0), (112.0, 2500, 500.0)):
        now[0], logs = moment, {"loss": 1.0}
        state.num_input_tokens_seen = seen
        state.log_history.append(dict(logs))
        counter.on_log(args, state, control, logs)
        assert logs == state.log_history[-1] == {"loss": 1.0, "tokens_per_second": rate, "utilisation": rate / 1000}
    logs = {"eval_loss": 1.0}
    counter.on_log(args, state, control, logs)
    assert logs == {"eval_loss": 1.0}
    assert counter.facts(state) == {"tokens": 2500, "tokens_per_second": 166.7, "utilisation": 0.1667}


def test_the_peak_is_that_of_a_product() -> None:
    assert 1e9 < peak_flops(torch.float32, CPU) < 1e13
