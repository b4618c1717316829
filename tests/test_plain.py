"""YAML from users: plain values come out, and no text takes the machine or ends in a traceback."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from sparsebert.errors import UserError
from sparsebert.recipe.load import load_recipe, parse_recipe
from sparsebert.recipe.plain_yaml import DEEPEST, MOST_BYTES, NotPlainError, check_plain, read_yaml
from sparsebert.recipe.schema import Component, folder_name
from sparsebert.records import ModelResult
from tiny_run import assert_refused, run_cli

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
PLAIN = {
    "": None,
    "a: [1, 2.5, yes, null, 'no', 1.0e-2]": {"a": [1, 2.5, True, None, "no", 0.01]},
    "a: 2026-01-31": {"a": "2026-01-31"},
    "a: &x {p: 1}\nb: *x\nc: {<<: *x, q: 2}": {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 1, "q": 2}},
    "'été': \"\\u00e9\\U0001F600\"": {"été": "é\U0001f600"},
    "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1): None,
}
NOT_PLAIN = {
    BOMB: "more than 10,000 values",
    "[" * 5000: "nested deeper than 30 levels",
    "- " * 5000 + "x": "nested deeper than 30 levels",
    "? " * 5000: "nested deeper than 30 levels",
    "a: &a [*a]": "nested deeper than 30 levels",
    "a: &a {b: *a}": "nested deeper than 30 levels",
    "[" + "a," * 20_000 + "]": "more than 10,000 values",
    "#" * (MOST_BYTES + 1): "more than 100,000",
    "a: !!python/object/apply:os.system [ls]": "a tag",
    "a: !!binary aGk=": "a tag",
    "a: !!set {b, c}": "a tag",
    "a: !mine x": "a tag",
    "a: .nan": "not finite, nan",
    "a: [-.inf]": "not finite, -inf",
    "a: 1.0e+400": "not finite",
    "a: 9007199254740993": "larger than 2^53",
    "a: " + "9" * 5000: "a number is not readable",
    "a: 0b_": "a number is not readable",
    "1: a": "a key is not a text",
    "yes: a": "a key is not a text",
    "? [a, b]\n: c": "a key is not a text",
    "a: 1\nb: 2\na: 3": "the key 'a' is there twice",
    'a: "\\ud800"': "U+D800",
    'a: "x\\0y"': "U+0000",
    "a: \ud83d": "U+D83D",
    "a: *b": "undefined alias",
    "a: 1\n---\nb: 2": "another document",
    "a: \x07": "not allowed",
    "a: =": "could not determine a constructor",
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_values_are_read(text: str) -> None:
    value = read_yaml(text)
    assert PLAIN[text] is None or value == PLAIN[text]


@pytest.mark.parametrize("text", NOT_PLAIN, ids=lambda text: ascii(text[:20]))
def test_what_is_not_plain_is_refused_soon_and_in_one_line(text: str) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(NotPlainError) as error:
        read_yaml(text)
    taken, (_, most) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert NOT_PLAIN[text] in str(error.value) and "\n" not in str(error.value)
    assert taken < 30 and most < 200e6


def test_values_that_never_were_text_are_checked_alike() -> None:
    check_plain({"a": [1, (2.0, None)], "b": {"c": "d"}})
    deep: list[object] = []
    deep.append(deep)
    for value in (deep, {1: 2}, float("nan"), b"x", {"a": {3}}, 2**60, "\ud800", [0] * 20_000):
        with pytest.raises(NotPlainError):
            check_plain(value)
        with pytest.raises(ValueError, match="validation error"):
            Component.model_validate({"kind": "block", "rows": value})


WAYS = {
    "a setting": lambda text, _: load_recipe(None, [f"search={text}"]),
    "an entry of a list": lambda text, _: load_recipe(None, [f"phases=[{{rules: [{{structure: {text}}}]}}]"]),
    "a file": lambda text, folder: load_recipe(written(folder / "recipe.yaml", f"search: {text}")),
}


def written(file, text: str):
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", ["&a [*a]", "[" * 2000, "{examples: !!int 3}", "{examples: .nan}", "{a: 1, a: 2}"])
def test_every_way_into_a_recipe_is_bounded(text: str, way: str, tmp_path) -> None:
    with pytest.raises(UserError) as error:
        WAYS[way](text, tmp_path)
    assert "\n" not in str(error.value)


def test_values_of_a_grid_are_bounded_too(tmp_path) -> None:
    file = written(tmp_path / "recipe.yaml", "seed: 1")
    for values in ("[&a [*a]]", "[" * 500, "!!set {a}", ".nan", "1" + "0" * 400):
        said = run_cli("sweep", file, "--grid", f"search.examples={values}", "-o", tmp_path / "out")
        assert_refused(said, ["The values of a grid are not YAML"])
    assert_refused(run_cli("sweep", file, "--seeds", 10**9, "-o", tmp_path / "out"), ["too many points"])
    assert [one.name for one in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: ü".encode("latin-1"), "it is not UTF-8 (invalid start byte at byte 6)"),
        ("seed: 1".encode("utf-16"), "it is not UTF-8"),
        (b"\xef\xbb\xbfseed: -1", "seed: Input should be greater than or equal to 0"),
        (b"#" * 200_000, "more than 100,000 bytes"),
        (b"- a", "must hold a mapping"),
    ],
)
def test_a_recipe_file_that_is_not_one_gets_one_line(content: bytes, words: str, tmp_path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    assert_refused(run_cli("compress", "./none", "--recipe", file, "--speedup", 2), [words])


# Names that become paths

ESCAPES = ("../../../escaped", "/../../../../escaped", "a/b", "a\\b", "..", ".", ".hidden", "", " a", "a\nb", "é" * 100)


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leads_elsewhere_is_refused_wherever_it_would_be_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="it names a folder, so it takes letters, digits"):
        folder_name(name)
    rule = {"sparsity": 0.5}
    for values in ({"task": name}, {"phases": [{"name": name, "rules": [rule]}]}):
        with pytest.raises(UserError, match="it names a folder"):
            parse_recipe(values)
    with pytest.raises(ValueError, match="it names a folder"):
        ModelResult.model_validate({"name": "x", "folder": name})


@pytest.mark.parametrize("name", ["sparse", "Phase 1, slow (a+b)", "größe_2.5x", "fff-1x10", "0.5-sparsity"])
def test_ordinary_names_stay(name: str) -> None:
    assert folder_name(name) == name


def test_escapes_write_nothing(tmp_path, monkeypatch) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    recipe = written(inside / "recipe.yaml", "phases: [{name: /../../../../escaped, rules: [{sparsity: 0.5}]}]")
    assert_refused(run_cli("train", "./none", "--recipe", recipe), ["phases.0.name: it names a folder"])
    assert_refused(run_cli("compress", "./none", "--task", "../../../escaped", "--speedup", 2), ["task: it names"])
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a", "b", "recipe.yaml"]


def test_numbers_beyond_reason_are_refused() -> None:
    for values in ({"max_length": 10**15}, {"dense": {"epochs": 1e300}}, {"measure": {"rounds": 10**18}}):
        with pytest.raises(UserError, match="a number must lie within 1e\\+12"):
            parse_recipe(values)
    with pytest.raises(UserError, match="one line of at most"):
        parse_recipe({"name": "a\nb"})


def test_an_error_is_short_whatever_was_given() -> None:
    with pytest.raises(UserError) as error:
        parse_recipe({"x" * 50_000: 1, "name": "y" * 50_000, **{f"k{number}": 0 for number in range(5000)}})
    assert len(str(error.value)) < 5000
