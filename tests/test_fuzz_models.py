"""A model folder in which anything may be wrong loads, or is refused in one line.

`SPARSEBERT_FUZZ` is the number of examples a file; the default keeps the test short.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparsebert.errors import UserError
from sparsebert.models.limits import position_limit
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.source import INDEX_FILE, PLAIN_FILE
from sparsebert.surgeon import plant, shrink
from tiny import tiny_model
from tiny_run import save_tiny

EXAMPLES = int(os.environ.get("SPARSEBERT_FUZZ", "40"))
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
Path_ = tuple[str | int, ...]

DEEP: Any = "[" * 10_000 + "]" * 10_000
NUMBERS = (None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**31, -(2**63), 10**30, 0.5, -1.0, 1e308)
TEXTS = ("", "x", "0", "1", "32", "float32", "float8_e4m3fn", "load", "nn", "gelu", "relu", "sdpa", "../x", "\n", "\0")
NAMES = ("\ud800", "bert", "electra", "sparsebert-bert", "BertModel", "BertForMaskedLM", "[UNK]", "BPE", "é" * 300)
OBJECTS = ({}, {"0": "x"}, {"x": 0}, {"AutoTokenizer": ["a.B", None]}, {"type": "BPE"}, [], [None], [1, 2], [[]], ["x"])
NASTY = st.sampled_from([*NUMBERS, *TEXTS, *NAMES, *OBJECTS])
# Settings that a saved file leaves out, but that libraries read.
ABSENT = {
    "config.json": [
        "torch_dtype", "num_labels", "id2label", "label2id", "problem_type", "tokenizer_class", "quantization_config",
        "_attn_implementation", "attn_implementation", "auto_map", "position_embedding_type", "output_attentions",
        "per_layer_config", "is_encoder_decoder", "chunk_size_feed_forward", "rope_scaling", "sub_configs",
        "name_or_path", "layer_types", "text_config", "return_dict", "experts_implementation", "base_model_tp_plan",
    ],
    "tokenizer_config.json": [
        "auto_map", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens", "model_max_length",
        "padding_side", "truncation_side", "chat_template", "tokenizer_file", "vocab_file", "processor_class",
        "special_tokens_map_file", "fix_mistral_regex", "backend", "model_input_names", "name_or_path",
    ],
    "tokenizer.json": ["truncation", "padding"],
    INDEX_FILE: [],
}  # fmt: skip


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The place of every value in a document, without the words of a vocabulary."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(inside)[:30]:
        yield from places(part, (*at, key))


def changed(document: dict[str, Any], at: Path_, value: Any, gone: bool) -> dict[str, Any]:
    """A copy of a document with another value, or none, in one place."""
    copied = json.loads(json.dumps(document))
    inside = copied
    for key in at[:-1]:
        inside = inside[key]
    if not gone:
        inside[at[-1]] = value
    elif isinstance(inside, list) or at[-1] in inside:
        del inside[at[-1]]
    return copied


@st.composite
def damages(draw: st.DrawFn, document: dict[str, Any], absent: list[str]) -> bytes:
    """The file with one or two other values, or cut short, or with another byte, or nested too deeply."""
    kind = draw(st.sampled_from(["value"] * 6 + ["cut", "byte", "deep"]))
    if kind == "value":
        for _ in range(draw(st.integers(1, 2))):
            found = [*places(document), *((name,) for name in absent)]
            at, value = draw(st.sampled_from(found)), draw(NASTY)
            document = changed(document, at, value, draw(st.integers(0, 5)) == 0)
    content = json.dumps(document).encode()
    where = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:where]
    if kind == "byte":
        return content[:where] + bytes([draw(st.integers(0, 255))]) + content[where + 1 :]
    return content if kind == "value" else content.replace(b":", b":" + DEEP.encode() + b",", 1)


def one_line_or_nothing(load: Callable[[], object]) -> bool:
    """Whether it worked."""
    said = ""
    try:
        load()
    except UserError as error:
        said = str(error)
    assert "\n" not in said and len(said) < 1000
    return not said


def sharded(folder: Path) -> Path:
    """A saved model in two shards with an index."""
    tensors = load_file(folder / PLAIN_FILE)
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / f"{number}.safetensors", {"format": "pt"})
        weight_map |= dict.fromkeys(part, f"{number}.safetensors")
    (folder / PLAIN_FILE).unlink()
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    save_tiny(folder / "stock")
    for name, family in (("shrunk", "bert"), ("roberta", "roberta"), ("modernbert", "modernbert")):
        shutil.copytree(folder / "stock", folder / name)
        model = tiny_model(family, num_labels=2)
        save_model(plant(shrink(model, {}), 1, layers=[0]) if name == "shrunk" else model, None, folder / name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(folder / "stock" / file, folder / name)
    sharded(Path(shutil.copytree(folder / "stock", folder / "sharded")))
    return {home.name: home for home in folder.iterdir()}


CASES = [
    *((home, "config.json") for home in ("stock", "shrunk", "roberta", "modernbert")),
    ("stock", "tokenizer.json"),
    ("stock", "tokenizer_config.json"),
    ("sharded", INDEX_FILE),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("home", "name"), CASES)
def test_whatever_a_file_holds_is_loaded_or_refused_in_one_line(
    home: str, name: str, homes: dict[str, Path], record_testsuite_property: Callable[[str, object], None]
):
    file = homes[home] / name
    good = file.read_bytes()
    counts = {"loaded": 0, "refused": 0}

    @FUZZ
    @given(damages(json.loads(good), ABSENT[name]))
    def check(content: bytes) -> None:
        file.write_bytes(content)
        loads = {
            "tokenizer.json": [load_tokenizer],
            "tokenizer_config.json": [load_tokenizer],
            INDEX_FILE: [load_model],
        }.get(name, [load_model, load_tokenizer, lambda folder: position_limit(load_config(folder))])
        for load in loads:
            counts["loaded" if one_line_or_nothing(lambda load=load: load(homes[home])) else "refused"] += 1

    try:
        check()
    finally:
        file.write_bytes(good)
    record_testsuite_property(f"{home}/{name}", counts)
    assert counts["refused"] > 0
