"""`push` and `pull` against a hub on this machine, and against none."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import sparsebert
from example_record import example_record
from fake_hub import FakeHub, fake_hub
from sparsebert.deployment.manifest import read_manifest, write_manifest
from sparsebert.files import digests
from sparsebert.models.load import load_model, load_tokenizer, save_model
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import shrink
from sparsebert.records import Record, write_record
from sparsebert.runs.export import Wish, export
from test_heads import rewrite
from tiny import HEADS
from tiny_run import assert_refused, run_cli, save_tiny

SOME = {"layer.0.heads": torch.arange(HEADS) != 1}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch) as made:
        yield made


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each kind."""
    home = tmp_path_factory.mktemp("models")
    save_tiny(home / "plain")
    model, tokenizer = load_model(home / "plain"), load_tokenizer(home / "plain")
    save_model(shrink(model, SOME), tokenizer, home / "shrunk")
    save_model(shrink(model, SOME), tokenizer, home / "packed", Packing())
    save_model(shrink(model, SOME), tokenizer, home / "codes", Packing("int8", embeddings="int4"))
    export(Wish(str(home / "plain"), home / "exported", ("onnx",)))
    return home


def contents(folder: Path) -> dict[str, str]:
    return digests([folder], folder)


def card_of(hub: FakeHub, repo: str) -> str:
    return hub.repos[repo]["main"]["README.md"].decode()


def test_another_form_of_a_model_takes_the_place_of_the_first(models: Path, hub: FakeHub, tmp_path: Path):
    for kind, there in (
        ("shrunk", "model.safetensors"),
        ("packed", "packed.safetensors"),
        ("exported", "deployment.json"),
    ):
        assert run_cli("push", models / kind, "me/model").exit_code == 0
        hub.repos["me/model"]["main"].setdefault("notes.txt", b"kept")
        files = set(hub.repos["me/model"]["main"])
        assert (
            files & {"model.safetensors", "packed.safetensors", "deployment.json"} == {there} and "notes.txt" in files
        )


def test_the_card_of_a_run_does_not_go_into_another_form(models: Path, hub: FakeHub, tmp_path: Path):
    home = tmp_path / "run"
    shutil.copytree(models / "shrunk", home / "2x")
    (home / "2x" / "README.md").write_text("the card of this form", encoding="utf-8")
    assert run_cli("pack", home / "2x", "-o", tmp_path / "kept").exit_code == 0
    assert (tmp_path / "kept" / "README.md").is_file()
    record = example_record()
    [first, *_] = record.models
    write_record(record.model_copy(update={"models": (first.model_copy(update={"name": "2x", "folder": "2x"}),)}), home)
    assert run_cli("pack", home / "2x", "-o", tmp_path / "packed").exit_code == 0
    export(Wish(str(home / "2x"), tmp_path / "programs", ("onnx",)))
    for made in ("packed", "programs"):
        assert not (tmp_path / made / "README.md").exists()
        assert run_cli("push", tmp_path / made, f"me/{made}").exit_code == 0
    assert "## Programs" in card_of(hub, "me/programs") and "without sparsebert" not in card_of(hub, "me/packed")


def test_what_is_to_be_private_never_gets_public(models: Path, hub: FakeHub):
    assert run_cli("push", models / "plain", "me/open").exit_code == 0
    before = dict(hub.repos["me/open"]["main"])
    refused = run_cli("push", models / "shrunk", "me/open", "--private")
    assert_refused(refused, ["The repository me/open is there already, and public"])
    assert hub.repos["me/open"]["main"] == before


@pytest.mark.parametrize("kind", ["plain", "shrunk", "packed", "codes", "exported"])
def test_what_is_pushed_comes_back_the_same(kind: str, models: Path, hub: FakeHub, tmp_path: Path):
    said = run_cli("push", models / kind, f"me/{kind}", "--private", "--message", "the first")
    assert said.exit_code == 0, said.output
    assert "Commit: " in said.stdout and f"sparsebert pull me/{kind}" in said.stdout
    assert hub.messages == ["the first"] and hub.private == {f"me/{kind}"}
    assert "README.md" not in contents(models / kind)
    back = run_cli("pull", f"me/{kind}")
    assert back.exit_code == 0, back.output
    assert f'sparsebert predict {kind} "a text"' in back.stdout
    found = contents(tmp_path / kind)
    assert found.pop("README.md") is not None
    assert found == contents(models / kind)
    assert [path.name for path in tmp_path.iterdir()] == [kind]
    assert run_cli("predict", kind, "good").exit_code == 0
    front = yaml.safe_load(card_of(hub, f"me/{kind}").split("---\n")[1])
    assert front["tags"] == ["sparsebert"] and front["pipeline_tag"] == "text-classification"


