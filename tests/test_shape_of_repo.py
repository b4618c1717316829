"""Rules about the repository itself that no single module can keep alone."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import sparsebert
from sparsebert import load_recipe, registry
from tiny_run import save_tiny

ROOT = Path(__file__).parents[1]
CODE = [file for folder in ("src", "docs", "benchmarks", "tools") for file in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").glob("*.py"))
TEXT = sorted(
    file
    for pattern in (
        "*.md",
        "*.toml",
        "*.txt",
        "*.yaml",
        "*.yml",
        "Makefile",
        ".ci/*",
        "docs/**/*.md",
        "src/sparsebert/recipes/*",
        "results/**/*",
    )
    for file in ROOT.glob(pattern)
    if file.is_file() and file.suffix != ".png"
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LINES_A_FILE = 400
LINES_A_BODY = 60
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home|Users|tmp)/\w")
LEFT_OPEN = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
HEAVY = ("torch", "transformers", "datasets", "sklearn", "scipy", "matplotlib")


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


class Findings(NamedTuple):
    """What the rules ask of a file of code: names and lines of what is in it."""

    long: list[str]
    swallowing: list[int]
    names: set[str]
    loads: list[int]
    public: list[str]


@functools.cache
def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def findings(file: Path) -> Findings:
    """Parsed once for all rules; the trees are too large to keep."""
    module = ast.parse(read(file))
    found = Findings([], [], set(), [], list(_classes_and_aliases(module)))
    for node in ast.walk(module):
        found.names.update(_names(node))
        # The body counts: a command's signature is the list of its options.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (node.end_lineno or 0) - node.body[0].lineno + 1 > LINES_A_BODY:
                found.long.append(node.name)
        elif isinstance(node, ast.ExceptHandler):
            wide = node.type is None or {"Exception", "BaseException"} & _names(node.type)
            if wide and not isinstance(node.body[-1], ast.Raise):
                found.swallowing.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr == "load" and ast.unparse(node) == "torch.load":
            found.loads.append(node.lineno)
    return found


def in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[-1]


def test_there_is_something_to_check() -> None:
    assert len(CODE) > 60 and len(TESTS) > 15 and len(TEXT) > 15


def test_files_and_functions_are_short() -> None:
    lines = {name(file): len(read(file).splitlines()) for file in CODE + TESTS}
    assert {file: count for file, count in lines.items() if count > LINES_A_FILE} == {}
    assert {name(file): long for file in CODE + TESTS if (long := findings(file).long)} == {}


def test_no_paths_of_one_machine_and_nothing_left_open() -> None:
    for pattern in (MACHINE_PATH, LEFT_OPEN):
        assert {name(file): found for file in CODE + TESTS + TEXT if (found := pattern.findall(read(file)))} == {}


def test_no_error_is_swallowed() -> None:
    assert {name(file): wide for file in CODE + TESTS if (wide := findings(file).swallowing)} == {}


def test_no_pickle_and_no_probing() -> None:
    never = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "hasattr"}
    # The one place that opens a pickle, once its user has said that it may.
    trusted = {"src/sparsebert/runs/check_heads.py": {"pickle", "joblib"}}
    assert {name(file): found for file in CODE if (found := findings(file).names & never)} == trusted
    assert {name(file): lines for file in CODE if (lines := findings(file).loads)} == {}


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").split(".")[0]}
    if isinstance(node, ast.Tuple):
        return set().union(*(_names(item) for item in node.elts))
    return {node.id} if isinstance(node, ast.Name) else set()


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for file in (file for file in CODE if file.is_relative_to(ROOT / "src")):
        for public in findings(file).public:
            places.setdefault(public, []).append(name(file))
    assert len(places) > 100
    assert {public: files for public, files in places.items() if len(files) > 1} == {}


def _classes_and_aliases(module: ast.Module) -> Iterator[str]:
    """Public names of a module's classes, and those that are written like one: aliases of types."""
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        found = [target.id for target in targets if isinstance(target, ast.Name)]
        found += [node.name] if isinstance(node, ast.ClassDef) else []
        yield from (one for one in found if re.fullmatch(r"[A-Z]+[a-z]\w*", one))


