"""`sparsebert pretrain` on tiny text: new weights, sparse on the way, from a teacher, on from a model, and refusals."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sparsebert
from forked import Command, launch
from sparsebert.models.load import load_tokenizer
from sparsebert.recipe.load import SHIPPED
from sparsebert.records import ModelResult, Record, read_record
from test_resume import wait_and_stop
from text_run import TRAINING, write_recipe, write_text
from tiny_run import WORDS, assert_refused, run_cli, save_tiny, write_task

SMALL = ("phases.0.training.batch_size=16", "dense.batch_size=16")
NEW = ("--config", "bert-tiny", "--train-tokenizer", "99")
SHIPPED_ONE = ("--recipe", "pretrain-bert")
RULE = {"criterion": "magnitude", "sparsity": 0.6, "stop": {"percent": 50}, "every": {"steps": 1}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    write_text(folder / "text")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBERT_CACHE", str(home / "cache"))


def pretrained(home: Path, name: str, *phases: dict, more: tuple[str, ...] = (), **keys: object) -> Record:
    file = write_recipe(home / f"{name}.yaml", home / "text" / "animals.txt", *phases, **keys)
    said = run_cli("pretrain", "--recipe", file, "-o", home / name, *more)
    assert said.exit_code == 0, said.output
    return read_record(home / name)


def scores(record: Record) -> dict[str, float]:
    return scores_of(record.models[-1])


def test_a_new_model_learns_what_is_hidden(home: Path) -> None:
    record = pretrained(home, "long", {"training": TRAINING | {"max_steps": 200}})
    [model] = record.models
    assert record.main_metric == "masked_accuracy" and record.kind == "pretrain"
    found = {one.metric: one for one in model.scores}
    frequency = {metric: one.baseline or 0.0 for metric, one in found.items()}
    assert found["masked_accuracy"].value > frequency["masked_accuracy"] + 0.2
    assert found["loss"].value < 0.8 * frequency["loss"]
    run = model.phases["pretrain"]
    assert run.steps == 200 and 0.9 < (run.tokens or 0) / (200 * 16 * 16) <= 1
    assert run.tokens_per_second == pytest.approx((run.tokens or 0) / run.seconds, rel=0.3)
    assert 0 < (run.utilisation or 0) < 1
    loaded = sparsebert.load_model(home / "long" / model.folder)
    assert type(loaded).__name__ == "BertForMaskedLM" and loaded.config.vocab_size <= 120


def test_the_same_command_makes_the_same_model_and_reads_it_again(home: Path) -> None:
    first = pretrained(home, "one")
    again = run_cli("pretrain", "--recipe", home / "one.yaml", "-o", home / "one")
    assert "has finished before" in again.stderr
    pretrained(home, "two")
    files = [next((home / name / first.models[-1].folder).glob("*.safetensors")) for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert scores(read_record(home / "two")) == scores(first)


def test_another_seed_hides_other_tokens_and_the_data_seed_decides_what_is_scored(home: Path) -> None:
    base = pretrained(home, "one")
    other = pretrained(home, "seed", more=("--seed", "1"))
    assert scores(other)["loss"] != scores(base)["loss"]
    examples = [one.examples for record in (base, other) for one in record.models[-1].scores]
    assert len(set(examples)) == 1


def test_micro_batches_add_up_to_the_same_step(home: Path) -> None:
    phase = {"training": TRAINING | {"max_steps": 3}}
    whole = pretrained(home, "whole", phase)
    parts = pretrained(home, "parts", {"training": TRAINING | {"max_steps": 3, "micro_batch_size": 4}})
    weights = [
        load_file(next((home / name / record.models[-1].folder).glob("*.safetensors")))
        for name, record in (("whole", whole), ("parts", parts))
    ]
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=2e-3), key


def test_it_becomes_sparse_and_finetune_holds_the_zeros(home: Path) -> None:
    record = pretrained(home, "sparse", {"rules": [RULE]})
    model = record.models[-1]
    assert model.sparsity.encoder_linear == pytest.approx(0.6, abs=0.01)
    write_task(home / "task")
    out = home / "tuned"
    words = ("finetune", home / "sparse" / model.folder, "--task", "mine", "--data", home / "task", "-o", out)
    settings = ("training.max_steps=4", "training.evaluate=null", "measure.timed=false")
    said = run_cli(*words, *(word for one in settings for word in ("--set", one)))
    assert said.exit_code == 0, said.output
    zeros = read_record(out).models[0].sparsity_by_tensor
    assert zeros == pytest.approx(model.sparsity_by_tensor, abs=1e-6)


def test_a_sparse_one_learns_from_the_dense_one(home: Path) -> None:
    training = TRAINING | {"max_steps": 6}
    record = pretrained(home, "taught", {"teacher": "dense", "training": training, "rules": [RULE]}, dense=training)
    assert [model.name for model in record.models] == ["dense", "pretrained"]
    dense = record.models[0].training
    assert dense is not None and record.models[1].phases["pretrain"].teacher and not dense.teacher


def test_it_goes_on_from_a_model(home: Path) -> None:
    first = pretrained(home, "one")
    words = ("pretrain", home / "one" / first.models[-1].folder, "--text", home / "text", "--length", "16")
    settings = ("validation=0.1", "phases.0.training.batch_size=16", "measure.timed=false")
    given = [word for one in settings for word in ("--set", one)]
    said = run_cli(*words, "--steps", "4", *given, "-o", home / "on")
    assert said.exit_code == 0, said.output
    record = read_record(home / "on")
    assert [model.name for model in record.models] == ["dense", "pretrained"]
    assert {one.metric: one.value for one in record.models[0].scores} == pytest.approx(scores(first))


def test_zeros_of_a_given_model_stay(home: Path) -> None:
    first = pretrained(home, "sparse", {"rules": [RULE]})
    words = ("pretrain", home / "sparse" / first.models[-1].folder, "--text", home / "text", "--length", "16")
    settings = ("validation=0.1", "phases.0.training.batch_size=16", "measure.timed=false")
    given = [word for one in settings for word in ("--set", one)]
    for name, more, sparsity in (("held", (), 0.6), ("filled", ("--set", "hold_zeros=false"), 0.0)):
        said = run_cli(*words, "--steps", "4", *given, *more, "-o", home / name)
        assert said.exit_code == 0, said.output
        assert read_record(home / name).models[-1].sparsity.encoder_linear == pytest.approx(sparsity, abs=0.01)


def test_a_teacher_with_another_vocabulary_is_refused(home: Path) -> None:
    other = write_text(home / "other", seed=5)
    with other.open("a", encoding="utf-8") as file:
        file.write("\n" + "zebras whistle quietly . " * 30)
    teacher = write_recipe(home / "teacher.yaml", other)
    assert run_cli("pretrain", "--recipe", teacher, "-o", home / "teacher").exit_code == 0
    phase = {"teacher": str(home / "teacher" / "pretrained")}
    file = write_recipe(home / "wrong.yaml", home / "text" / "animals.txt", phase)
    said = run_cli("pretrain", "--recipe", file, "-o", home / "wrong")
    assert said.exit_code == 2 and "another vocabulary" in said.stderr.splitlines()[-1]
    assert not (home / "wrong").exists()


def test_the_control_without_feedforward_blocks_is_trained_and_tuned(home: Path) -> None:
    training = TRAINING | {"max_steps": 3}
    [model] = pretrained(home, "bare", {"training": training}, config="crammed-tiny", neurons=0).models
    assert model.shape.neurons == (0, 0) and model.shape.full_neurons == 0
    write_task(home / "labelled")
    given = ("finetune", home / "bare" / model.folder, "--task", "mine", "--data", home / "labelled")
    settings = ("--set", "training.max_steps=3", "--set", "measure.timed=false")
    said = run_cli(*given, *settings, "-o", home / "bare-tuned")
    assert said.exit_code == 0, said.output
    assert read_record(home / "bare-tuned").models[-1].shape.full_neurons == 0


def test_a_vocabulary_that_is_given_takes_the_place_of_the_one_that_a_recipe_trains(home: Path) -> None:
    file = write_recipe(home / "given.yaml", home / "text" / "animals.txt", {"training": TRAINING | {"max_steps": 1}})
    (home / "words.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]), encoding="utf-8"
    )
    said = run_cli("pretrain", "--recipe", file, "--vocabulary", home / "words.txt", "-o", home / "given")
    assert said.exit_code == 0, said.output
    assert load_tokenizer(home / "given" / "pretrained").vocab_size == 7


def test_hours_end_a_training(home: Path) -> None:
    training = TRAINING | {"hours": 3 / 3600, "lr_schedule": "triangular"}
    run = pretrained(home, "hours", {"training": training}).models[-1].phases["pretrain"]
    assert 2.5 <= run.seconds <= 30 and run.steps >= 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NEW, ["there is nothing to train on: give text"]),
        (("--text", "nowhere.txt", *NEW), ["nowhere.txt"]),
        (("--text", "TEXT", "--config", "bert-giant", "--train-tokenizer", "99"), ["bert-giant", "bert-tiny"]),
        (("--text", "TEXT", "--config", "bert-tiny"), ["a new model needs a vocabulary"]),
        (("--text", "TEXT"), ["give config, such as bert-mini, for new weights, or a model to go on from"]),
        (("MODEL", "--text", "TEXT", "--config", "bert-tiny"), ["not both, got"]),
        (("--text", "TEXT", *NEW, "--steps", "0"), ["--steps"]),
        (("--text", "TEXT", *NEW, "--set", "score_train=true"), ["leave score_train out"]),
        (("--text", "TEXT", *NEW, "--steps", "4", "--hours", "1"), ["give hours or max_steps, not both"]),
        (("--text", "TEXT", "--vocabulary", "a", "--train-tokenizer", "99", "--config", "bert-tiny"), ["not both"]),
        (
            (*SHIPPED_ONE, "--text", "TEXT", "--vocabulary", "a", "--set", "train_tokenizer=99"),
            ["--vocabulary and --set train_tokenizer=99 contradict each other; leave one of the two out"],
        ),
        (
            (*SHIPPED_ONE, "--text", "TEXT", "--train-tokenizer", "99", "--set", "vocabulary=a"),
            ["--train-tokenizer and --set vocabulary=a contradict each other"],
        ),
        (
            (*SHIPPED_ONE, "--text", "TEXT", "--steps", "4", "--set", "phases.0.training.hours=1"),
            ["--steps and --set phases.0.training.hours=1 contradict each other"],
        ),
        # What is replaced may also be said to be none: only the text is missing then.
        (
            (*SHIPPED_ONE, "--text", "nowhere.txt", "--vocabulary", "a", "--set", "train_tokenizer=null"),
            ["nowhere.txt"],
        ),
        (("MODEL", "--text", "TEXT", "--feedforward", "2x2"), ["give a config"]),
        (
            ("--text", "TEXT", "--config", "bert-tiny", "--length", "4000", "--train-tokenizer", "99"),
            ["does not fill one row of 4000 tokens"],
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(given: tuple[str, ...], expected: list[str], home: Path) -> None:
    places = {"TEXT": str(home / "text"), "MODEL": "google-bert/bert-base-uncased"}
    words = [places.get(word, word) for word in given]
    assert_refused(run_cli("pretrain", *words, "-o", home / "refused"), expected)
    assert not (home / "refused").exists()


def test_a_killed_pretraining_ends_where_a_whole_one_does(home: Path) -> None:
    file = write_recipe(home / "kill.yaml", home / "text" / "animals.txt", {"rules": [RULE]})
    whole, out = home / "whole-run", home / "killed"
    words = ["pretrain", "--recipe", str(file), "-o"]
    checkpoint = out / "work" / "phase0-pretrain" / "training" / "checkpoint-4"
    code, _ = wait_and_stop(Command([*words, out]), (checkpoint / "whole.json").exists)
    assert code == -signal.SIGKILL
    for folder in (out, whole):
        said = run_cli(*words, folder)
        assert said.exit_code == 0, said.stderr
    assert files_of(out) == files_of(whole)


def test_two_processes_take_a_step_together(home: Path) -> None:
    file = write_recipe(home / "both.yaml", home / "text" / "animals.txt", {"training": TRAINING | {"max_steps": 3}})
    assert run_cli("pretrain", "--recipe", file, "-o", home / "alone").exit_code == 0
    codes, _, said = launch(2, ["pretrain", "--recipe", file, "-o", home / "together"])
    assert codes == [0, 0], said
    alone, together = (load_file(home / name / "pretrained" / "model.safetensors") for name in ("alone", "together"))
    for key, value in alone.items():
        assert torch.allclose(value, together[key], atol=1e-3), key
    assert read_record(home / "together").models[-1].phases["pretrain"].processes == 2


def files_of(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run / "pretrained").glob("*.safetensors")}


def test_a_sweep_shares_the_dense_teacher(home: Path) -> None:
    training = TRAINING | {"max_steps": 4}
    file = write_recipe(
        home / "sweep.yaml",
        home / "text" / "animals.txt",
        {"teacher": "dense", "training": training, "rules": [RULE | {"sparsity": None}]},
        dense=training,
        sparsity=0.5,
    )
    out = home / "sweep"
    said = run_cli("sweep", file, "--grid", "sparsity=0.5,0.8", "--seeds", "1", "-o", out)
    assert said.exit_code == 0, said.output
    found = [read_record(out / f"sparsity={part}_seed=0") for part in ("0.5", "0.8")]
    assert [one.models[1].sparsity.encoder_linear for one in found] == pytest.approx([0.5, 0.8], abs=0.01)
    assert any("Made by another run of the sweep" in note for note in found[1].notes)
    assert scores_of(found[0].models[0]) == scores_of(found[1].models[0])


def test_a_search_chooses_by_text_that_is_not_scored_in_the_end(home: Path) -> None:
    file = write_recipe(home / "search.yaml", home / "text" / "animals.txt", {"training": TRAINING | {"max_steps": 3}})
    out, space = home / "search", "phases.0.training.learning_rate=1e-5,1e-3"
    said = run_cli("search", file, "--space", space, "--trials", 2, "--repeats", 1, "-o", out)
    assert said.exit_code == 0, said.output
    trials = [read_record(file.parent) for file in out.glob("trials/*/record.json")]
    [final] = [read_record(file.parent) for file in out.glob("chosen/*/record.json")]
    assert len(trials) == 2
    assert {one.split for record in trials for one in record.models[-1].scores} == {"held_out"}
    assert {one.split for one in final.models[-1].scores} == {"held_out_text"}
    refused = run_cli("search", file, "--space", "masking.rate=0.1,0.2", "-o", home / "no")
    assert_refused(refused, ["masking.rate"])


def scores_of(model: ModelResult) -> dict[str, float]:
    return {one.metric: one.value for one in model.scores}


def test_a_model_without_the_head_gets_one_and_is_told_so(home: Path) -> None:
    save_tiny(home / "base", "base")
    draw = random.Random(0)
    known = [" ".join(draw.choices(WORDS, k=20)) for _ in range(80)]
    (home / "known.txt").write_text("\n\n".join(known), encoding="utf-8")
    settings = ("validation=0.1", "phases.0.training.batch_size=16", "measure.timed=false")
    given = [word for one in settings for word in ("--set", one)]
    words = ("pretrain", home / "base", "--length", 16, "--steps", 2, *given, "-o", home / "head", "--text")
    refused = run_cli(*words, home / "text")
    assert refused.exit_code == 2 and "knows none of the words" in refused.stderr.splitlines()[-1]
    assert not (home / "head").exists()
    said = run_cli(*words, home / "known.txt")
    assert said.exit_code == 0, said.output
    record = read_record(home / "head")
    assert [model.name for model in record.models] == ["pretrained"]
    assert any("no head for hidden tokens, so one is drawn" in note for note in record.notes)


@pytest.mark.parametrize("name", ["pretrain-bert", "pretrain-crammed", "pretrain-sparse", "pretrain-prune"])
def test_recipe(name: str, home: Path) -> None:
    small = ["max_length=16", "validation=0.1", "measure.timed=false", *SMALL]
    given = [word for one in small for word in ("--set", one)]
    new = "train_tokenizer" in (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
    if new:
        size = "crammed-tiny" if name == "pretrain-crammed" else "bert-tiny"
        more = ["--config", size, "--train-tokenizer", "99"]
    else:
        more = [home / "one" / pretrained(home, "one").models[-1].folder]
    said = run_cli(
        "pretrain", *more, "--recipe", name, "--text", home / "text", "--steps", 4, *given, "-o", home / name
    )
    assert said.exit_code == 0, said.output
    model = read_record(home / name).models[-1]
    assert model.phases["pretrain"].steps == 4
    expected = {"pretrain-sparse": 0.8, "pretrain-prune": 0.4}.get(name, 0.0)
    assert model.sparsity.encoder_linear == pytest.approx(expected, abs=0.02)
