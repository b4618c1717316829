import re

import pytest
import yaml

from example_record import example_record, sparse_record
from sparsebert.errors import UserError
from sparsebert.report import model_card


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def code(card: str) -> str:
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found
    return found[1]


def test_the_card_has_front_matter_of_the_hub():
    values = front_matter(model_card(example_record(), "4x"))
    assert values["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert values["library_name"] == "transformers"
    assert "sparsebert" in values["tags"]
    assert "license" not in values


@pytest.mark.parametrize("model", ["/somewhere/my-model", "./my-model", "../a/b", "a: b\nlicense: mit"])
def test_a_local_model_is_no_base_model_of_the_hub(model):
    values = front_matter(model_card(example_record(model=model), "4x"))
    assert set(values) == {"library_name", "tags"}


def test_the_card_holds_the_numbers_of_the_record_and_how_they_came_about():
    card = model_card(example_record(), "4x")
    for words in (
        "# all-MiniLM-L6-v2 on sst2: 4x",
        "3.9× faster encoder than dense on this machine, 0.7 points of accuracy lost, 35% smaller file.",
        "75.2% of the encoder's linear weights, 35.2% of all parameters, 35.2% of the bytes on disk.",
        "| dense | 91.3% | – | 1.00× (0.98–1.01) | 14.6 (14.4–15.0) | 90.8 MB | 22.7 M |",
        "| 4x (4× faster) | 90.6% | −0.7 | 3.92× (3.85–3.97) |",
        "- **Accuracy**: 872 examples of the validation split of sst2, seed 0.",
        "| 5 | 0 | 192 |",
        "sparsebert compress --task sst2 --speedup 2 --speedup 4 --speedup 8 --seed 0",
        "Trained for 4,210 steps (2 epochs of 67,349 examples) in bfloat16, taught by the dense model",
        "2.4e-07",
    ):
        assert words in card, words


def test_dropped_layers_are_named():
    assert "| 4 (dropped) | 0 | 0 |" in model_card(example_record(), "8x")


@pytest.mark.parametrize(
    ("recipe", "name", "needed"), [({}, "4x", True), ({"even": True}, "4x", False), ({}, "dense", False)]
)
def test_the_code_that_loads_imports_what_the_folder_needs(recipe, name, needed):
    text = code(model_card(example_record(**recipe), name))
    compile(text, "card", "exec")
    assert ("import sparsebert" in text) is needed


def test_the_output_difference_is_said_to_be_a_ratio():
    card = model_card(example_record(), "4x")
    assert "Largest difference of a logit, masked against shrunk, over the largest logit: 2.4e-07." in card


def test_missing_parts_are_left_out_of_the_card():
    card = model_card(sparse_record(), "4x")
    assert "Accuracy" not in card
    assert "Trained for" not in card
    assert "| 4x (4× faster) | – | – | 58.8 MB (−35.2%) |" in card


def test_a_text_of_the_record_cannot_break_the_card():
    record = example_record().model_copy(update={"command": "x ``` y", "task": "a|b\n# c"})
    card = model_card(record, "4x")
    assert "````sh\nx ``` y\n````" in card
    assert r"# all-MiniLM-L6-v2 on a\|b \# c: 4x" in card


def test_an_unknown_model_is_an_error_with_the_nearest_name():
    with pytest.raises(UserError, match=r"Unknown model '4'; allowed: dense, 2x, 4x, 8x; Did you mean '4x'\?"):
        model_card(example_record(), "4")
