"""Distillation: losses by hand, and a cache that gives back what the teacher said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.models.hidden import narrow
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.recipe.schema import Distill
from sparsebert.tasks.classification import CLASSIFICATION
from sparsebert.tasks.regression import REGRESSION
from sparsebert.training.distill import (
    Distiller,
    attention_loss,
    check_match,
    dimensions_taught_by,
    hidden_loss,
    nearest_loss,
)
from sparsebert.training.teacher import TeacherCache, cache_teacher, layer_outputs
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_batch, tiny_model
from toy import toy_collate, toy_rows

ROWS = toy_rows(20)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_logit_loss_is_the_softened_relative_entropy(temperature: float):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(axis=1, keepdims=True) for x in (teacher, student))
    expected = temperature**2 * np.mean(scipy.stats.entropy(p, q, axis=1))
    assert float(
        CLASSIFICATION.distillation(torch.tensor(student), torch.tensor(teacher), temperature)
    ) == pytest.approx(expected)


def test_logit_loss_of_one_output_is_the_squared_error():
    assert float(REGRESSION.distillation(torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [4.0]]), 2.0)) == 2.0


def test_hidden_loss_by_hand():
    # One example of two tokens, the second of them padding; layer 0 is off by 1 and 3, layer 1 by 2 in one of two.
    teacher = torch.zeros(2, 1, 2, 2)
    student = torch.tensor([[[[1.0, 3.0], [9.0, 9.0]]], [[[2.0, 0.0], [9.0, 9.0]]]])
    mask = torch.tensor([[1, 0]])
    assert float(hidden_loss(student, teacher, mask, torch.tensor([1.0, 1.0]))) == pytest.approx((5 + 2) / 2)
    assert float(hidden_loss(student, teacher, mask, torch.tensor([10.0, 4.0]))) == pytest.approx((0.5 + 0.5) / 2)


def test_hidden_loss_counts_every_real_token_alike():
    # 1 token off by 1 in an example of one, 0 of 3 in the other: 1/4, not the mean of the examples 1/2.
    student = torch.zeros(1, 2, 3, 4)
    student[0, 0, 0] = 1.0
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    assert float(hidden_loss(student, torch.zeros_like(student), mask, torch.ones(1))) == 0.25


def test_nearest_loss_by_hand():
    # The teacher's layers are 0 and 3 everywhere, the student's 1, 4 and 9: the nearest are 1 and 4, or 1 and 1.
    teacher = torch.tensor([0.0, 3.0]).view(2, 1, 1, 1).expand(2, 2, 3, 4)
    student = torch.tensor([1.0, 4.0, 9.0]).view(3, 1, 1, 1).expand(3, 2, 3, 4)
    mask = torch.ones(2, 3)
    assert float(nearest_loss(student, teacher, mask, torch.ones(2))) == 1.0
    assert float(nearest_loss(student, teacher, mask, torch.tensor([1.0, 10.0]))) == pytest.approx((1 + 0.1) / 2)
    assert float(nearest_loss(student[:1], teacher, mask, torch.ones(2))) == (1 + 4) / 2


def test_attention_loss_by_hand():
    # One layer, two heads, two tokens of which the second is padding; only the first query counts.
    teacher = torch.tensor([[[[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]]])
    student = torch.tensor([[[[[0.0, 1.0], [9.0, 9.0]], [[0.5, 0.5], [9.0, 9.0]]]]])
    assert float(attention_loss(student, teacher, torch.tensor([[1, 0]]))) == (2 + 0) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_that_looks_where_its_teacher_looks_has_no_attention_loss(tmp_path: Path, family: str):
    teacher, student = tiny_model(family, num_labels=2), tiny_model(family, num_labels=2)
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=False)
    distiller = Distiller(cache, Distill(labels=0, logits=0, hidden=0, attention=1), (0, 1, 2), teacher)
    batch = distiller.collator(toy_collate)([ROWS[row] for row in range(6)])
    before = student.config._attn_implementation
    with torch.no_grad(), distiller.at_work(student):
        given = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
        assert float(distiller.loss(student(**given, output_attentions=True), [], batch)) < 1e-9
        [first, *_] = layout_of(student).groups
        student.get_parameter(first.inputs[0].tensor).mul_(2)
        assert float(distiller.loss(student(**given, output_attentions=True), [], batch)) > 1e-3
    assert student.config._attn_implementation == before


def test_what_cannot_be_compared_is_an_error():
    teacher = tiny_model("bert")
    fewer_heads = shrink(teacher, {"layer.1.heads": torch.arange(4) < 2})
    check_match(fewer_heads, teacher, Distill(hidden=1))
    with pytest.raises(UserError, match=r"numbers of heads; got \[4, 2, 4\]"):
        check_match(fewer_heads, teacher, Distill(attention=1))
    check_match(shrink(teacher, {}, [1]), teacher, Distill(hidden=1))
    two = tiny_model("bert", num_hidden_layers=2)
    check_match(two, teacher, Distill(hidden=1, match="nearest"))
    check_match(two, teacher, Distill(hidden=0))
    with pytest.raises(UserError, match=r"numbers of layers; got 3 and 2"):
        check_match(two, teacher, Distill(hidden=1))


def test_a_narrow_student_is_taught_the_dimensions_that_it_has(tmp_path: Path):
    teacher = tiny_model("bert", num_labels=2)
    kept = [1, 2, 5, 8, 20, 21, 30, 31]
    student = narrow(teacher, kept)
    check_match(student, teacher, Distill(hidden=1))
    assert dimensions_taught_by(narrow(student, [0, 2]), student) == (0, 2)
    assert dimensions_taught_by(student, teacher) == tuple(kept) and dimensions_taught_by(teacher, teacher) is None
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    some = [ROWS[row] for row in range(3)]
    whole, own = (
        Distiller(cache, Distill(hidden=1), (0, 1, 2), dimensions=chosen).collator(toy_collate)(some)["teacher_hidden"]
        for chosen in (None, tuple(kept))
    )
    assert torch.equal(own, whole[..., kept]) and whole.shape[-1] == 32
    with pytest.raises(UserError, match="different widths; got 32 and 8"):
        check_match(narrow(tiny_model("bert", hidden_size=64), kept), teacher, Distill(hidden=1))


def named(*labels: str, **overrides: int) -> PreTrainedModel:
    model = tiny_model("bert", num_labels=len(labels), **overrides)
    model.config.id2label = dict(enumerate(labels))
    return model


STUDENTS = {
    "another order": (named("no", "yes"), {}, r"their labels in another order; got yes, No and no, yes"),
    "other words": (named("yes", "maybe"), {}, r"their labels in other words; got yes, No and yes, maybe"),
    "more outputs": (named("a", "b", "c"), {}, r"different numbers of outputs; got 2 and 3"),
    "other rows": (named("yes", "no"), {"rows": 19}, r"other training rows; got 19 rows, 20 of the teacher's"),
    "another width": (named("yes", "no", hidden_size=64), {}, r"different widths; got 32 and 64"),
    "more layers": (named("yes", "no", num_hidden_layers=4), {}, r"names other layers than the models have"),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_that_the_teacher_cannot_teach_is_refused(name: str, tmp_path: Path):
    student, more, words = STUDENTS[name]
    cache = cache_teacher(named("yes", "No"), ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    distiller = Distiller(cache, Distill(), (0, 1, 2))
    for same in (named("Yes", "no"), tiny_model("bert", num_labels=2)):
        distiller.check(same, 20)
        distiller.check(same, None)
    with pytest.raises(UserError, match=words):
        distiller.check(student, **({"rows": 20} | more))


def states_of(model: PreTrainedModel, rows: list[int]) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Logits, inputs of the layers after the first and the mask: what transformers itself says of a batch."""
    batch = toy_collate([ROWS[row] for row in rows])
    with torch.no_grad():
        output = model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    return output.logits, list(output.hidden_states[1:]), batch["attention_mask"].bool()


