"""What lies beside the weights goes along with them, and what does not belong to the model stays where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsebert.errors import UserError
from sparsebert.models.companions import carry_over, companions
from sparsebert.models.source import disk_bytes
from tiny_run import assert_refused, run_cli, save_tiny

STALE = (
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
)
NO_PART = (".gitattributes", ".git/objects/ab", "checkpoint-500/optimizer.pt", "__pycache__/code.pyc")
OTHERS = (
    "README.md",
    "model_head.pkl",
    "onnx/model.onnx",
    "2_Dense/model.safetensors",
    "2_Dense/config.json",
    "checkpoint-best/note.txt",
    "modeling_own.py",
)


def write(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")


def names_of(folder: Path) -> set[str]:
    return {str(name) for name in companions(folder)}


def test_all_but_weights_states_and_hidden_files_belong_to_a_model(tmp_path: Path):
    write(tmp_path, (*STALE, *NO_PART, *OTHERS, "config.json"))
    assert names_of(tmp_path) == {*OTHERS, "config.json"}


def test_files_land_in_the_same_places_and_replace_none(tmp_path: Path):
    write(tmp_path / "from", OTHERS)
    write(tmp_path / "to", ("README.md",))
    (tmp_path / "to" / "README.md").write_text("new", encoding="utf-8")
    carried = carry_over(tmp_path / "from", companions(tmp_path / "from"), tmp_path / "to")
    assert {str(name) for name in carried} == {*OTHERS} - {"README.md"}
    found = {str(file.relative_to(tmp_path / "to")): file.read_text() for file in (tmp_path / "to").rglob("*.*")}
    assert found == {name: name for name in OTHERS} | {"README.md": "new"}


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    for target in ("../secret.txt", "../nowhere", "..", "inner"):
        model = tmp_path / "model"
        (model / "inner").mkdir(parents=True, exist_ok=True)
        (model / "link").symlink_to(target)
        with pytest.raises(UserError, match=r"the model's own can be carried over; got .*link, a link; remove it, or"):
            companions(model)
        (model / "link").unlink()
    (model / "note.txt").write_text("own", encoding="utf-8")
    (model / "link").symlink_to("note.txt")
    assert names_of(model) == {"note.txt", "link"}


def test_a_folder_of_the_hubs_cache_is_made_of_links_to_its_blobs(tmp_path: Path):
    snapshot = tmp_path / "models--own--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    write(tmp_path / "models--own--name", ("blobs/1",))
    (snapshot / "config.json").symlink_to("../../blobs/1")
    carry_over(snapshot, companions(snapshot), tmp_path / "copy")
    assert not (tmp_path / "copy" / "config.json").is_symlink()
    assert (tmp_path / "copy" / "config.json").read_text() == "blobs/1"


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([{"path": "1_Pooling", "type": "own.Pooling"}], r"names folders that are not there; got 1_Pooling; download"),
        ([{"path": "1_Pooling"}], "The list of modules is not readable"),
        ({"path": 1}, "The list of modules is not readable"),
    ],
)
def test_modules_that_a_download_left_out_are_missed(listed: Any, message: str, tmp_path: Path):
    (tmp_path / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        companions(tmp_path)


def test_bytes_are_those_of_the_files_that_are_read(tmp_path: Path):
    for name, count in (("model-1.safetensors", 30), ("model-2.safetensors", 12), ("old.safetensors", 500)):
        (tmp_path / name).write_bytes(b"x" * count)
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert disk_bytes(tmp_path) == 42
    (tmp_path / "model.safetensors").write_bytes(b"x" * 7)
    assert disk_bytes(tmp_path) == 7


def test_a_folder_without_weights_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"No weights .* found; got .*; give the folder of a saved model"):
        disk_bytes(tmp_path)


def test_a_folder_that_cannot_be_packed_whole_is_refused(tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    (folder / "1_Pooling").symlink_to(tmp_path)
    assert_refused(run_cli("pack", folder, "-o", tmp_path / "packed"), ["1_Pooling, a link", "put a copy in its place"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.filterwarnings("ignore")
def test_a_packed_embedding_model_gives_the_same_embeddings(tmp_path: Path):
    library: Any = pytest.importorskip("sentence_transformers")
    modules: Any = pytest.importorskip("sentence_transformers.models")
    words = modules.Transformer(str(save_tiny(tmp_path / "model", "base")))
    parts = [words, modules.Pooling(words.get_word_embedding_dimension(), "max"), modules.Normalize()]
    model = library.SentenceTransformer(modules=parts, device="cpu")
    expected = model.encode(["w1 good", "bad w2 w3"])
    model.save(str(tmp_path / "whole"))
    assert run_cli("pack", tmp_path / "whole", "-o", tmp_path / "packed").exit_code == 0
    assert run_cli("pack", tmp_path / "packed", "-o", tmp_path / "plain", "--unpack").exit_code == 0
    for name in ("packed", "plain"):
        again = library.SentenceTransformer(str(tmp_path / name), device="cpu")
        assert [type(part).__name__ for part in again] == ["Transformer", "Pooling", "Normalize"]
        assert (again.encode(["w1 good", "bad w2 w3"]) == expected).all()


@pytest.mark.filterwarnings("ignore")
def test_a_packed_cross_encoder_keeps_its_activation(tmp_path: Path):
    library: Any = pytest.importorskip("sentence_transformers")
    folder = save_tiny(tmp_path / "model", num_labels=1)
    model = library.CrossEncoder(str(folder), activation_fn=torch.nn.Tanh(), device="cpu")
    expected = model.predict([("w1 good", "bad w2 w3")])
    model.save_pretrained(str(tmp_path / "whole"))
    assert run_cli("pack", tmp_path / "whole", "-o", tmp_path / "packed").exit_code == 0
    again = library.CrossEncoder(str(tmp_path / "packed"), device="cpu")
    assert isinstance(again.activation_fn, torch.nn.Tanh)
    assert (again.predict([("w1 good", "bad w2 w3")]) == expected).all()
