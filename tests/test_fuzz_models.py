"""A model folder in which anything may be wrong loads, or is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fuzz import fuzzed
from sparsebert.errors import UserError
from sparsebert.models.limits import position_limit
from sparsebert.models.load import load_config, load_model, load_tokenizer, save_model
from sparsebert.models.pack import METADATA
from sparsebert.models.source import INDEX_FILE, PACKED_FILE, PLAIN_FILE
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from tiny import ARCHITECTURES, tiny_model
from tiny_run import save_tiny

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
    tokenizer = load_tokenizer(folder / "stock")
    for family in ARCHITECTURES:
        model = tiny_model(family, num_labels=2)
        save_model(model, tokenizer, folder / family)
        save_model(shrink(model, {}, drop_layers=[1]), tokenizer, folder / f"sparse-{family}")
    save_model(convert_ffn(tiny_model("bert", num_labels=2), 1, layers=[0]), tokenizer, folder / "trees")
    save_model(shrink(tiny_model("bert", num_labels=2), {}), tokenizer, folder / "packed", Packing())
    sharded(Path(shutil.copytree(folder / "stock", folder / "sharded")))
    return {home.name: home for home in folder.iterdir()}


def weights_header(content: bytes) -> tuple[dict[str, Any], Callable[[bytes], bytes]]:
    """The description in front of a weight file, and the file with another one."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), lambda header: len(header).to_bytes(8, "little") + header + content[end:]


def packed_contents(content: bytes) -> tuple[dict[str, Any], Callable[[bytes], bytes]]:
    """The description of packed matrices inside of that, and the file with another one."""
    header, write = weights_header(content)

    def around(contents: bytes) -> bytes:
        text = contents.decode("utf-8", errors="replace")
        return write(json.dumps(header | {"__metadata__": {"format": "pt", METADATA: text}}).encode())

    return json.loads(header["__metadata__"][METADATA]), around


def plain(content: bytes) -> tuple[dict[str, Any], Callable[[bytes], bytes]]:
    return json.loads(content), lambda damaged: damaged


def load_all(folder: Path) -> None:
    """A configuration decides about everything."""
    load_model(folder)
    load_tokenizer(folder)
    position_limit(load_config(folder))


CASES = [
    *((family, "config.json", plain, load_all) for family in ARCHITECTURES),
    *((f"sparse-{family}", "config.json", plain, load_all) for family in ARCHITECTURES),
    ("trees", "config.json", plain, load_all),
    ("stock", "tokenizer.json", plain, load_tokenizer),
    ("stock", "tokenizer_config.json", plain, load_tokenizer),
    ("sharded", INDEX_FILE, plain, load_model),
    ("stock", PLAIN_FILE, weights_header, load_model),
    ("packed", PACKED_FILE, weights_header, load_model),
    ("packed", PACKED_FILE, packed_contents, load_model),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("home", "name", "read", "load"), CASES)
def test_whatever_a_file_holds_is_loaded_or_refused_in_one_line(
    home: str,
    name: str,
    read: Callable[[bytes], tuple[dict[str, Any], Callable[[bytes], bytes]]],
    load: Callable[[Path], object],
    homes: dict[str, Path],
    record_testsuite_property: Callable[[str, object], None],
):
    file = homes[home] / name
    good = file.read_bytes()
    document, written = read(good)
    assert one_line_or_nothing(lambda: load(homes[home]))
    counts = {"loaded": 0, "refused": 0}

    @fuzzed
    @given(damages(document, ABSENT.get(name, [])))
    def check(damaged: bytes) -> None:
        file.write_bytes(written(damaged))
        counts["loaded" if one_line_or_nothing(lambda: load(homes[home])) else "refused"] += 1

    try:
        check()
    finally:
        file.write_bytes(good)
    record_testsuite_property(f"{home}/{name}/{read.__name__}", counts)
    assert counts["refused"] > 0