@pytest.mark.parametrize("rows", [[0], [19, 3, 7], list(range(20))])
def test_cache_gives_back_what_the_teacher_said(tmp_path: Path, rows: list[int]):
    teacher = tiny_model("bert", num_labels=2)
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    batch = cache.add_to(toy_collate([ROWS[row] for row in rows]), [2, 0])
    logits, hidden, mask = states_of(teacher, rows)
    torch.testing.assert_close(batch["teacher_logits"], logits, rtol=1e-4, atol=1e-5)
    found = batch["teacher_hidden"]
    assert found.shape == (2, *mask.shape, HIDDEN) and found.dtype == torch.float32
    for place, layer in enumerate([2, 0]):
        # Half precision on disk: 11 bits.
        torch.testing.assert_close(found[place][mask], hidden[layer][mask], rtol=1e-3, atol=1e-3)
        assert not found[place][~mask].any()


def test_scale_is_the_mean_square_of_each_layer(tmp_path: Path):
    teacher = tiny_model("bert", num_labels=2)
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    _, hidden, mask = states_of(teacher, list(range(20)))
    assert cache.scale == pytest.approx([float(one[mask].square().mean()) for one in hidden], rel=1e-4)


def test_cache_without_hidden_states(tmp_path: Path):
    cache = cache_teacher(tiny_model("bert", num_labels=2), ROWS, toy_collate, tmp_path / "teacher", hidden=False)
    batch = cache.add_to(toy_collate([ROWS[0]]), [0])
    assert cache.hidden is None and cache.scale == ()
    assert "teacher_hidden" not in batch and batch["teacher_logits"].shape == (1, 2)
    assert not Distiller(cache, Distill(), (0, 1)).wants_hidden


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_a_finished_cache_is_read_back_and_an_unfinished_one_is_not(tmp_path: Path):
    folder = tmp_path / "teacher"
    first = tiny_model("bert", num_labels=2)
    before = cache_teacher(first, ROWS, toy_collate, folder, hidden=True)
    made = times(folder)
    again = cache_teacher(tiny_model("bert", num_labels=2), toy_rows(20), toy_collate, folder, hidden=True)
    assert times(folder) == made and again.scale == before.scale
    assert np.array_equal(again.logits, before.logits) and again.hidden is not None and before.hidden is not None
    assert np.array_equal(again.hidden, before.hidden)

    without = cache_teacher(first, ROWS, toy_collate, tmp_path / "without", hidden=False)
    assert without.hidden is None
    assert cache_teacher(first, ROWS, toy_collate, tmp_path / "without", hidden=True).hidden is not None

    (folder / "done.json").unlink()
    cache_teacher(first, ROWS, toy_collate, folder, hidden=True)
    assert times(folder)["logits.npy"] > made["logits.npy"]


