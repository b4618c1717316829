"""YAML from users, read into plain values: bounded in size, depth and expansion, so that no text can take the machine.

Plain values are texts, numbers, booleans, none, and lists and mappings of them with texts as keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import yaml

# Thousands of times what a recipe takes; the slowest text within them is read in about a second.
MOST_BYTES = 100_000
MOST_VALUES = 10_000
DEEPEST = 30
# Every integer up to here is a double too, so that JSON and all libraries read it alike.
LARGEST_INTEGER = 2**53
MERGE = "tag:yaml.org,2002:merge"
TEXT = "tag:yaml.org,2002:str"
TIMESTAMP = "tag:yaml.org,2002:timestamp"


class NotPlainError(ValueError):
    """The text or value is not what a recipe may hold; the message says what was found."""


def read_yaml(text: str) -> Any:
    """The plain value that a YAML text stands for; anchors may be used, tags may not, and dates stay texts.

    Raises NotPlainError, in one line, for what is not YAML, is too large or too deep once aliases are expanded, refers
    to itself, or holds anything but plain values.
    """
    if len(text) > MOST_BYTES:
        raise NotPlainError(f"it has {len(text):,} characters, more than {MOST_BYTES:,}")
    check_text(text)
    try:
        value = _constructed(_Loader(text))
    except yaml.YAMLError as error:
        raise NotPlainError(_one_line(error)) from None
    check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise NotPlainError for a value that is not plain, or too large or too deep."""
    _check_value(value, _Budget(), 0)


def check_text(text: str) -> None:
    """Raise NotPlainError for what no file can hold and no path may: half letters (surrogates) and NUL."""
    for letter in text:
        if letter == "\0" or "\ud800" <= letter <= "\udfff":
            raise NotPlainError(f"a text holds the character U+{ord(letter):04X}, which is no letter")


def _constructed(loader: _Loader) -> Any:
    node = loader.get_single_node()
    if node is None:
        return None
    _check_node(node, _Budget(), 0)
    try:
        return loader.construct_document(node)
    except (ValueError, LookupError):
        # How PyYAML says that what looks like a number, such as 0b_, is none.
        raise NotPlainError("a number is not readable") from None


class _Loader(yaml.SafeLoader):
    """The safe loader without tags, without dates, and with an end to nesting before Python's own."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML does; raises NotPlainError for a tag, and for what is nested too deep."""
        event = self.peek_event()
        if not isinstance(event, yaml.AliasEvent) and event.tag is not None:
            raise NotPlainError(f"it has a tag, {event.tag}")
        self.depth += 1
        _check_depth(self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """As PyYAML does, but for dates, which would come back as objects: 2026-01-31 may well be a name."""
        tag = super().resolve(kind, value, implicit)
        return TEXT if tag == TIMESTAMP else tag


class _Budget:
    """How many values may still be seen."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def take(self) -> None:
        """Count one value. Raises NotPlainError where it is one too many."""
        self.left -= 1
        if self.left < 0:
            raise NotPlainError(f"it has more than {MOST_VALUES:,} values")


def _check_node(node: yaml.Node, budget: _Budget, depth: int) -> None:
    """Visit everything as often as it would be there without aliases; what holds itself is too deep."""
    budget.take()
    _check_depth(depth)
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_node(child, budget, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        _check_keys(key for key, _ in node.value)
        for _, child in node.value:
            _check_node(child, budget, depth + 1)


def _check_keys(keys: Iterable[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key.tag == MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
            raise NotPlainError("a key is not a text; put it in quotes")
        if key.value in seen:
            raise NotPlainError(f"the key '{key.value}' is there twice")
        seen.add(key.value)


def _check_value(value: Any, budget: _Budget, depth: int) -> None:
    budget.take()
    _check_depth(depth)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotPlainError(f"a key is not a text, {key!r}")
            check_text(key)
            _check_value(item, budget, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_value(item, budget, depth + 1)
    else:
        _check_single(value)


def _check_single(value: Any) -> None:
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NotPlainError(f"a number is not finite, {value}")
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise NotPlainError("a whole number is larger than 2^53")
    elif value is not None:
        raise NotPlainError(f"a value is a {type(value).__name__}")


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise NotPlainError(f"it is nested deeper than {DEEPEST} levels")


def _one_line(error: yaml.YAMLError) -> str:
    """What is wrong and where, of PyYAML's lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem or error.context} at line {error.problem_mark.line + 1}"
    return str(error).splitlines()[0]
