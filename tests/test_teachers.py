"""Given models as students and teachers of `train`: their own tokens, widths, and blocks without units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizerFast, PreTrainedModel

from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import shrink
from sparsebert.records import read_record
from sparsebert.training.distill import layers_taught_by
from test_recipes import TRAINED, trained
from tiny import tiny_model
from tiny_run import SPECIAL, WORDS, assert_refused, run_cli, save_tiny, write_task


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    save_tiny(folder / "base", "base")
    write_task(folder / "data")
    (folder / "trained.yaml").write_text(TRAINED, encoding="utf-8")
    return folder


def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_written(home, tmp_path):
    short = save_tiny(tmp_path / "short", num_hidden_layers=2)
    arguments = ("train", home / "base", "--recipe", home / "trained.yaml", "--data", home / "data")
    for teacher, words in ((short, "different numbers of layers"), (home / "base", "not fine-tuned for this task")):
        said = run_cli(*arguments, "--set", f"phases.0.teacher={teacher}", "-o", tmp_path / "out")
        assert_refused(said, [words])
    assert not (tmp_path / "out").exists()


def test_each_layer_of_a_shrunk_model_learns_from_the_one_that_it_was(home, tmp_path):
    whole = load_model(save_tiny(tmp_path / "whole"))
    small = shrink(whole, {}, drop_layers=(1,))
    assert layers_taught_by(small, whole) == (0, 2) and layers_taught_by(whole, whole) == (0, 1, 2)
    assert layers_taught_by(small, tiny_model("bert", num_hidden_layers=4)) is None
    save_model(small, load_tokenizer(tmp_path / "whole"), tmp_path / "small")
    given = (
        "finetune",
        tmp_path / "small",
        "--task",
        "custom",
        "--data",
        home / "data",
        "--teacher",
        tmp_path / "whole",
    )
    said = run_cli(*given, "--set", "training.max_steps=2", "--set", "measure.timed=false", "-o", tmp_path / "out")
    assert said.exit_code == 0, said.output


def test_a_model_with_emptied_blocks_is_trained_on(home, tmp_path):
    whole = load_model(save_tiny(tmp_path / "whole"))
    none = {"layer.0.heads": torch.zeros(4, dtype=torch.bool), "layer.1.neurons": torch.zeros(24, dtype=torch.bool)}
    save_model(shrink(whole, none), load_tokenizer(tmp_path / "whole"), tmp_path / "emptied")
    arguments = ("train", tmp_path / "emptied", "--recipe", home / "trained.yaml", "--data", home / "data")
    assert run_cli(*arguments, "-o", tmp_path / "out").exit_code == 0
    *_, result = read_record(tmp_path / "out").models
    assert result.sparsity.encoder_linear == pytest.approx(0.5, abs=0.01)
    assert result.sparsity_by_tensor and all(0.49 < part < 0.51 for part in result.sparsity_by_tensor.values())


def other_vocabulary(folder: Path) -> Path:
    """The same model as `save_tiny` makes, with its vocabulary in another order: of texts it says the same."""
    save_tiny(folder)
    places = list(range(len(SPECIAL))) + list(range(len(SPECIAL) + len(WORDS) - 1, len(SPECIAL) - 1, -1))
    words = [(*SPECIAL, *WORDS)[place] for place in places]
    model = load_model(folder)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows[: len(places)] = rows[places].clone()
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return folder


def with_teacher(home: Path, name: str, teacher: Path, *settings: str) -> np.ndarray:
    """What a given teacher has said of the training rows."""
    folder = trained(home, name, f"phases.0.teacher={teacher}", *settings)
    return np.load(folder / "work" / "teacher-0" / "logits.npy")


def test_a_teacher_reads_texts_in_its_own_tokens(home, tmp_path):
    logits_only = ("phases.0.distill.hidden=0",)
    same = with_teacher(home, "same-words", save_tiny(tmp_path / "same"), *logits_only)
    permuted = with_teacher(home, "other-words", other_vocabulary(tmp_path / "other"), *logits_only)
    assert np.abs(same).max() > 0.1
    np.testing.assert_allclose(permuted, same, rtol=1e-4, atol=1e-5)


def test_a_teacher_that_names_its_labels_in_another_order_teaches_them_in_the_tasks(home, tmp_path):
    logits_only, found = ("phases.0.distill.hidden=0",), []
    for name, labels in (("in-order", ("no", "yes")), ("turned", ("yes", "no"))):
        model = load_model(save_tiny(tmp_path / name))
        model.config.id2label, model.config.label2id = dict(enumerate(labels)), {labels[0]: 0, labels[1]: 1}
        if name == "turned":
            for parameter in model.classifier.parameters():
                parameter.data = parameter.data.flip(0)
        model.save_pretrained(tmp_path / name)
        found.append(with_teacher(home, name, tmp_path / name, *logits_only))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


OTHER_TEACHERS = {
    "other vocabulary": other_vocabulary,
    "fewer positions": lambda folder: save_tiny(folder, max_position_embeddings=8),
}


@pytest.mark.parametrize("name", OTHER_TEACHERS)
@pytest.mark.parametrize("term", ["hidden", "attention"])
def test_a_teacher_of_other_tokens_teaches_no_layers(name: str, term: str, home, tmp_path):
    teacher = OTHER_TEACHERS[name](tmp_path / "teacher")
    settings = (f"phases.0.teacher={teacher}", "phases.0.distill.hidden=0", f"phases.0.distill.{term}=1")
    arguments = ("train", home / "base", "--recipe", home / "trained.yaml", "--data", home / "data")
    said = run_cli(*arguments, *(part for one in settings for part in ("--set", one)), "-o", tmp_path / "out")
    assert_refused(said, ["other tokens than the student's", "set distill.hidden and distill.attention to 0"])
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_other_widths_teaches_no_layers(home, tmp_path):
    teacher = save_tiny(tmp_path / "wide", hidden_size=64)
    arguments = ("train", home / "base", "--recipe", home / "trained.yaml", "--data", home / "data")
    said = run_cli(*arguments, "--set", f"phases.0.teacher={teacher}", "-o", tmp_path / "out")
    assert_refused(said, ["outputs of different widths", "got 64 and 32"])
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_another_family_is_asked_in_its_own_tokens(home, tmp_path):
    teacher = tiny_model("roberta", num_labels=2, pad_token_id=0)
    teacher.save_pretrained(tmp_path / "roberta")
    BertTokenizerFast.from_pretrained(save_tiny(tmp_path / "words")).save_pretrained(tmp_path / "roberta")
    logits = with_teacher(home, "roberta", tmp_path / "roberta", "phases.0.distill.hidden=0")
    assert logits.shape == (64, 2) and np.isfinite(logits).all()


@pytest.mark.parametrize(("bias", "said"), [(9.0, 'predicts one class, "yes"'), (0.0, None)])
def test_a_teacher_no_better_than_a_constant_answer_is_a_note(bias: float, said: str | None, home, tmp_path):
    model = load_model(save_tiny(tmp_path / "teacher"))
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    good, bad = (len(SPECIAL) + place for place in (0, 1))
    with torch.no_grad():
        if bias:
            model.classifier.bias[1] += 100 * bias
        else:
            know(model, good, bad)
    model.save_pretrained(tmp_path / "teacher")
    settings = (f"phases.0.teacher={tmp_path / 'teacher'}", "phases.0.distill.hidden=0")
    notes = [note for note in read_record(trained(home, f"chance-{bias}", *settings)).notes if "The teacher" in note]
    assert len(notes) == (said is not None)
    words = (said, str(tmp_path / "teacher"), "worth as little") if said else ()
    assert all(word in notes[0] for word in words)


def know(model: PreTrainedModel, good: int, bad: int) -> None:
    """Make a classifier that goes by two words: trained on nothing else than texts of theirs."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        ids = torch.randint(len(SPECIAL) + 2, len(SPECIAL) + len(WORDS), (16, 8), generator=generator)
        labels = torch.randint(2, (16,), generator=generator)
        ids[torch.arange(16), torch.randint(8, (16,), generator=generator)] = torch.where(labels == 1, good, bad)
        with torch.enable_grad():
            loss = model(ids, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
