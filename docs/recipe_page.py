"""docs/recipes.md: every key of a recipe from its pydantic fields, and every registered part with its options."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sparsebert import registry
from sparsebert.pruning.criteria import Scored
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.compress import FewerEntries
from sparsebert.recipe.finetune import BySize
from sparsebert.recipe.masking import Hidden
from sparsebert.recipe.multitask import Rounds
from sparsebert.recipe.pretrain import Pretraining, PretrainPhase
from sparsebert.recipe.schema import (
    Columns,
    Component,
    Distill,
    Evaluate,
    Measure,
    Phase,
    Recovery,
    Rule,
    Search,
    Target,
    Training,
    Trees,
    When,
)

NOTE = "<!-- Written by `make docs` from src/sparsebert/recipe and the registered components. -->"

INTRO = """\
# Recipes

A recipe is everything that decides a run, in one YAML file. The commands that make models read it with `--recipe FILE`,
`sweep` as its argument. Its `kind` is the command; each kind has keys of its own beside those of every recipe. A key
that is left out has the default of the tables below. An unknown key is an error that names the nearest one, and so is a
key of another kind. This recipe fine-tunes a dense model, trains a second one to 90 % zero blocks with the first as its
teacher, and then trains on with these zeros held:

```yaml
schema: 1
kind: train
task: reviews
sparsity: 0.9
phases:
  - name: prune
    training: {epochs: 3, learning_rate: 1.0e-4}
    teacher: dense
    rules:
      - scope: [attention, ffn]
        structure: {kind: block, rows: 32, cols: 32}
        criterion: magnitude
        schedule: cubic
        start: {percent: 10}
        stop: {percent: 70}
  - name: recover
    training: {epochs: 1, learning_rate: 5.0e-5}
    teacher: dense
```

```bash
sparsebert train --recipe recipe.yaml --set phases.0.training.epochs=5 --set phases.0.rules.0.criterion=taylor
```

