"""How the command line is used: options, the version, completion, and recipes by their names."""

import json
import os
import subprocess
import sys

import typer.main

from sparsebert.cli.application import app
from sparsebert.recipe.load import SHIPPED, differing_keys, load_recipe
from sparsebert.version import __version__
from tiny_run import assert_refused, run_cli


def test_no_command_drops_a_value_that_was_given():
    commands = typer.main.get_command(app).commands
    options = [(name, param) for name, command in commands.items() for param in command.params if param.opts[0] != "-h"]
    single = [
        (name, param.opts[0])
        for name, param in options
        if param.param_type_name == "option" and not param.multiple and not param.is_flag
    ]
    assert len(single) > 50
    for name, option in single:
        said = run_cli(name, option, "1", option, "1")
        assert_refused(said, [f"Option '{option}' is given 2 times"])


def test_numbers_out_of_all_proportion_are_refused():
    for line in (["predict", "m", "--max-length"], ["bench", "m", "--batch"], ["compress", "m", "--train-examples"]):
        said = run_cli(*line, 10**30)
        assert_refused(said, [f"Invalid value for '{line[-1]}': a whole number is larger than 2^53"])
    assert_refused(run_cli("compare", "m", "--resamples", 10**9), ["--resamples", "1000000"])


def test_version_and_module():
    assert run_cli("--version").stdout == f"{__version__}\n"
    done = subprocess.run([sys.executable, "-m", "sparsebert", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n" and done.stderr == ""


def test_shells_complete_commands_options_and_recipes():
    def words(line: str) -> list[str]:
        environment = os.environ | {
            "_SPARSEBERT_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        command = [sys.executable, "-m", "sparsebert"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert words("sparsebert comp") == ["compress", "compare"]
    assert words("sparsebert train --recipe magn") == ["magnitude-cubic"]


# Recipes by name


def test_recipes_are_listed_and_printed():
    found = json.loads(run_cli("recipes", "--json").stdout)
    files = {file.stem: file for file in SHIPPED.glob("*.yaml")}
    assert [row["name"] for row in found] == sorted(files) and len(files) == 38
    assert {row["command"] for row in found} == {"train", "compress", "multitask", "pretrain"}
    assert all(20 < len(row["description"]) < 500 and "\n" not in row["description"] for row in found)
    table = run_cli("recipes").stdout
    assert all(name in table for name in files)
    assert run_cli("recipes", "cofi").stdout == files["cofi"].read_text(encoding="utf-8")
    assert_refused(run_cli("recipes", "coffee"), ["Unknown recipe 'coffee'", "Did you mean 'cofi'?"])


def test_a_recipe_is_taken_by_name_or_path_and_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name, by_path = load_recipe("random"), load_recipe(SHIPPED / "random.yaml")
    assert by_name == by_path and by_name.name == "random" and by_name.phases[0].rules[0].criterion.kind == "random"
    assert_refused(run_cli("train", "./none", "--recipe", "random"), ["model folder does not exist"])
    (tmp_path / "random").write_text("seed: 7\nname: mine", encoding="utf-8")
    assert (load_recipe("random").seed, load_recipe("random").name) == (7, "mine")
    assert_refused(run_cli("train", "--recipe", "randon"), ["Unknown recipe 'randon'", "Did you mean 'random'?"])
    assert_refused(run_cli("train", "--recipe", "a/b.yaml"), ["recipe file does not exist", "sparsebert recipes"])


def test_what_a_recipe_is_called_does_not_decide_a_run(tmp_path):
    one, other = (tmp_path / name for name in ("one.yaml", "other.yaml"))
    for file in (one, other):
        file.write_text("seed: 3", encoding="utf-8")
    first, second = load_recipe(one), load_recipe(other)
    assert (first.name, second.name) == ("one", "other") and first.hash == second.hash
    assert differing_keys(first, second) == [] and load_recipe(None).name is None