def test_large_files_go_by_git_lfs(models: Path, hub: FakeHub, tmp_path: Path):
    hub.large = ".safetensors"
    assert run_cli("push", models / "shrunk", "me/large").exit_code == 0
    weights = (models / "shrunk" / "model.safetensors").read_bytes()
    assert hub.stored == {hashlib.sha256(weights).hexdigest(): weights}
    assert run_cli("pull", "me/large").exit_code == 0
    assert contents(tmp_path / "large").items() >= contents(models / "shrunk").items()


def test_cards_say_how_to_load_from_the_repository(models: Path, hub: FakeHub):
    for kind in ("plain", "shrunk", "packed", "exported"):
        assert run_cli("push", models / kind, f"me/{kind}").exit_code == 0
    assert 'sparsebert predict me/shrunk "A sentence."' in card_of(hub, "me/shrunk")
    assert 'from_pretrained("me/shrunk", trust_remote_code=True)' in card_of(hub, "me/shrunk")
    assert "Or without sparsebert" in card_of(hub, "me/shrunk")
    assert "Or without sparsebert" not in card_of(hub, "me/packed")
    assert "| 1 | 3 | 24 |" in card_of(hub, "me/shrunk")
    assert "Plain `transformers` is enough." in card_of(hub, "me/plain")
    assert "sparsebert pull me/exported\nsparsebert predict exported" in card_of(hub, "me/exported")
    assert "| onnx | " in card_of(hub, "me/exported")


def of_a_run(home: Path, models: Path) -> Path:
    """The shrunk model as a member of a run, with the record of another one that has a model of that name."""
    home.mkdir()
    member = home / "4x"
    save_model(load_model(models / "shrunk"), load_tokenizer(models / "shrunk"), member)
    record = example_record()
    files = digests([member], member)
    found = tuple(one.model_copy(update={"files": files, "folder": one.name}) for one in record.models)
    write_record(Record.model_validate(record.model_copy(update={"models": found}).model_dump()), home)
    return member


def test_the_card_of_a_member_of_a_run_is_of_its_record(models: Path, hub: FakeHub, tmp_path: Path):
    member = of_a_run(tmp_path / "run", models)
    assert run_cli("push", member, "me/small").exit_code == 0
    card = card_of(hub, "me/small")
    for words in (
        "base_model: sentence-transformers/all-MiniLM-L6-v2",
        "3.6× faster than dense on this machine",
        "75.2% of the encoder's linear weights, 35.2% of all parameters, 35.2% of the bytes on disk.",
        'AutoModelForSequenceClassification.from_pretrained("me/small", trust_remote_code=True)',
        'sparsebert predict me/small "A sentence."',
    ):
        assert words in card, words
    (member / "README.md").write_text("mine", encoding="utf-8")
    assert run_cli("push", member, "me/small", "--revision", "other").exit_code == 0
    assert hub.repos["me/small"]["other"]["README.md"] == b"mine"
    assert card_of(hub, "me/small") == card
    assert run_cli("pull", "me/small", "-o", "other", "--revision", "other").exit_code == 0
    assert (tmp_path / "other" / "README.md").read_text() == "mine"


def test_the_card_of_an_export_says_what_the_run_says_of_its_model(models: Path, hub: FakeHub, tmp_path: Path):
    member = of_a_run(tmp_path / "run", models)
    shutil.copytree(models / "exported", tmp_path / "programs")
    manifest = read_manifest(tmp_path / "programs")
    write_manifest(manifest.model_copy(update={"model": str(member)}), tmp_path / "programs")
    assert run_cli("push", "programs", "me/programs").exit_code == 0
    card = card_of(hub, "me/programs")
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2" in card and "3.6× faster than dense" in card
    assert "75.2% of the encoder's linear weights" in card and str(tmp_path) not in card


def test_cards_of_models_that_are_fine_tuned_for_no_labels(hub: FakeHub, tmp_path: Path):
    for task, pipeline, words in (
        ("base", "feature-extraction", 'load_model("me/base")'),
        ("masked_lm", "fill-mask", 'sparsebert predict me/masked_lm "A sentence." --loss'),
    ):
        save_tiny(tmp_path / task, task)
        assert run_cli("push", task, f"me/{task}").exit_code == 0
        card = card_of(hub, f"me/{task}")
        assert words in card and f"pipeline_tag: {pipeline}" in card
        assert "base model, scores and speed are not known" in card


def test_files_that_the_run_did_not_measure_are_not_sent(models: Path, hub: FakeHub, tmp_path: Path):
    member = of_a_run(tmp_path / "run", models)
    rewrite(member, id2label={"0": "a", "1": "b"})
    assert_refused(run_cli("push", member, "me/small"), ["not those that its run measured", "got config.json"])
    assert hub.asked == []