`--set` takes any key by its dotted name, entries of a list by their number from 0, and wins over the file. A part with
options is written as `{kind: NAME, option: value}`, one without options as its name alone. `sparsebert recipes` lists
[those that ship](../src/sparsebert/recipes), one setting of one paper each, which are also taken by name. YAML writes
none as `null`. What the words mean is in the [concepts](concepts.md).
"""

SECTIONS: dict[str, tuple[type[BaseModel], str]] = {
    "Columns": (Columns, "Of `columns`."),
    "Targets": (Target, "Each entry of `targets`, as `{kind: speedup, value: 4}`."),
    "Training": (Training, "Of `dense`, `finetune`, and of `training` in a phase or of the recipe."),
    "Pretraining": (
        Pretraining,
        "Of `dense`, and of `training` in a phase, of pretrain: the keys of a [training](#training), and these.",
    ),
    "Hidden tokens": (Hidden, "Of `masking` of pretrain."),
    "Evaluation": (Evaluate, "Of `evaluate` in a training."),
    "Distillation": (Distill, "Of `distill`, of the recipe or of a phase."),
    "Measurement": (Measure, "Of `measure`."),
    "Search": (Search, "Of `search`."),
    "Vocabulary": (FewerEntries, "Of `vocabulary` of compress."),
    "Trees": (Trees, "Of `trees`."),
    "Phases": (Phase, "Each entry of `phases`."),
    "Rules": (Rule, "Each entry of `rules` in a phase."),
    "Moments": (When, "Of `start`, `stop` and `every`, as `{percent: 70}`, `{steps: 100}` or `{epochs: 0.5}`."),
}

PARTS = {
    "structure": (
        "Structures",
        "What is removed as one unit. `structure: {kind: block, rows: 32, cols: 32}` or `structure: head`.",
    ),
    "criterion": (
        "Criteria",
        "What a unit is worth; the lowest go first. `criterion: {kind: fisher, block: 32}` or `criterion: taylor`.",
    ),
    "budget": ("Budgets", "How the target is shared among matrices. `budget: global`."),
    "schedule": (
        "Schedules",
        "The sparsity asked for at each step. In a rule give only the name, as `schedule: linear`: `initial`, `start` "
        "and `stop` are the rule's, and `final` or `value` is its sparsity. An option that takes a number or a "
        "schedule wants it written out: `{kind: cubic, initial: 0, final: 20, start: {percent: 10}, stop: {percent: "
        "70}}`. There `start` is 0 % and `stop` 100 % where they are left out.",
    ),
    "update": ("Updates", "How masks change. `update: {kind: swap, grow: random}`."),
    "gate": (
        "Gates",
        "A gate takes the place of criterion and update: `gate: {kind: movement, lr: 0.01}`. `lr` is the learning rate "
        "of its scores. `movement`, `coefficient` and `soft_mask` follow the rule's schedule. `soft_movement` and "
        "`hard_concrete` become sparse only by a penalty: `lagrangian` leads them to the rule's sparsity; with `l0` "
        "the sparsity is what comes out.",
    ),
    "penalty": (
        "Penalties",
        "A term of the loss. `penalty: {kind: l1, weight: 1.0e-4}`. `l0`, `lagrangian` and `l1` of scores need a gate.",
    ),
    "unit_criterion": (
        "Criteria of compress",
        "`criterion` of the recipe itself, or `--criterion`: only a name. They look at heads and neurons, once, "
        "without training.",
    ),
}

SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "at least"}
NOT_FOR_READERS = re.compile(r"\s*Raises [^.]*\.(?=\s|$)|; see [\w.]+(?=\.)| \[units\]")


def recipe_page() -> str:
    """Every key of a recipe, and every registered part with its options."""
    lines = [NOTE, "", INTRO, *_keys("Keys of every recipe", Recipe, "")]
    for kind in registry.names("recipe"):
        lines += _keys(f"Keys of {kind}", registry.get("recipe", kind), "", leave=Recipe)
    for title, (model, where) in SECTIONS.items():
        lines += _keys(title, model, where, leave=Training if model is Pretraining else None)
    for kind, (title, where) in PARTS.items():
        lines += [f"## {title}", "", where, "", "| name | options | |", "|---|---|---|"]
        lines += [_component(kind, name) for name in registry.names(kind)] + [""]
    return "\n".join(lines)


def _keys(title: str, model: type[BaseModel], where: str, leave: type[BaseModel] | None = None) -> list[str]:
    known = {} if leave is None else leave.model_fields
    said = [inspect.getdoc(model) or "", *(_differing() if model is Training else ())]
    head = ["", " ".join([where, *said]).strip(), "", "| key | value | default | |", "|---|---|---|---|"]
    own = {name: field for name, field in model.model_fields.items() if name not in known}
    # Keys of every recipe that have another default here.
    own |= {n: f for n, f in model.model_fields.items() if n in known and n != "kind" and f.default != known[n].default}
    rows = [_key(name, field) for name, field in own.items()]
    return [f"## {title}", *head, *rows, ""]


def _key(name: str, field: FieldInfo) -> str:
    inner = [one for one in get_args(field.annotation) if one is not type(None)]
    optional = _is_union(field.annotation) and len(inner) == 1
    limits = [
        f"{SIGNS[sign]} {at:,}"
        for one in field.metadata
        for sign, at in dataclasses.asdict(one).items()
        if sign in SIGNS
    ]
    kind = _link(PARTS[name][0]) if Component in (field.annotation, *inner) else None
    words = kind or _words(inner[0] if optional else field.annotation)
    values = ", ".join([words, *limits, *(["or `null`"] if optional else [])])
    return f"| `{field.alias or name}` | {cell(values)} | {_default(field)} | {cell(field.description or '')} |"


def _differing() -> Iterator[str]:
    for where, own in (
        ("`finetune` of compress and fff", Recovery),
        ("`training` of finetune", BySize),
        ("`training` of multitask", Rounds),
    ):
        fields = own.model_fields.items()
        new = [
            f"`{name}: {_plain(f.default)}`" for name, f in fields if f.default != Training.model_fields[name].default
        ]
        yield f"{where} has other defaults: {', '.join(new)}."


def _words(annotation: Any) -> str:
    """What may be given, in words."""
    inner, names = get_args(annotation), {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    if get_origin(annotation) is Annotated:
        return _words(inner[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if _is_union(annotation):
        return " or ".join("`null`" if one is type(None) else _words(one) for one in inner)
    if get_origin(annotation) is tuple:
        return f"list: {_words(inner[0])}" if inner[1:] == (...,) else f"[{', '.join(_words(one) for one in inner)}]"
    linked: dict[Any, str] = {
        **dict.fromkeys((Recovery, BySize, Rounds), "Training"),
        PretrainPhase: "Phases",
    } | {model: title for title, (model, _) in SECTIONS.items()}
    return names[annotation] if annotation in names else _link(linked[annotation])


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _link(title: str) -> str:
    return f"[{title.lower()}](#{title.lower().replace(' ', '-')})"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    tabled = tuple(model for model, _ in SECTIONS.values() if model is not When)
    return "see there" if isinstance(field.default, tabled) else f"`{_plain(field.default)}`"


def _plain(value: Any) -> str:
    """A default as a recipe would have it."""
    if isinstance(value, Component):
        return value.kind
    if isinstance(value, When):
        return _plain(value.model_dump(exclude_none=True))
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_defaults=True))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, float):
        # A number without a point before its exponent is text in YAML.
        return re.sub(r"^(\d+)e-0?", r"\1.0e-", f"{value:.3g}")
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _component(kind: str, name: str) -> str:
    made = registry.get(kind, name)
    if kind == "unit_criterion":
        made = made.score if isinstance(made, Scored) else type(made)
        options = ""
    else:
        options = ", ".join(_options(made))
    return f"| `{name}` | {options} | {cell(_said(made))} |"


def _options(made: Any) -> Iterator[str]:
    fresh = {field.name: field.default_factory for field in dataclasses.fields(made)} if inspect.isclass(made) else {}
    for name, parameter in inspect.signature(made).parameters.items():
        make = fresh.get(name, dataclasses.MISSING)
        if parameter.default is parameter.empty:
            yield f"`{name}`"
        else:
            yield f"`{name}: {_plain(parameter.default if make is dataclasses.MISSING else make())}`"


def _said(made: Any) -> str:
    """A docstring on one line, without what only a caller of the code needs."""
    return NOT_FOR_READERS.sub("", " ".join((inspect.getdoc(made) or "").split()))


def cell(text: str) -> str:
    """Text that may stand in a table: outside of code, a star is no emphasis."""
    return re.sub(r"`[^`]*`|\*", lambda match: "\\*" if match[0] == "*" else match[0], text).replace("|", "\\|")
