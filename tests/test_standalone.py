"""The modelling file of a folder, in a process that cannot import sparsebert: every family, all in one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.models.blocks import places_of
from sparsebert.models.families import HeadName
from sparsebert.models.heads import AUTO
from sparsebert.models.hidden import narrow
from sparsebert.models.load import save_model
from sparsebert.models.modeling_sparsebert import PLACES
from sparsebert.models.storage import Packing
from sparsebert.models.surgeon import convert_ffn, shrink
from test_remote_code import ABSENT, LOADER, in_a_process
from test_surgeon import ATTENTION
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, tiny_batch, tiny_model

TRANSFORMERS = tuple(family for family in FAMILIES if not registry.get("family", family).is_own)
SOME, ONE = torch.arange(HEADS) != 1, torch.arange(HEADS) == 2
FEW, NO_HEAD, NO_NEURON = torch.arange(NEURONS) % 3 == 0, torch.zeros(HEADS) > 0, torch.zeros(NEURONS) > 0
SHAPES: dict[str, dict[str, Any]] = {
    "uneven": {
        "keep": {"layer.1.heads": SOME, "layer.1.neurons": FEW, "layer.2.heads": ONE},
        "drop_layers": [0],
    },
    "empty": {
        "keep": {
            "layer.0.heads": NO_HEAD,
            "layer.0.neurons": FEW,
            "layer.1.neurons": NO_NEURON,
            f"layer.{LAYERS - 1}.heads": NO_HEAD,
            f"layer.{LAYERS - 1}.neurons": NO_NEURON,
        }
    },
    "narrow": {"keep": {"layer.0.heads": SOME, "layer.1.heads": NO_HEAD}, "drop_layers": [0]},
}
# What surrounds the layers does not care which of them are left.
CASES: tuple[tuple[str, HeadName], ...] = (
    *((shape, "classification") for shape in SHAPES),
    ("uneven", "masked_lm"),
    ("uneven", "base"),
)

RUN = """
import json
from pathlib import Path
import torch, transformers
from safetensors.torch import save_file
home = Path(sys.argv[1])
batch, found = torch.load(home / "batch"), {}
for case in json.loads((home / "cases").read_text()):
    auto, again = getattr(transformers, case["auto"]), home / "again" / case["folder"]
    options = {"trust_remote_code": True, "attn_implementation": case["attention"]}
    model = auto.from_pretrained(home / case["folder"], **options)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        output = model(**batch, output_attentions=case["attention"] == "eager")
    found[case["name"]] = output[0]
    found |= {f"{case['name']} map {place}": one for place, one in enumerate(output.attentions or ())}
    model.save_pretrained(again)
    config = transformers.AutoConfig.from_pretrained(home / case["folder"], trust_remote_code=True)
    assert type(config).__name__ == type(model.config).__name__
encoder = transformers.AutoModel.from_pretrained(home / "bert-uneven-classification", trust_remote_code=True)
encoder.save_pretrained(home / "encoder")
save_file({name: tensor.contiguous() for name, tensor in found.items()}, home / "found")
said = {}
for folder in sorted((home / "refused").iterdir()):
    try:
        transformers.AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    except ImportError as error:
        said[folder.name] = str(error)
(home / "said").write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders of models, what our own classes give, and what a process without sparsebert made of them."""
    home = tmp_path_factory.mktemp("standalone")
    cases, expected = [], {}
    for family in TRANSFORMERS:
        for shape, task in CASES:
            folder = f"{family}-{shape}-{task}"
            small = shrink(tiny_model(family, task), **SHAPES[shape])
            save_model(narrow(small, range(0, HIDDEN, 2)) if shape == "narrow" else small, None, home / folder)
            for attention in (way for name, way in ATTENTION if name == family):
                name = f"{folder}-{attention}"
                expected |= outputs(name, AUTO[task].from_pretrained(home / folder, attn_implementation=attention))
                cases.append({"folder": folder, "name": name, "auto": AUTO[task].__name__, "attention": attention})
    torch.save(tiny_batch(), home / "batch")
    (home / "cases").write_text(json.dumps(cases), encoding="utf-8")
    save_refused(home / "refused")
    done = in_a_process(ABSENT + RUN, home)
    assert done.returncode == 0, done.stderr
    torch.save(expected, home / "expected")
    yield home
    shutil.rmtree(home)


def outputs(name: str, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The first output, and the attention maps where there are any."""
    maps = model.config._attn_implementation == "eager"
    with torch.no_grad():
        output = model(**tiny_batch(), output_attentions=maps)
    return {name: output[0]} | {f"{name} map {place}": one for place, one in enumerate(output.attentions or ())}


def save_refused(folder: Path) -> None:
    """What the file cannot load."""
    save_model(convert_ffn(tiny_model("bert"), depth=2, layers=[1]), None, folder / "trees")
    save_model(shrink(tiny_model("bert"), {}), None, folder / "packed", Packing())
    save_model(shrink(tiny_model("crammed-bert"), {}), None, folder / "crammed")
    save_model(shrink(tiny_model("bert", "pair_similarity"), {}), None, folder / "pairs")


@pytest.mark.process
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_the_file_alone_computes_what_our_own_classes_compute(family: str, home: Path):
    expected, found = torch.load(home / "expected"), load_file(home / "found")
    assert set(found) == set(expected)
    names = [name for name in expected if name.startswith(f"{family}-")]
    assert len(names) >= len(CASES)
    for name in names:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.process
def test_a_model_saved_by_the_file_is_the_same_folder_again(home: Path):
    folders = sorted((home / "again").iterdir())
    assert len(folders) == len(TRANSFORMERS) * len(CASES)
    for again in folders:
        before = json.loads((home / again.name / "config.json").read_text(encoding="utf-8"))
        assert json.loads((again / "config.json").read_text(encoding="utf-8")) == before
        assert (again / LOADER).read_bytes() == (home / again.name / LOADER).read_bytes()


@pytest.mark.process
def test_another_auto_class_than_the_one_saved_goes_too_and_is_saved_as_such(home: Path):
    values = json.loads((home / "encoder" / "config.json").read_text(encoding="utf-8"))
    assert values["architectures"] == ["SparseBertModel"]
    assert values["auto_map"]["AutoModel"] == "modeling_sparsebert.SparseBertModel"


@pytest.mark.process
def test_what_needs_the_package_is_said_in_one_sentence(home: Path):
    said = json.loads((home / "said").read_text(encoding="utf-8"))
    words = {
        "crammed": "A model of the class SparseCrammedBertConfig",
        "packed": "A packed model",
        "pairs": "A SparseBertForPairSimilarity",
        "trees": "A model with fast feedforward layers",
    }
    assert said == {
        name: f"{what} cannot be loaded without its package: pip install sparsebert" for name, what in words.items()
    }


def test_the_file_and_the_families_name_the_same_places():
    assert {places.name: places for places in PLACES} == {
        family: places_of(registry.get("family", family)) for family in TRANSFORMERS
    }