def test_a_dry_run_connects_to_nothing_and_needs_no_token(models: Path, tmp_path: Path):
    said = run_cli("push", models / "shrunk", "me/small", "--dry-run", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    expected = {file.name: file.stat().st_size for file in (models / "shrunk").iterdir()}
    assert found["files"].pop("README.md") > 100
    assert (found["files"], found["card_is_new"], found["commit"]) == (expected, True, None)
    table = run_cli("push", models / "shrunk", "me/small", "--dry-run").stdout
    assert "model.safetensors" in table and "nothing was sent" in table
    assert list(tmp_path.iterdir()) == []


def damaged(folder: Path, models: Path) -> Path:
    save_tiny(folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("classifier.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def changed(folder: Path, models: Path) -> Path:
    shutil.copytree(models / "exported", folder)
    with (folder / read_manifest(folder).programs[0].file).open("ab") as file:
        file.write(b" ")
    return folder


def empty(folder: Path, models: Path) -> Path:
    folder.mkdir()
    return folder


REFUSED: dict[str, tuple[Any, str]] = {
    "no folder": (lambda folder, models: folder, "There is no such folder"),
    "no model": (empty, "no config.json, so it is not a model"),
    "damaged": (damaged, "do not fit its config.json"),
    "changed": (changed, "is not the one that was exported"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_not_sent(case: str, models: Path, hub: FakeHub, tmp_path: Path):
    make, words = REFUSED[case]
    assert_refused(run_cli("push", make(tmp_path / "model", models), "me/small"), [words])
    assert hub.asked == []


def test_a_run_is_no_model(models: Path, hub: FakeHub, tmp_path: Path):
    of_a_run(tmp_path / "run", models)
    assert_refused(
        run_cli("push", "run", "me/small"), ["so it is not a model; got run; give one of the models in it: 4x"]
    )
    assert hub.asked == []


@pytest.mark.parametrize("name", ["a/b/c", "me/--", "me/a b", "../x", ""])
def test_bad_names_are_refused_before_anything_else(name: str, models: Path, hub: FakeHub):
    for command in (("push", models / "plain", name), ("pull", name)):
        assert_refused(run_cli(*command), ["no name of a repository"])
    assert_refused(run_cli("push", models / "plain", "plain"), ["no name of a repository", "OWNER/NAME"])
    assert hub.asked == []


def test_without_a_token_nothing_is_asked(models: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    assert_refused(run_cli("push", models / "plain", "me/small"), ["no token for the hub", "hf auth login"])
    for wrong in ("hf_ä", "two words"):
        monkeypatch.setenv("HF_TOKEN", wrong)
        for command in (("push", models / "plain", "me/small"), ("pull", "me/small", "-o", tmp_path / "out")):
            assert_refused(run_cli(*command), ["HF_TOKEN holds no token", "without spaces", "hf auth login"])
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_one_line(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    for command in (("push", models / "plain", "me/small"), ("pull", "me/small")):
        assert_refused(run_cli(*command), ["The hub cannot be reached; got http://127.0.0.1:9; connect"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for command in (("push", models / "plain", "me/small"), ("pull", "me/small")):
        assert_refused(run_cli(*command), ["The hub cannot be reached", "unset HF_HUB_OFFLINE"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "words"), [(403, "hf auth login"), (500, "The hub")])
def test_a_hub_that_refuses_is_one_line(status: int, words: str, models: Path, hub: FakeHub, tmp_path: Path):
    hub.refuses = status
    assert_refused(run_cli("push", models / "plain", "me/small"), [words])
    assert_refused(run_cli("pull", "me/small"), ["The hub"])
    assert list(tmp_path.iterdir()) == [] and hub.repos == {}


def test_pull_refuses_what_is_there_and_what_is_not(models: Path, hub: FakeHub, tmp_path: Path):
    assert_refused(run_cli("pull", "me/none"), ["no repository me/none that you may see"])
    assert run_cli("push", models / "plain", "me/small").exit_code == 0
    assert_refused(run_cli("pull", "me/small", "--revision", "v9"), ["no such revision", "got v9"])
    hub.repos["me/empty"] = {"main": {"notes.txt": b"nothing"}}
    assert_refused(run_cli("pull", "me/empty"), ["me/empty holds no model that opens", "no config.json"])
    (tmp_path / "small").mkdir()
    before = len(hub.asked)
    assert_refused(run_cli("pull", "me/small"), ["exists already", "--output"])
    assert len(hub.asked) == before
    assert list(tmp_path.rglob("*")) == [tmp_path / "small"]


def test_only_files_of_the_model_are_sent(hub: FakeHub, tmp_path: Path):
    save_tiny(tmp_path / "model")
    (tmp_path / "model" / ".secret").write_text("x", encoding="utf-8")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "model" / "checkpoint-4").mkdir()
    (tmp_path / "model" / "checkpoint-4" / "state.pt").write_bytes(b"x")
    assert run_cli("push", "model", "me/small").exit_code == 0
    sent = set(hub.repos["me/small"]["main"])
    assert sent == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sparsebert.load_model("model").config.num_labels == 2
