"""The documentation says what is so: its code runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import importlib
import io
import re
import shlex
from collections import Counter
from contextlib import redirect_stdout
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer.main
import yaml
from transformers import BertTokenizer

from sparsebert import registry
from sparsebert.cli.application import app
from sparsebert.models.load import save_model
from sparsebert.models.surgeon import shrink
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.recipe.pretrain import Pretraining
from sparsebert.recipe.schema import Component, Plain, Rule, Training
from sparsebert.runs.glue_plan import GluePlan
from tiny import NEURONS, tiny_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("results/**/README.md")])
DECISIONS = sorted((DOCS / "adr").glob("*.md"))
WORDS_A_DECISION = 450
ANY = Component(kind="any")
BLOCK = re.compile(
    r"^(?P<mark><!-- quickstart -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One fenced block; `printed` is the text block that follows a Python block, if any."""

    language: str
    text: str
    quickstart: bool
    printed: str | None


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str, quickstart: bool = False) -> list[Block]:
    found = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    after = [one["text"] if one["language"] == "text" else None for one in found[1:]]
    every = [Block(a["language"], a["text"], bool(a["mark"]), b) for a, b in zip_longest(found, after)]
    return [block for block in every if block.language == language and block.quickstart == quickstart]


def run(block: Block, names: dict[str, Any]) -> None:
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block.text, "documentation", "exec"), names)
    if block.printed is not None:
        assert output.getvalue() == block.printed


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
WITH_QUICKSTART = [page for page in PAGES if blocks(page, "python", quickstart=True)]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
WITH_COMMANDS = [page for page in PAGES if blocks(page, "bash")]


def test_the_tutorial_is_among_what_is_checked() -> None:
    tutorial = DOCS / "tutorial.md"
    assert tutorial in WITH_PYTHON and tutorial in WITH_QUICKSTART and tutorial in WITH_COMMANDS
    assert len(blocks(tutorial, "python")) >= 5 and len(DECISIONS) >= 8


@pytest.fixture
def after_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with the models that `make demo` leaves, only tiny."""
    model = tiny_model("bert")
    small = shrink(model, {"layer.1.neurons": torch.arange(NEURONS) < 5})
    for folder, one in {"dense": model, "2x": small, "4x": small}.items():
        save_model(one, BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "good": 2}), tmp_path / "demo" / folder)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("after_the_demo")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_blocks_run_one_after_the_other(page: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        run(block, names)


@pytest.mark.quickstart
@pytest.mark.parametrize("page", WITH_QUICKSTART, ids=name)
def test_blocks_about_the_default_model_run_alone(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python", quickstart=True):
        run(block, {})


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_commands_exist_with_these_options(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    lines = "".join(block.text for block in blocks(page, "bash")).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[:1] == ["make"]:
            assert [word for word in words[1:] if "=" not in word and word not in targets] == []
        if words[:1] == ["sparsebert"]:
            COMMANDS[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_named_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    assert [
        file for file in files if not ((ROOT / file).exists() or (ROOT / "src" / "sparsebert" / file).exists())
    ] == []


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> dict[Path, str]:
    """The pages that `make docs` would write."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generate").pages()


def test_generated_pages_are_current(generated: dict[Path, str]) -> None:
    wanted = generated
    pages = [DOCS / "cli.md", DOCS / "recipes.md", *(DOCS / "cli").glob("*.md")]
    assert {page.relative_to(DOCS) for page in pages} == set(wanted)
    old = [str(path) for path, text in wanted.items() if (DOCS / path).read_text(encoding="utf-8") != text]
    assert old == [], "run `make docs`"


def test_stars_in_generated_tables_are_no_emphasis(generated: dict[Path, str]) -> None:
    rows = [line for page in generated.values() for line in page.splitlines() if line.startswith("|")]
    assert [row for row in rows if re.search(r"(?<!\\)\*", re.sub(r"`[^`]*`", "", row))] == []
    assert "train.\\* and validation.\\*;" in generated[Path("cli/compress.md")]


def test_the_recipe_page_has_every_key_and_part_with_words(generated: dict[Path, str]) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", generated[Path("recipes.md")], re.MULTILINE)
    # Searches and GLUE runs have files of their own, made of the same sort of parts.
    others = ("sparsebert.recipe.space", "sparsebert.runs.glue_plan")
    parts = [model for model in Plain.__subclasses__() if model.__module__ not in others]
    keys = [field.alias or key for model in parts for key, field in model.model_fields.items()]
    more, usual = Pretraining.model_fields, Training.model_fields
    keys += [key for key in more if key not in usual or more[key].default != usual[key].default]
    for kind in registry.names("recipe"):
        fields, base = registry.get("recipe", kind).model_fields, Recipe.model_fields
        keys += [key for key in fields if key not in base]
        keys += [key for key in base if key != "kind" and fields[key].default != base[key].default]
    names = [
        one
        for kind in (*(kind for kind, _ in Rule(gate=ANY, penalty=ANY).components()), "unit_criterion")
        for one in registry.names(kind)
    ]
    assert Counter(row for row, _ in rows) == Counter([*keys, *names])
    assert [row for row, words in rows if not words.strip()] == []


def test_options_of_parts_are_shown_with_their_defaults(generated: dict[Path, str]) -> None:
    page = generated[Path("recipes.md")]
    assert "| `fisher` | `block: 50`, `gradients: 32`, `damping: 1.0e-7` | w^2" in page
    assert "| `block` | `rows`, `cols` | Tiles" in page
    assert "`fraction: {kind: cosine, initial: 0.3, final: 0, stop: {percent: 75}}`" in page
    assert "| `stop` | [moments](#moments) | `{percent: 70}` |" in page


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name)
def test_recipes_and_plans_on_pages_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block.text)
        # Only a plan names its source.
        (GluePlan.model_validate if "source" in values else parse_recipe)(values)


def test_every_option_says_what_it_is_and_what_it_is_by_default() -> None:
    silent = [(name, param.name) for name, command in COMMANDS.items() for param in command.params if not param.help]
    assert silent == []
    for command, words in (
        (
            "sweep",
            ["Seeds 0 to N-1 of every point, not the recipe's. Default 1.", "Default runs/sweep-HASH."],
        ),
        ("compare", ["Draws of the bootstrap. Default 2000."]),
        ("doctor", ["Default 1.", "Default 128.", "Default 15.", "Default: sentence-transformers/all-MiniLM-L6-v2."]),
    ):
        page = (DOCS / "cli" / f"{command}.md").read_text(encoding="utf-8")
        assert all(word in page for word in words)


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_is_one_page_of_three_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.split()) <= WORDS_A_DECISION
    assert int(page.name[:4]) == DECISIONS.index(page) + 1
    assert f"](adr/{page.name})" in (DOCS / "index.md").read_text(encoding="utf-8")