def renamed() -> PreTrainedModel:
    """Equal weights, other outputs: only its configuration says so."""
    return tiny_model("bert", num_labels=2, hidden_act="relu")


OTHERS = {
    "other weights": (lambda: tiny_model("bert", num_labels=2, seed=1), ROWS),
    "another configuration": (renamed, ROWS),
    "rows replaced": (lambda: tiny_model("bert", num_labels=2), toy_rows(20, seed=2)),
    "rows added": (lambda: tiny_model("bert", num_labels=2), toy_rows(22)),
    "rows removed": (lambda: tiny_model("bert", num_labels=2), toy_rows(18)),
    "another order": (lambda: tiny_model("bert", num_labels=2), ROWS.select(range(19, -1, -1))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_cache_of_another_teacher_or_of_other_rows_is_made_anew(name: str, tmp_path: Path):
    make, rows = OTHERS[name]
    teacher, folder = make(), tmp_path / "teacher"
    cache_teacher(tiny_model("bert", num_labels=2), ROWS, toy_collate, folder, hidden=True)
    found = cache_teacher(teacher, rows, toy_collate, folder, hidden=True)
    with torch.no_grad():
        batch = toy_collate([rows[row] for row in range(len(rows))])
        expected = teacher(batch["input_ids"], batch["attention_mask"]).logits
    np.testing.assert_allclose(found.logits, expected.numpy(), rtol=1e-4, atol=1e-5)


CACHED = ("done.json", "logits.npy", "hidden.npy", "offsets.npy", "scale.npy")


def flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "one bit", "a folder"])
def test_a_damaged_cache_is_made_anew(name: str, damage: str, tmp_path: Path):
    teacher, folder = tiny_model("bert", num_labels=2), tmp_path / "teacher"
    before = cache_teacher(teacher, ROWS, toy_collate, folder, hidden=True)
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "gone":
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "one bit": flipped(content)}[damage])
    found = cache_teacher(teacher, ROWS, toy_collate, folder, hidden=True)
    assert np.array_equal(found.logits, before.logits) and np.array_equal(found.offsets, before.offsets)
    assert found.hidden is not None and before.hidden is not None and found.scale == before.scale
    assert np.array_equal(found.hidden, before.hidden)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"vocab_size": 25}, r"cannot read a token id of the training rows; got 29; allowed: at most 24"),
        ({"max_position_embeddings": 8}, r"cannot read a text of the training rows; got 10; allowed: at most 8"),
    ],
)
def test_rows_that_a_teacher_cannot_read_are_refused(overrides: dict[str, int], words: str, tmp_path: Path):
    with pytest.raises(UserError, match=words):
        cache_teacher(tiny_model("bert", **overrides), ROWS, toy_collate, tmp_path / "teacher", hidden=False)
    assert not (tmp_path / "teacher").exists()


