from __future__ import annotations

import copy
import functools
import gc
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from forked import RemoteCopy
from sparsebert import registry
from sparsebert.cli.bench_tables import tables
from sparsebert.counts import example_inputs
from sparsebert.errors import UserError
from sparsebert.kernels import native
from sparsebert.measurement import station
from sparsebert.measurement.bench import BenchRow, Match, bench, runtime_verdict, verdict
from sparsebert.measurement.setting import Setting
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.load import load_model
from sparsebert.records import Timing
from sparsebert.runtimes import pytorch
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.runtimes.pytorch import COMPILE, EAGER, EAGER_BF16, SPARSE, SPARSE_BF16
from sparsebert.runtimes.runtime import ready
from sparsebert.timing import Conditions, timing
from tiny import FAMILIES, tiny_model

SMALL = Setting(batch=2, length=8)
QUICK = {"rounds": 3, "min_sample_ms": 0.1, "warmup_ms": 0.0}
HAS_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None


UNSHOWN = (
    "2x is not shown to be faster or slower than dense: {}x its speed (encoder, {{}}; quartiles {}, noisy, 15 rounds)"
)


def by_name(rows: list[BenchRow]) -> dict[tuple[str, str], BenchRow]:
    return {(row.model, row.backend): row for row in rows}


def shifted(model: nn.Module, amount: float) -> nn.Module:
    """The same model with one more class score bias."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("classifier.bias")[0] += amount
    return other


def measured(speedup: float | None, low: float | None = None, high: float | None = None) -> Timing:
    plain = timing([1.0] * 15, None, Conditions("encoder", "eager", "float32", "sdpa", 1, 128, 2))
    return plain.model_copy(update={"speedup": speedup, "speedup_q25": low, "speedup_q75": high})


@pytest.fixture(scope="module")
def rows() -> Iterator[list[BenchRow]]:
    """Three models in two runtimes, each in a process of its own."""
    dense = tiny_model("bert")
    models = {"dense": dense, "same": copy.deepcopy(dense), "moved": shifted(dense, 0.5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(station, "Remote", RemoteCopy)
        yield bench(models, [SMALL, Setting(1, 16)], ["eager", "eager-bf16"], threads=1, **QUICK)


@pytest.mark.process
def test_every_model_setting_and_runtime_has_a_row(rows: list[BenchRow]) -> None:
    assert [(r.batch, r.length, r.backend, r.model) for r in rows] == [
        (batch, length, backend, model)
        for batch, length in ((2, 8), (1, 16))
        for backend in ("eager", "eager-bf16")
        for model in ("dense", "same", "moved")
    ]
    for row in rows:
        assert [t.scope for t in row.timings] == ["model", "encoder"]
        whole, encoder = row.timings
        assert 0 < encoder.median_ms < whole.median_ms
        assert whole.q25_ms <= whole.median_ms <= whole.q75_ms
        assert whole.tokens_per_s == pytest.approx(1000 * row.batch * row.length / whole.median_ms)
        assert (whole.threads, whole.attention) == (1, "sdpa") and whole.rounds in (3, 6, 9, 12)
        assert whole.dtype == {"eager": "float32", "eager-bf16": "bfloat16"}[row.backend]
        assert row.unavailable is None and row.peak_memory_mb is None
        assert row.cores == len(os.sched_getaffinity(0))
        assert row.timing("encoder") is encoder


@pytest.mark.process
def test_what_each_row_is_compared_with(rows: list[BenchRow]) -> None:
    found = by_name(rows[:6])
    baseline = found["dense", "eager"]
    assert baseline.against_baseline is baseline.against_first_backend is baseline.backend_speedup is None
    assert [t.speedup for t in baseline.timings] == [1.0, 1.0]
    same, moved = found["same", "eager"].against_baseline, found["moved", "eager"].against_baseline
    assert same is not None and (same.largest_difference, same.agreement) == (0.0, 1.0)
    assert moved is not None and moved.largest_difference == pytest.approx(0.5, abs=1e-5)
    half = found["dense", "eager-bf16"]
    assert half.against_baseline is None and half.backend_speedup is not None
    assert (half.backend_speedup_q25 or 9) <= half.backend_speedup <= (half.backend_speedup_q75 or 0)
    assert half.against_first_backend is not None and 0 < half.against_first_backend.largest_difference < 0.5
    moved_half = found["moved", "eager-bf16"].against_baseline
    assert moved_half is not None and moved_half.largest_difference == pytest.approx(0.5, abs=0.1)


@pytest.mark.process
def test_a_runtime_has_a_verdict_of_its_own(rows: list[BenchRow]) -> None:
    row = by_name(rows[:6])["dense", "eager-bf16"]
    assert runtime_verdict(rows[0], "eager") is None
    for speedup, said in {
        (
            2.0,
            1.5,
            3.0,
        ): "dense on eager-bf16 is 2.00x faster than on eager (model, batch 2, length 8; 95% interval 1.50-3.00, noisy",
        (0.5, 0.4, 0.6): "dense on eager-bf16 is slower than on eager: 0.50x its speed (model",
        (
            1.2,
            0.9,
            1.4,
        ): "dense on eager-bf16 is not shown to be faster or slower than on eager: 1.20x its speed (model",
        (1.02, 0.99, 1.04): "dense on eager-bf16 is no faster than on eager: 1.02x its speed (model",
    }.items():
        names = ("backend_speedup", "backend_speedup_low", "backend_speedup_high")
        found = runtime_verdict(row.model_copy(update=dict(zip(names, speedup, strict=True))), "eager")
        assert found is not None and found.startswith(said) and found.endswith(" rounds)")


def test_agreement_is_the_part_of_equal_predictions() -> None:
    dense = tiny_model("bert")
    predicted = dense(**example_inputs([dense], 64, 8))[0].argmax(-1)
    rows = bench({"dense": dense, "always 0": shifted(dense, 1e6)}, [Setting(64, 8)], **QUICK)
    match = rows[1].against_baseline
    expected = float((predicted == 0).float().mean())
    assert 0 < expected < 1
    assert match is not None and match.agreement == pytest.approx(expected)


def test_outputs_are_compared_on_many_sequences_however_small_the_batch() -> None:
    dense = tiny_model("bert")
    inputs = example_inputs([dense], 32, 8)
    expected = dense(**inputs)[0].detach()
    match = bench({"dense": dense, "moved": shifted(dense, 0.5)}, [Setting(1, 8)], **QUICK)[1].against_baseline
    assert match is not None and match.sequences == 32
    assert match.relative_difference == pytest.approx(0.5 / float(expected.abs().max()), rel=1e-4)
    alike = (expected + torch.tensor([0.5, 0, 0])).argmax(-1) == expected.argmax(-1)
    assert match.agreement == pytest.approx(float(alike.float().mean())) and 0 < match.agreement < 1


@pytest.mark.parametrize("model", [tiny_model("bert", task="base"), tiny_model("bert", num_labels=1)])
def test_outputs_without_classes_have_no_agreement(model: nn.Module) -> None:
    match = bench({"a": model, "b": model}, [SMALL], **QUICK)[1].against_baseline
    assert match is not None and (match.largest_difference, match.agreement) == (0.0, None)


def test_outputs_of_other_shapes_are_not_compared() -> None:
    rows = bench({"3": tiny_model("bert"), "2": tiny_model("bert", num_labels=2)}, [SMALL], **QUICK)
    assert rows[1].against_baseline is None and rows[1].timings[0].speedup is not None


def test_a_model_without_layers_has_no_encoder_time() -> None:
    dense, empty = tiny_model("bert"), tiny_model("bert", num_hidden_layers=0)
    rows = bench({"dense": dense, "empty": empty}, [SMALL], **QUICK)
    assert [t.scope for t in rows[1].timings] == ["model"] and rows[1].timing("encoder") is None
    assert [t.speedup for t in bench({"empty": empty, "dense": dense}, [SMALL], **QUICK)[1].timings][1] is None


def test_the_models_come_back_as_they_were() -> None:
    model = tiny_model("roberta").train()
    before = copy.deepcopy(model.state_dict())
    threads = torch.get_num_threads()
    for runtime in ("eager", "eager-bf16"):
        bench({"a": model}, [SMALL], [runtime], threads=threads + 1, **QUICK)
    assert gc.isenabled() and not torch.is_inference_mode_enabled()
    assert model.training and model.dtype == torch.float32 and torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_in_training_mode_is_measured_without_dropout() -> None:
    model = tiny_model("bert")
    match = bench({"a": model, "b": copy.deepcopy(model).train()}, [SMALL], **QUICK)[1].against_baseline
    assert match is not None and match.largest_difference == 0


@pytest.mark.parametrize(
    "more",
    [{}, {"backend_speedup": 1.234, "backend_speedup_low": 1.2, "backend_speedup_high": 1.3, "peak_memory_mb": 2345.6}],
)
def test_no_number_is_broken_at_80_columns(more: dict[str, float]) -> None:
    where = Conditions("model", "sparse-bf16", "bfloat16", "sdpa", 32, 512, 2)
    whole = timing([1400.0] * 15, [17430.0] * 15, where)
    encoder = whole.model_copy(update={"scope": "encoder", "q25_ms": 1234.5, "speedup_low": 11.87})
    match = Match(largest_difference=0.1, relative_difference=2.13e-7, sequences=32, agreement=31 / 32)
    row = BenchRow(model="magnitude-0.95-sparsity", backend="sparse-bf16", batch=32, length=512, cores=2)
    row = row.model_copy(update={"timings": (whole, encoder), "against_baseline": match, **more})
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    for table in tables([row]):
        console.print(table)
    drawn = stream.getvalue()
    for text in ("1,400–1,400", "1,234–1,400", "12.4×", "12.45–12.45", "11.87–12.45", "11,703", "2.1e-05%"):
        assert text in drawn, drawn
    assert "31 of 32 agree" in drawn and "bfloat16, sdpa" in drawn and "…" not in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    assert not more or ("1.23×" in drawn and "2,346 MB" in drawn)


def test_rows_are_json_and_progress_is_told() -> None:
    told: list[str] = []
    row = bench({"a": tiny_model("distilbert")}, [SMALL], progress=told.append, **QUICK)[0]
    assert BenchRow.model_validate_json(row.model_dump_json()) == row
    assert told == ["batch 2, length 8: preparing", "batch 2, length 8: 1 variants, 3 rounds"]


def test_bad_input() -> None:
    models = {"a": tiny_model("bert")}
    with pytest.raises(UserError, match=r"Unknown runtime 'eagr'; allowed: eager, .*Did you mean 'eager'"):
        bench(models, [SMALL], ["eagr"])
    with pytest.raises(UserError, match="no positions for that length; got 65"):
        bench(models, [Setting(1, 65)])
    with pytest.raises(UserError, match="at least one model"):
        bench({}, [SMALL])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_bfloat16_is_what_transformers_loads_in_it(family: str, tmp_path: Path) -> None:
    made = tiny_model(family)
    made.save_pretrained(tmp_path)
    loaded, cast = load_model(tmp_path, dtype=torch.bfloat16), ready(made.eval(), torch.bfloat16)
    inputs = example_inputs([made], 2, 8)
    with torch.inference_mode():
        assert torch.equal(cast(**inputs).logits, loaded(**inputs).logits)
    # The angles of rotary positions among them.
    assert {name: b.dtype for name, b in cast.named_buffers()} == {n: b.dtype for n, b in loaded.named_buffers()}


def test_every_registered_runtime_gives_the_outputs_of_eager_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert registry.names("runtime")[:5] == ["eager", "eager-bf16", "compile", "sparse", "sparse-bf16"]
    model = tiny_model("electra")
    inputs = example_inputs([model], 2, 8)
    expected = model(**inputs)[0]
    assert torch.equal(EAGER.prepare(model, inputs).run(inputs), expected)
    half = EAGER_BF16.prepare(model, inputs)
    assert half.dtype == "bfloat16" and half.run(inputs).dtype == torch.bfloat16
    torch.testing.assert_close(half.run(inputs).float(), expected, atol=0.2, rtol=0.1)
    with pytest.raises(
        RuntimeUnavailableError, match=r"'compile' is not available: no C\+\+ compiler found \(no-such-compiler\)"
    ):
        COMPILE.prepare(model, inputs)


def test_the_sparse_runtime_runs_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert", hidden_size=256, intermediate_size=1024)
    inputs = example_inputs([model], 2, 8)
    with pytest.raises(
        RuntimeUnavailableError, match="'sparse' is not available: no kernel is faster than the dense product"
    ):
        SPARSE.prepare(model, inputs)
    with torch.no_grad():
        for name in encoder_linear_names(model):
            model.get_parameter(name)[:, 1:].zero_()
    if native.isa() is not None:
        expected = model(**inputs)[0]
        ready = SPARSE.prepare(model, inputs)
        assert ready.dtype == "float32" and ready.module is not model
        torch.testing.assert_close(ready.run(inputs), expected)
    monkeypatch.setenv(native.FORCE, native.NONE)
    with pytest.raises(
        RuntimeUnavailableError, match=r"no sparse kernels for torch.float32 on this cpu \(native library: not built"
    ):
        SPARSE.prepare(model, inputs)


def test_the_sparse_runtime_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert", hidden_size=64, num_hidden_layers=1)
    with torch.no_grad():
        for name in encoder_linear_names(model):
            model.get_parameter(name)[:, 1:].zero_()
    inputs = example_inputs([model], 2, 8)
    if native.isa() is None:
        return
    monkeypatch.setenv(native.FORCE, native.NONE)
    with pytest.raises(
        RuntimeUnavailableError, match=r"'sparse-bf16' is not available: .* for torch.bfloat16 on this cpu"
    ):
        SPARSE_BF16.prepare(model, inputs)
    monkeypatch.setattr(pytorch, "accelerate", functools.partial(accelerate, worth=0))
    expected = EAGER_BF16.prepare(model, inputs).run(inputs)
    for isa in ("portable", native.EMULATED):
        monkeypatch.setenv(native.FORCE, isa)
        ready = SPARSE_BF16.prepare(model, inputs)
        assert ready.dtype == "bfloat16" and ready.module is not None and sparse_layers(ready.module)
        torch.testing.assert_close(ready.run(inputs), expected, atol=0.05, rtol=0.05)


def test_the_attention_that_ran_is_named() -> None:
    inputs = example_inputs([tiny_model("bert")], 2, 8)
    assert EAGER.prepare(tiny_model("bert", attn_implementation="eager"), inputs).attention == "eager"
    assert EAGER.prepare(tiny_model("deberta-v2"), inputs).attention == "eager"
    assert EAGER.prepare(tiny_model("bert"), inputs).attention == "sdpa"


def test_a_runtime_that_is_not_available_has_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    [row] = bench({"a": tiny_model("bert")}, [SMALL], ["compile"], **QUICK)
    assert row.unavailable == "no C++ compiler found (no-such-compiler)" and row.timings == ()


@pytest.mark.process
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler")
def test_compiled_models_are_timed_and_checked() -> None:
    dense = tiny_model("distilbert", num_hidden_layers=1)
    rows = by_name(bench({"dense": dense}, [SMALL], ["eager", "compile"], **QUICK))
    row = rows["dense", "compile"]
    assert row.unavailable is None and [t.scope for t in row.timings] == ["model"]
    assert row.timings[0].dtype == "float32"
    assert row.against_first_backend is not None and row.against_first_backend.largest_difference < 1e-5


@pytest.mark.parametrize(
    ("speedup", "low", "high", "expected"),
    [
        (1.94, 1.9, 1.99, "2x is 1.94x faster than dense (encoder, {}; quartiles 1.90-1.99, 15 rounds)"),
        (1.04, 1.03, 1.06, "2x is no faster than dense: 1.04x its speed (encoder, {}; quartiles 1.03-1.06, 15 rounds)"),
        (1.2, 0.99, 1.4, UNSHOWN.format("1.20", "0.99-1.40")),
        (0.97, 0.96, 0.98, "2x is no faster than dense: 0.97x its speed (encoder, {}; quartiles 0.96-0.98, 15 rounds)"),
        (0.5, 0.4, 1.01, UNSHOWN.format("0.50", "0.40-1.01")),
        (6.6, 3.9, 9.6, "2x is 6.60x faster than dense (encoder, {}; quartiles 3.90-9.60, noisy, 15 rounds)"),
        (0.8, 0.78, 0.82, "2x is slower than dense: 0.80x its speed (encoder, {}; quartiles 0.78-0.82, 15 rounds)"),
        (None, None, None, "2x was not compared with dense (encoder, {})"),
    ],
)
def test_the_verdict_in_words(speedup: float | None, low: float | None, high: float | None, expected: str) -> None:
    text = verdict("2x", "dense", measured(speedup, low, high))
    assert text == expected.format("eager, batch 1, length 128")


def test_the_verdict_goes_by_the_interval_of_the_median_where_there_is_one() -> None:
    found = measured(1.3, 1.1, 1.5).model_copy(update={"speedup_low": 1.27, "speedup_high": 1.33})
    assert "; 95% interval 1.27-1.33, 15 rounds)" in verdict("2x", "dense", found)
    unsure = measured(1.3, 1.2, 1.4).model_copy(update={"speedup_low": 0.98, "speedup_high": 1.33})
    assert verdict("2x", "dense", unsure).startswith("2x is not shown to be faster or slower than dense")


def test_the_verdict_on_the_baseline_itself() -> None:
    assert verdict("dense", "dense", measured(1.0, 1.0, 1.0)) == (
        "dense is the baseline (encoder, eager, batch 1, length 128; 1.00 ms, quartiles 1.00-1.00, 15 rounds)"
    )
