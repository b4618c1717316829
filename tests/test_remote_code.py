"""Code of others is never run, nor asked about; our own models bring what a process without sparsebert needs."""

from __future__ import annotations

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertTokenizer

from sparsebert.errors import UserError
from sparsebert.models import shrunk
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.surgeon import shrink
from test_heads import rewrite
from test_load import VOCABULARY
from tiny import FAMILIES, tiny_batch, tiny_model
from tiny_run import assert_refused, run_cli, save_tiny

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
LOADER = "modeling_sparsebert.py"
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python that has imported nothing, with `y` on its standard input."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, input="y\ny\ny\n", timeout=120)


@pytest.mark.process
def test_a_tokenizers_own_code_is_neither_run_nor_asked_about(tmp_path: Path):
    model = save_tiny(tmp_path / "model")
    known = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(known | own), encoding="utf-8")
    (model / "own.py").write_text(CODE, encoding="utf-8")
    done = in_a_process("import sys; from sparsebert.cli import main; main()", "predict", model, "good")
    assert done.returncode != 0 and "y/N" not in done.stdout + done.stderr
    assert_refused(
        run_cli("predict", model, "good", stdin="y\n"), ["tokenizer_config.json asks to run code of its own"]
    )
    assert not list(tmp_path.rglob("ran"))
    for also in ({"auto_map": ["own.OwnTokenizer", None]}, {"auto_map": {"AutoTokenizer": "me/other--own.Own"}}):
        (model / "tokenizer_config.json").write_text(json.dumps(known | also), encoding="utf-8")
        with pytest.raises(UserError, match="never done"):
            load_tokenizer(model)


OTHERS = {
    "own code": {"auto_map": {"AutoModel": "own.OwnModel"}},
    "code of others": {"auto_map": {"AutoModelForMaskedLM": "me/other--own.OwnModel"}},
    "ours for a stock model": {"auto_map": {"AutoConfig": "modeling_sparsebert.SparseBertConfig"}},
    "alibi": {"position_embedding_type": "alibi"},
    "relative positions": {"position_embedding_type": "relative_key_query"},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "other weights": {"transformers_weights": "other.bin"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_would_be_run_as_another_is_refused(name: str, tmp_path: Path):
    model = rewrite(save_tiny(tmp_path / "model"), **OTHERS[name])
    (key,) = OTHERS[name]
    for load in (load_config, load_model, load_tokenizer):
        with pytest.raises(UserError, match=rf"config\.json is of a model with .*; got {key} "):
            load(model)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_the_hub_are_never_loaded(key: str, tmp_path: Path):
    model = rewrite(save_tiny(tmp_path / "model"), **{key: "me/kernels"})
    with pytest.raises(UserError, match=f"{key}.*got 'me/kernels'"):
        load_model(model)


def test_own_code_in_a_model_of_our_classes_is_refused(tmp_path: Path):
    save_model(shrink(tiny_model("bert"), {}), None, tmp_path / "model")
    assert load_model(tmp_path / "model").config.model_type == "sparsebert-bert"
    rewrite(tmp_path / "model", auto_map={"AutoConfig": "own.OwnConfig"})
    with pytest.raises(UserError, match="its own code, which is never run"):
        load_model(tmp_path / "model")


def test_no_call_of_an_auto_class_may_run_code():
    calls = [
        node
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).lower().startswith("auto")
    ]
    loading = [call for call in calls if ast.unparse(call.func).endswith((".from_pretrained", ".from_config"))]
    assert len(loading) >= 6
    for call in loading:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("trust_remote_code") == "False", ast.unparse(call)


def test_a_folder_from_before_loads(tmp_path: Path):
    small = shrink(tiny_model("bert"), {})
    save_model(small, BertTokenizer(vocab=VOCABULARY), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del values["auto_map"]
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (tmp_path / LOADER).unlink()
    assert load_tokenizer(tmp_path)("good")["input_ids"] == [2, 5, 3]
    for again in (load_model(tmp_path), AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        assert type(again) is type(small)
    assert getattr(shrunk, type(small).__name__) is type(small)


LOAD = """
import sys
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
import torch
ids = eval(sys.argv[1])
for folder, out in zip(sys.argv[2::2], sys.argv[3::2]):
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__ == "sparsebert.models.modeling_sparsebert"
    print(type(model).__name__, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("good")["input_ids"])
    model.save_pretrained(out)
    save_file({"logits": model(torch.tensor(ids)).logits.detach()}, out + "/logits")
"""


@pytest.mark.process
def test_a_process_that_did_not_import_sparsebert_gets_our_own_classes(tmp_path: Path):
    ids, models, places = tiny_batch()["input_ids"][:1], [], []
    for family in ("bert", "modernbert"):
        models.append(shrink(tiny_model(family), {}, drop_layers=[0]))
        places.append((tmp_path / family, tmp_path / f"{family}-again"))
        save_model(models[-1], BertTokenizer(vocab=VOCABULARY), places[-1][0])
    done = in_a_process(LOAD, ids.tolist(), *itertools.chain(*places))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{type(small).__name__} [2, 5, 3]" for small in models]
    for small, (made, again) in zip(models, places, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(load_file(again / "logits")["logits"], small(ids).logits)
        for name in ("config.json", LOADER):
            assert (again / name).read_bytes() == (made / name).read_bytes()


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "sparsebert":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Absent())
"""
OLD_LOADER = '''"""Configurations and models made smaller by sparsebert."""
from typing import Any
import sparsebert.models.shrunk
def __getattr__(name: str) -> Any:
    if not name.startswith("Sparse"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(sparsebert.models.shrunk, name)
'''


@pytest.mark.process
def test_a_folder_with_the_loader_of_before_loads_where_sparsebert_is_installed(tmp_path: Path):
    small = shrink(tiny_model("bert"), {}, drop_layers=[0])
    save_model(small, BertTokenizer(vocab=VOCABULARY), tmp_path / "model")
    (tmp_path / "model" / LOADER).write_text(OLD_LOADER, encoding="utf-8")
    ids = tiny_batch()["input_ids"][:1]
    done = in_a_process(LOAD, ids.tolist(), tmp_path / "model", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(load_file(tmp_path / "again" / "logits")["logits"], small(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_carries_the_loader_and_stock_models_do_not(family: str, tmp_path: Path):
    small = shrink(tiny_model(family, "base"), {})
    small.save_pretrained(tmp_path / "own")
    name = type(small).__name__
    values = json.loads((tmp_path / "own" / "config.json").read_text(encoding="utf-8"))
    assert values["auto_map"] == {
        "AutoConfig": f"modeling_sparsebert.{type(small.config).__name__}",
        "AutoModel": f"modeling_sparsebert.{name}",
    }
    again = load_model(tmp_path / "own")
    shrink(again, {}, even=True).save_pretrained(tmp_path / "stock")
    assert not (tmp_path / "stock" / LOADER).exists()
    assert "auto_map" not in json.loads((tmp_path / "stock" / "config.json").read_text(encoding="utf-8"))