def test_batches_without_row_numbers_are_refused(tmp_path: Path):
    cache = cache_teacher(tiny_model("bert"), ROWS, toy_collate, tmp_path / "teacher", hidden=False)
    batch = toy_collate([ROWS[0]])
    del batch["rows"]
    with pytest.raises(UserError, match="do not say which rows of the teacher's they are"):
        cache.add_to(batch, [])


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_outputs_are_what_the_next_layer_reads(family: str):
    model, seen = tiny_model(family), []
    paths = [layer.path for layer in layout_of(model).layers]
    for path in paths[1:]:
        model.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad(), layer_outputs(model) as found:
        model(**tiny_batch())
    assert len(found) == LAYERS
    assert all(torch.equal(one, other) for one, other in zip(found, seen, strict=False)) and len(seen) == LAYERS - 1
    assert not any(model.get_submodule(path)._forward_hooks for path in paths)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_student_that_only_lost_its_last_layer_has_no_hidden_loss(tmp_path: Path, family: str):
    # ModernBERT norms what comes out of the last layer, so its `hidden_states` would differ here.
    teacher = tiny_model(family, num_labels=2)
    student = shrink(teacher, {}, [2])
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    distiller = Distiller(cache, Distill(labels=0, logits=0, hidden=1), (0, 1))
    batch = distiller.collator(toy_collate)([ROWS[row] for row in range(6)])
    with torch.no_grad(), layer_outputs(student) as layers:
        output = student(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    assert float(distiller.loss(output, layers, batch)) < 1e-5
    swapped = Distiller(cache, Distill(labels=0, logits=0, hidden=1), (1, 0))
    batch = swapped.collator(toy_collate)([ROWS[row] for row in range(6)])
    assert float(swapped.loss(output, layers, batch)) > 0.1


def test_every_teaching_layer_finds_its_nearest(tmp_path: Path):
    teacher = tiny_model("bert", num_labels=2)
    cache = cache_teacher(teacher, ROWS, toy_collate, tmp_path / "teacher", hidden=True)
    distiller = Distiller(cache, Distill(labels=0, logits=0, hidden=1, match="nearest"), (0, 1))
    batch = distiller.collator(toy_collate)([ROWS[row] for row in range(6)])
    assert len(batch["teacher_hidden"]) == LAYERS
    with torch.no_grad(), layer_outputs(teacher) as layers:
        output = teacher(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    assert float(distiller.loss(output, layers[::-1], batch)) < 1e-5
    assert float(distiller.loss(output, layers[1:], batch)) > 0.1


def test_the_loss_is_the_weighted_sum():
    cache = TeacherCache(
        np.zeros((1, 2), np.float32), np.zeros((3, 4, 2), np.float16), np.array([0, 4]), (1.0, 2.0, 4.0), CLASSIFICATION
    )
    batch = {
        "labels": torch.tensor([0]),
        "teacher_logits": torch.tensor([[0.0, 1.0]]),
        "teacher_hidden": torch.zeros(1, 1, 4, 2),
        "attention_mask": torch.ones(1, 4),
    }
    output = SimpleNamespace(logits=torch.tensor([[1.0, 0.0]]), loss=torch.tensor(3.0))
    layers = [torch.full((1, 4, 2), 2.0)]
    weights = Distill(labels=0.5, logits=0.25, hidden=2.0, temperature=1.0)
    # KL of (p, q) against (q, p) with p = sigmoid(1): (2p - 1) * 1; hidden: 2^2 / scale 4.
    entropy = 2 / (1 + np.exp(-1)) - 1
    found = Distiller(cache, weights, (2,)).loss(output, layers, batch)
    assert float(found) == pytest.approx(0.5 * 3 + 0.25 * entropy + 2.0 * 1.0)
