"""The build: what tag a wheel gets, and what package indexes show."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sparsebert.kernels.native import FILE
from sparsebert.recipe.load import SHIPPED

ROOT = Path(__file__).parents[1]
HERE = "linux-x86_64"
BASE = b"\x7fELF\0libc.so.6\0libgomp.so.1\0GLIBC_2.2.5\0"


@pytest.fixture(scope="module")
def hook() -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (b"", "manylinux_2_17_x86_64"),
        (b"GLIBC_2.14\0GLIBC_2.17\0", "manylinux_2_17_x86_64"),
        (b"GLIBC_2.29\0GLIBC_2.4\0", "manylinux_2_29_x86_64"),
        (b"GLIBC_2.34\0CXXABI_1.3\0GCC_3.4\0GLIBCXX_3.4.19\0", "manylinux_2_34_x86_64"),
        (b"GLIBCXX_3.4.20\0", "linux_x86_64"),
        (b"CXXABI_1.3.8\0", "linux_x86_64"),
        (b"GLIBC_ABI_DT_RELR\0", "linux_x86_64"),
        (b"GLIBC_PRIVATE\0", "linux_x86_64"),
        (b"libblas.so.3\0", "linux_x86_64"),
        (b"libm.so.6\0ld-linux-x86-64.so.2\0", "manylinux_2_17_x86_64"),
    ],
)
def test_a_wheel_is_tagged_by_what_its_library_asks_for(hook: Any, names: bytes, tag: str) -> None:
    assert hook.platform_tag(BASE + names, HERE) == tag


def test_a_library_of_another_kind_keeps_the_tag_of_its_machine(hook: Any) -> None:
    assert hook.platform_tag(b"\x7fELF\0libc.musl-x86_64.so.1\0", HERE) == "linux_x86_64"
    assert hook.platform_tag(b"", "macosx-14.0-arm64") == "macosx_14_0_arm64"


@pytest.mark.skipif(not FILE.is_file(), reason="the kernels were not built here")
def test_the_kernels_as_built_can_be_published(hook: Any) -> None:
    assert re.fullmatch(r"manylinux_2_\d+_x86_64", hook.platform_tag(FILE.read_bytes(), HERE))


def test_an_index_shows_links_that_lead_somewhere(hook: Any) -> None:
    metadata: dict[str, Any] = {}
    hook.Readme(str(ROOT), {}).update(metadata)
    text = metadata["readme"]["text"]
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) > 10 and all(link.startswith(("https://", "#")) for link in links)
    assert f"]({hook.REPOSITORY}docs/cli.md)" in text
    assert hook.absolute_links("[a](#b) [c](d.md#e) [f](http://g)") == (
        f"[a](#b) [c]({hook.REPOSITORY}d.md#e) [f](http://g)"
    )


def test_the_project_says_where_it_lives_and_carries_its_recipes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    urls = project["project"]["urls"].values()
    assert all(url.startswith("https://github.com/sparsebert/sparsebert") for url in urls)
    packaged = ROOT / project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"][0]
    assert SHIPPED.is_relative_to(packaged) and list(SHIPPED.glob("*.yaml"))
