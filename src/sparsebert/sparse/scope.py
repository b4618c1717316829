"""Scopes: which tensors and groups a rule is about, by name or pattern."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sparsebert.errors import UserError
from sparsebert.groups import Group

ALL = "all"


@dataclass(frozen=True)
class Scope:
    """The 2-D weights chosen, by name with rows and columns, in model order; and the groups whose output is chosen.

    `shapes` are those of all the model's parameters.
    """

    matrices: dict[str, tuple[int, int]]
    groups: tuple[Group, ...]
    shapes: Mapping[str, tuple[int, ...]]


def select(
    patterns: Sequence[str],
    named: Mapping[str, Sequence[str]],
    shapes: Mapping[str, Sequence[int]],
    groups: Sequence[Group],
) -> Scope:
    """What `patterns` choose: names in `named` (such as attention), `all` of these, and patterns of tensor names.

    Weights without entries, as those of a layer that has lost all its heads, are never chosen. Raises UserError for a
    pattern that matches no 2-D weight, or only empty ones.
    """
    every = {name: (shape[0], shape[1]) for name, shape in shapes.items() if len(shape) == 2}
    matrices = {name: shape for name, shape in every.items() if 0 not in shape}
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in _expand(pattern, named, every) if name in every}
        if not found:
            raise _nothing(pattern, named, every)
        if not found & matrices.keys():
            raise UserError(f"The scope '{pattern}' matches only weights without entries", got=", ".join(sorted(found)))
        chosen |= found
    return Scope(
        {name: shape for name, shape in matrices.items() if name in chosen},
        tuple(group for group in groups if group.output.tensor in chosen),
        {name: tuple(shape) for name, shape in shapes.items()},
    )


def left_dense(covered: Collection[str], shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Names of the 2-D weights with entries that no rule covers."""
    weights = (name for name, shape in shapes.items() if len(shape) == 2 and 0 not in shape)
    return tuple(name for name in weights if name not in covered)


def _expand(pattern: str, named: Mapping[str, Sequence[str]], matrices: Collection[str]) -> list[str]:
    if pattern == ALL:
        return [name for names in named.values() for name in names]
    if pattern in named:
        return list(named[pattern])
    return [name for name in matrices if fnmatchcase(name, pattern)]


def _nothing(pattern: str, named: Mapping[str, Sequence[str]], matrices: Collection[str]) -> UserError:
    words = [*named, ALL]
    near = difflib.get_close_matches(pattern, [*words, *matrices], n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else "see the model's tensor names"
    if pattern in words:
        hint = "the model has no such weights left"
    return UserError(
        f"The scope '{pattern}' matches nothing", allowed=f"{', '.join(words)}, or a pattern of tensor names", fix=hint
    )