@pytest.mark.process
def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, sparsebert; print([name for name in {(*HEAVY, 'numpy', 'pydantic')} if name in sys.modules])"
    assert in_a_process(code) == "[]"


@pytest.mark.process
def test_help_and_listings_load_nothing_heavy() -> None:
    code = f"""
import sys
import typer.main
from sparsebert.cli import main
from sparsebert.cli.application import COMMANDS, app
commands = list(typer.main.get_command(app).commands)
assert tuple(commands) == COMMANDS
listings = (["tasks"], ["models"], ["recipes"], ["study"], ["--version"])
for arguments in ([], ["--help"], *([name, "--help"] for name in commands), *listings):
    sys.argv = ["sparsebert", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, None) or not arguments
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert in_a_process(code) == "[]"


@pytest.mark.process
def test_opening_a_model_and_predicting_import_nothing_that_only_training_needs(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    code = f"""
import sys
from sparsebert.cli import main
for words in (["info"], ["predict", "good"]):
    sys.argv = ["sparsebert", words[0], {str(model)!r}, *words[1:]]
    try:
        main()
    except SystemExit as end:
        assert not end.code
assert "torch" in sys.modules
unneeded = ("datasets", "pandas", "sklearn", "matplotlib", "transformers.trainer", "sparsebert.training.trainer")
found = [name for name in unneeded if name in sys.modules]
import datasets
assert datasets.are_progress_bars_disabled()
print(found)
"""
    assert in_a_process(code) == "[]"


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", sparsebert.__version__)
    assert metadata.version("sparsebert") == sparsebert.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None and newest[1] == sparsebert.__version__


def test_every_public_name_is_there() -> None:
    assert sparsebert.__all__ == sorted(sparsebert.__all__)
    for public in sparsebert.__all__:
        assert getattr(sparsebert, public) is not None


def test_every_registered_name_leads_somewhere() -> None:
    counts = {kind: len(registry.names(kind)) for kind in registry._TABLE}
    assert counts == {
        "run_type": 7,
        "recipe": 7,
        "unit_criterion": 6,
        "structure": 6,
        "criterion": 9,
        "budget": 3,
        "schedule": 7,
        "update": 5,
        "gate": 5,
        "penalty": 4,
        "family": 13,
        "task_kind": 11,
        "metric": 18,
        "target": 4,
        "runtime": 10,
        "logger": 3,
        "study": 13,
    }
    assert all(registry.get(kind, one) is not None for kind in counts for one in registry.names(kind))


def test_every_recipe_is_valid() -> None:
    recipes = sorted((ROOT / "src" / "sparsebert" / "recipes").rglob("*.yaml"))
    assert "quickstart.yaml" in [file.name for file in recipes]
    assert len({load_recipe(file).hash for file in recipes}) == len(recipes)


def test_tools_are_pinned_in_one_place() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert all("==" in tool for tool in [*extras["dev"], *extras["docs"]])
    service = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in line for line in service if not line.startswith("#"))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]


def test_make_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    checks = {"test", "test-faults", "lint", "types", "contracts"}
    assert phony == {"help", "demo", "bench", "docs", "site", "results", "format", "clean"} | checks
    assert phony == set(re.findall(r"^([a-z-]+):.* ## ", makefile, re.MULTILINE))


def test_the_demo_installs_nothing_that_only_developers_need() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed = dict(re.findall(r"^([a-z-]+): (\S+) ## ", makefile, re.MULTILINE))
    assert needed.pop("demo") == "$(DEMO_READY)" and set(needed.values()) == {"$(READY)"}
    rules = dict(re.findall(r"^\$\((\w+)\): .*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    extras = {stamp: re.findall(r"-e '\.\[(.*)\]'", commands) for stamp, commands in rules.items()}
    assert extras == {
        "DEMO_READY": ["quickstart"],
        "READY": ["quickstart,engines,serve,explorer,search,ray,energy,triton,dev,docs"],
    }
