"""Doctor: zeros counted by hand, a verdict that follows from the trials, and the command on a tiny model."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.kernels import native, operators
from sparsebert.measurement import doctor, doctor_timing
from sparsebert.measurement.doctor import diagnose, kernels
from sparsebert.measurement.doctor_advice import advice
from sparsebert.measurement.doctor_timing import SPARSITIES, TYPICAL, matrix_trials, model_trials
from sparsebert.measurement.doctor_trial import Form, Precision, Trial
from sparsebert.measurement.doctor_zeros import Zeros, zeros_of
from sparsebert.models.accelerate import accelerate
from sparsebert.models.layout import encoder_linear_names, layout_of
from sparsebert.models.surgeon import convert_ffn, shrink
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

WEIGHTS = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * NEURONS)
NO_ZEROS = Zeros(0.0, 0.0, 0.0, False, 1.0)
BUILT = native.isa() is not None
FLOAT, BF16 = Precision.FLOAT32, Precision.BFLOAT16
# Of one matrix and one of BERT-base in every form, and of the whole model cut, and in bfloat16.
ALL_TRIALS = 2 * len(SPARSITIES) * ((3 if BUILT else 1) + 2 * native.has_tiles()) + 1 + native.has_tiles()


@torch.no_grad()
def with_zeros(name: str, rows: slice, columns: slice) -> PreTrainedModel:
    model = tiny_model("bert")
    model.get_parameter(name)[rows, columns] = 0
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dense_model_has_no_zeros(family: str):
    found = zeros_of(tiny_model(family))
    assert (found.elements, found.blocks, found.units, found.two_of_four) == (0, 0, 0, False)


def test_zeros_by_hand():
    whole = slice(None)
    query = zeros_of(with_zeros("bert.encoder.layer.0.attention.self.query.weight", whole, whole))
    # One matrix of 32 x 32 is one block; no head is dead, as its output still speaks.
    assert (query.elements, query.blocks, query.units) == pytest.approx((1024 / WEIGHTS, 1024 / WEIGHTS, 0))
    width = HIDDEN // HEADS
    head = zeros_of(with_zeros("bert.encoder.layer.1.attention.output.dense.weight", whole, slice(width)))
    # A head whose output is zero is dead, and its query, key and value with it.
    assert (head.elements, head.blocks) == pytest.approx((width * HIDDEN / WEIGHTS, 0))
    assert head.units == pytest.approx(4 * width * HIDDEN / WEIGHTS)
    assert head.packed_bytes == pytest.approx(1.0)


@torch.no_grad()
def test_two_of_four_is_seen_only_where_every_matrix_has_it():
    model = tiny_model("bert")
    for name in encoder_linear_names(model):
        model.get_parameter(name).view(-1, 4)[:, [0, 3]] = 0
    found = zeros_of(model)
    assert found.two_of_four and found.elements == 0.5 and found.packed_bytes == pytest.approx(1 / 32 + 0.5)
    model.get_parameter("bert.encoder.layer.2.output.dense.weight")[0, :3] = 1
    assert not zeros_of(model).two_of_four


def test_trials_are_of_what_they_say():
    model = with_zeros("bert.encoder.layer.1.attention.output.dense.weight", slice(None), slice(8))
    single = matrix_trials(model, tokens=16, rounds=3)
    forms = [(form, FLOAT) for form in ((Form.BLOCKS, Form.VALUES, Form.ROWS) if BUILT else (Form.ROWS,))]
    forms += [(Form.BLOCKS, BF16), (Form.VALUES, BF16)] if native.has_tiles() else []
    assert all(trial.precision is trial.baseline for trial in single)
    assert [(trial.form, trial.baseline, trial.sparsity, trial.shape) for trial in single] == [
        (*form, sparsity, shape)
        for shape in ((HIDDEN, NEURONS), TYPICAL)
        for form in forms
        for sparsity in (0.5, 0.8, 0.9, 0.95)
    ]
    whole = model_trials(model, batch=1, length=8, rounds=3)
    # Half of every group; then 1 of 4 heads in one of six groups.
    cut = [trial.sparsity for trial in whole if trial.form in (Form.HALVED, Form.LIVE)]
    assert cut == pytest.approx([0.5, 0.25 / 6])
    assert ((Form.DENSE, BF16) in [(trial.form, trial.precision) for trial in whole]) is native.has_tiles()
    assert all(0 < trial.q25 <= trial.speedup <= trial.q75 for trial in single + whole)


def trial(form: Form, sparsity: float, speed: float, precision: Precision = FLOAT, **more: Any) -> Trial:
    return Trial(form, sparsity, speed, speed, speed, precision, **({"baseline": precision} | more))


def trials(single: float, whole: float) -> list[Trial]:
    return [trial(Form.ROWS, 0.9, single), trial(Form.HALVED, 0.5, whole, units=("head", "neuron"))]


@pytest.mark.parametrize(
    ("one", "what", "over"),
    [
        (trial(Form.ROWS, 0.9, 1, shape=(8, 8)), "one matrix, single weights, compressed sparse rows", "dense float32"),
        (trial(Form.BLOCKS, 0.9, 1, BF16, shape=(8, 8)), "one matrix, 32 x 32 blocks, native kernel", "dense bfloat16"),
        (trials(1, 1)[1], "whole model, half of the heads and neurons cut out", "dense float32"),
        (trial(Form.LIVE, 0.1, 1), "whole model, its own dead heads and neurons cut out", "dense float32"),
        (trial(Form.DENSE, 0, 1, BF16, baseline=FLOAT), "whole model, dense, in bfloat16", "dense float32"),
        (trial(Form.KERNELS, 0.5, 1), "whole model, its zeros left out by the sparse kernels", "dense float32"),
        (
            trial(Form.KERNELS, 0.5, 1, BF16),
            "whole model, its zeros left out by the sparse kernels, in bfloat16",
            "dense bfloat16",
        ),
    ],
)
def test_a_trial_says_what_was_timed(one: Trial, what: str, over: str):
    assert (one.what, one.over) == (what, over)


@pytest.mark.parametrize(
    ("single", "whole", "words"),
    [
        (
            0.4,
            1.9,
            [
                "Half of the heads and neurons cut out makes the whole model 1.90x faster here: this pays",
                "Single zero weights are not faster here",
                "0.40x at 90%",
            ],
        ),
        (1.5, 1.9, ["Single zero weights pay from 90% on (1.50x the dense float32 product; 1.50x at 90%)"]),
        (1.01, 1.01, ["this does not pay at this batch", "are not faster here"]),
    ],
)
def test_the_verdict_follows_from_what_was_measured(single: float, whole: float, words: list[str]):
    said = " ".join(advice(NO_ZEROS, trials(single, whole)))
    assert all(word in said for word in [*words, "has no zero weights"])
    assert "50.0% zero" in " ".join(advice(Zeros(0.5, 0.1, 0.0, True, 0.53), trials(single, whole)))


def test_the_verdict_on_blocks_and_on_the_model_itself():
    more = [trial(Form.BLOCKS, part, speed) for part, speed in ((0.5, 0.9), (0.8, 2.0), (0.9, 4.0))]
    more += [trial(Form.VALUES, 0.8, 1.2), trial(Form.KERNELS, 0.6, 1.3)]
    said = " ".join(advice(NO_ZEROS, [*trials(0.4, 1.9), *more]))
    assert "Zero blocks of 32 x 32 pay from 80% on (2.00x the dense float32 product; 4.00x at 90%)." in said
    assert "Single zero weights pay from 80% on (1.20x" in said
    assert "With the sparse kernels this model is 1.30x as fast as it is dense." in said
    more += [trial(Form.DENSE, 0.0, 3.0, BF16, baseline=FLOAT), trial(Form.VALUES, 0.9, 1.5, BF16)]
    more += [trial(Form.BLOCKS, 0.9, 0.7, BF16), trial(Form.KERNELS, 0.6, 1.4, BF16)]
    said = " ".join(advice(NO_ZEROS, [*trials(0.4, 1.9), *more]))
    assert "In bfloat16 the dense model is 3.00x as fast here: this is what zeros have to beat." in said
    assert "Single zero weights in bfloat16 pay from 90% on (1.50x the dense bfloat16 product; 1.50x at 90%)." in said
    assert "Zero blocks of 32 x 32 in bfloat16 are not faster here in any runtime found: 0.70x at 90%." in said
    assert "Single zero weights pay from 80% on (1.20x the dense float32" in said
    assert "With the sparse kernels this model is 1.40x as fast as it is dense in bfloat16." in said


def test_the_verdict_names_the_matrices_and_a_small_one_says_nothing_of_large_ones():
    small = [trial(Form.BLOCKS, part, 0.9, shape=(32, 24)) for part in (0.5, 0.9)]
    large = [trial(Form.BLOCKS, part, part * 8, shape=TYPICAL) for part in (0.5, 0.9)]
    said = " ".join(advice(NO_ZEROS, [*small, *large]))
    assert "Zero blocks of 32 x 32 in this model's matrices of 32 x 24 are not faster here" in said
    assert "Zero blocks of 32 x 32 in BERT-base's matrices of 768 x 3072 pay from 50% on (4.00x the dense" in said


def test_a_model_with_matrices_as_large_is_timed_once():
    model = tiny_model("bert", hidden_size=768, intermediate_size=3072, num_hidden_layers=1)
    assert {trial.shape for trial in matrix_trials(model, tokens=1, rounds=1)} == {TYPICAL}


@pytest.mark.skipif(not BUILT, reason="the native library was not built: no C++ compiler, or not x86-64")
def test_a_model_with_many_zeros_is_timed_with_the_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor_timing, "accelerate", functools.partial(accelerate, worth=0))
    model = tiny_model("bert", hidden_size=256, intermediate_size=1024)
    with torch.no_grad():
        for name in encoder_linear_names(model):
            model.get_parameter(name)[:, 1:].zero_()
    for isa, precisions in ((native.ISAS[0], [FLOAT]), (native.EMULATED, [FLOAT, BF16])):
        monkeypatch.setenv(native.FORCE, isa)
        own = [one for one in model_trials(model, batch=2, length=8, rounds=3) if one.form is Form.KERNELS]
        assert [(one.precision, one.baseline) for one in own] == [(each, each) for each in precisions]
        assert [one.sparsity for one in own] == pytest.approx([zeros_of(model).elements] * len(precisions))


def test_trials_are_not_of_the_zeros_that_are_there(monkeypatch: pytest.MonkeyPatch):
    model, densities = tiny_model("bert"), []
    for name in encoder_linear_names(model):
        model.get_parameter(name).data.zero_()
    product = doctor_timing._product
    monkeypatch.setattr(
        doctor_timing, "_product", lambda *a: densities.append(float((a[1] != 0).float().mean())) or product(*a)
    )
    matrix_trials(model, tokens=4, rounds=1)
    assert densities and min(densities) == 1


def without(kind: str, model: PreTrainedModel) -> PreTrainedModel:
    groups = [group for group in layout_of(model).groups if group.kind == kind]
    return shrink(model, {group.name: torch.zeros(group.units, dtype=torch.bool) for group in groups})


def test_models_without_neurons_or_heads_get_a_verdict():
    dense = tiny_model("bert")
    trees = convert_ffn(dense, depth=2)
    for model, count, words in (
        (without("neuron", dense), ALL_TRIALS, "Half of the heads cut out makes the whole model"),
        (without("head", dense), ALL_TRIALS, "Half of the neurons cut out makes the whole model"),
        (trees, ALL_TRIALS, "3 of 3 layers have fast feedforward layers: a token uses 9 of their 21 neurons"),
        (without("head", trees), 0, "This model's encoder has no zero weights. "),
    ):
        found = diagnose(model.eval(), 1, 8, 3, 1)
        assert len(found.trials) == count and words in " ".join(found.advice), found
    with pytest.raises(UserError, match="no weights left"):
        diagnose(without("head", without("neuron", dense)).eval(), 1, 8, 3, 1)


@pytest.mark.parametrize(
    ("gpu", "triton", "why"),
    [(False, True, "needs a GPU"), (True, False, "not installed"), (True, True, "Triton kernel")],
)
def test_kernels_on_a_gpu_need_one_and_triton(gpu: bool, triton: bool, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(operators, "has_triton", lambda: triton)
    found = [kernel for kernel in kernels() if "on a GPU" in kernel.name]
    assert [(kernel.runs, why in kernel.why) for kernel in found] == [(gpu and triton, True)] * 2


def test_two_of_four_needs_a_gpu_that_has_it():
    [semi_structured] = [kernel for kernel in kernels() if "2:4" in kernel.name]
    able = torch.cuda.is_available() and torch.cuda.get_device_capability(0) >= (8, 0)
    assert semi_structured.runs == able


def test_it_says_whether_the_native_kernels_were_built(monkeypatch: pytest.MonkeyPatch):
    *_, matrices, fff = kernels()
    assert matrices.runs == fff.runs == BUILT
    monkeypatch.setenv(native.FORCE, native.NONE)
    *_, matrices, fff = kernels()
    assert not matrices.runs and not fff.runs and "plain PyTorch runs instead" in fff.why


def test_the_command(tmp_path: Path):
    save_tiny(tmp_path / "model")
    said = run_cli("doctor", tmp_path / "model", "--length", "8", "--rounds", "3", "--threads", "1", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert (found["threads"], found["rounds"], len(found["trials"])) == (1, 3, ALL_TRIALS)
    halved = next(one for one in found["trials"] if one["form"] == "model_halved")
    assert halved["what"] == "whole model, half of the heads and neurons cut out"
    assert (halved["over"], halved["baseline"], halved["shape"]) == ("dense float32", "float32", None)
    words = run_cli("doctor", tmp_path / "model", "--length", "8", "--rounds", "3")
    assert words.stdout.startswith("Half of the heads and neurons") and "2:4 sparse tensor cores" in words.stdout
    assert_refused(run_cli("doctor", tmp_path / "none"), ["none"])


def test_a_length_that_the_model_has_no_positions_for_is_said_before_anything_is_timed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(doctor, "matrix_trials", lambda *_: pytest.fail("timed"))
    said = run_cli("doctor", save_tiny(tmp_path / "model"), "--length", "65")
    assert_refused(said, ["no positions for that length", "got 65", "allowed: 1 to 64"])
