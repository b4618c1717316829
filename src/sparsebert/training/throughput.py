"""How fast a training on text is: tokens a second, and its part of the fastest matrix product of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.counts import counted_flops
from sparsebert.modes import training

# Of both factors; large enough that reading them costs less than multiplying.
CPU_SIZE, GPU_SIZE = 2048, 8192
ROUNDS = 5
# The backward pass multiplies twice, for the inputs and for the weights.
PASSES = 3
TOKENS_PER_SECOND, UTILISATION = "tokens_per_second", "utilisation"


class Throughput(TrainerCallback):
    """Adds tokens per second and utilisation since the last entry to every entry of the log, of all processes.

    Utilisation is the model's own floating-point operations per second over `peak_flops` of each process. What is
    computed again or for nothing does not count; evaluations and checkpoints take time and do none. To stand before
    the loggers.
    """

    def __init__(self, flops_per_token: float, bf16: bool, device: torch.device, processes: int) -> None:
        self._flops_per_token = flops_per_token
        self._peak = processes * peak_flops(torch.bfloat16 if bf16 else torch.float32, device)
        self._start: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to count, where the training goes on."""
        self._start = self._last = (time.perf_counter(), int(state.num_input_tokens_seen))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Add to the entry, and to the history, which has a copy of it."""
        if logs is None or "loss" not in logs:
            return
        found = self._since(self._last, state)
        self._last = (time.perf_counter(), int(state.num_input_tokens_seen))
        logs.update(found)
        state.log_history[-1].update(found)

    def facts(self, state: TrainerState) -> dict[str, Any]:
        """What a TrainingRun says: all tokens, and the rest of the last start, where that had a step to take."""
        last = {} if self._start is None else self._since(self._start, state)
        return {"tokens": int(state.num_input_tokens_seen), **last}

    def _since(self, moment: tuple[float, int], state: TrainerState) -> dict[str, float]:
        seconds, tokens = time.perf_counter() - moment[0], int(state.num_input_tokens_seen) - moment[1]
        if tokens <= 0 or seconds <= 0:
            return {}
        rate = tokens / seconds
        return {TOKENS_PER_SECOND: round(rate, 1), UTILISATION: round(rate * self._flops_per_token / self._peak, 4)}


def flops_per_token(model: nn.Module, batch: Mapping[str, Any]) -> float:
    """Floating-point operations of a training step on a batch, by tokens; matrix products only, a multiply-add is two.

    The forward pass is counted, as the model trains, and the backward pass taken as twice that. No random number is
    drawn from the generators of training.
    """
    with training(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())), counted_flops() as counter:
        model(**batch)
    return PASSES * counter.get_total_flops() / batch["input_ids"].numel()


def peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a large product of square matrices here, median of a few.

    Measured once in a process, for as many threads as torch has.
    """
    return _measured_peak(dtype, device, torch.get_num_threads())


@cache
@torch.no_grad()
def _measured_peak(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    generator = torch.Generator(device).manual_seed(0)
    factors = torch.randn(2, size, size, device=device, generator=generator).to(dtype)
    found = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        product = factors[0] @ factors[1]
        float(product[0, 0])
        found.append(2 * size**3 / (time.perf_counter() - start))
    # The first one also starts what multiplies.
    return statistics.median(found[1:])
