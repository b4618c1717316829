"""Recipes of all kinds of damage and nonsense: each is read, or refused in one line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from fuzz import assert_short, fuzzed
from sparsebert.api import default_folder
from sparsebert.errors import UserError
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import SHIPPED, flat_values, load_recipe, parse_recipe
from sparsebert.recipe.plain_yaml import NotPlainError, check_plain, read_yaml
from sparsebert.runs.sweep import axis, points

TEXTS = [file.read_text(encoding="utf-8") for file in sorted(SHIPPED.glob("*.yaml"))]
KEYS = sorted({key for text in TEXTS for key, _ in flat_values(parse_recipe(yaml.safe_load(text)).plain())})
ODD = (
    *(
        "",
        "~",
        "[]",
        "{}",
        "[[]]",
        "- ",
        "? ",
        ": ",
        ":",
        ",",
        "[",
        "]",
        "{",
        "}",
        "|",
        ">",
        "%",
        "@",
        "`",
        "#",
        "'",
        '"',
    ),
    *(
        "&a ",
        "*a",
        "<<: *a",
        "!!int ",
        "!!python/name:os.system ",
        "!!binary ",
        "!x ",
        "---\n",
        "...\n",
        "\t",
        "\r",
        "\x85",
    ),
    *(
        ".nan",
        ".inf",
        "-.inf",
        "1e999",
        "1.0e+999",
        "-1",
        "0",
        "9" * 400,
        "0b_",
        "0x_",
        "1:30",
        "2026-02-30",
        "=",
        "yes",
    ),
    *("\0", "\x1b[2J", "\u202e", "\ufeff", "\ud800", "é" * 200, "../../x", "/etc", "a" * 3000, "[" * 60, "{a: " * 60),
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=9)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: Callable[..., Any]) -> str:
    """A recipe that ships, with parts of it cut out, doubled, or put in the place of others, or odd marks put in."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        put = draw(st.sampled_from(ODD) | st.just(text[start:end] * 2) | st.text(max_size=8))
        text = text[:start] + put + text[end if draw(st.booleans()) else start :]
    return text


def outcome(read: Callable[[], Recipe]) -> None:
    """Either a recipe that is the same after it was written down, in a folder below `runs`, or an error of one line."""
    try:
        recipe = read()
    except UserError as error:
        assert_short(error)
        event("refused")
        return
    event("read")
    again = parse_recipe(json.loads(recipe.model_dump_json(by_alias=True)))
    assert again == recipe and again.hash == recipe.hash
    folder = default_folder(recipe)
    assert folder.parent == Path("runs") and len(folder.name.encode()) < 500


@fuzzed
@given(text=damaged())
def test_a_damaged_recipe_file(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        outcome(lambda: load_recipe(file))


@fuzzed
@given(content=st.binary(max_size=200), text=st.sampled_from(TEXTS), at=st.integers(0, 300))
def test_a_recipe_file_with_other_bytes_in_it(content: bytes, text: str, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_bytes(text.encode()[:at] + content + text.encode()[at:])
        outcome(lambda: load_recipe(file))


@fuzzed
@given(text=st.sampled_from(TEXTS), key=st.sampled_from(KEYS) | st.text(max_size=12), value=VALUES)
def test_a_recipe_with_another_value(text: str, key: str, value: Any) -> None:
    """As YAML would write it, so that dates, sets and bytes come with their tags."""
    setting = f"{key}={yaml.dump(value, default_flow_style=True, allow_unicode=True)}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        outcome(lambda: load_recipe(file, [setting]))


@fuzzed
@given(text=st.sampled_from(TEXTS), key=st.sampled_from(KEYS), value=VALUES)
def test_values_that_never_were_text(text: str, key: str, value: Any) -> None:
    values: Any = yaml.safe_load(text)
    values[key.partition(".")[0]] = value
    outcome(lambda: parse_recipe(values))


@fuzzed
@given(key=st.sampled_from(KEYS) | st.text(max_size=12), value=st.text(max_size=30) | st.sampled_from(ODD))
def test_settings_and_grids_of_any_text(key: str, value: str) -> None:
    outcome(lambda: load_recipe("cofi", [f"{key}={value}"]))
    outcome(lambda: points(Path("cofi"), [], [axis(f"{key}={value}")], range(1))[0].recipe)


@fuzzed
@given(text=st.text(alphabet="ab[]{}&*<:,-?!'\"|>#%@ \n~0123456789.", max_size=60) | damaged())
def test_any_text_is_plain_or_refused(text: str) -> None:
    try:
        value = read_yaml(text)
    except NotPlainError as error:
        assert_short(error)
        event("refused")
        return
    check_plain(value)
    assert json.loads(json.dumps(value)) == value
    event("read")
