"""Build hooks: the native kernels in the wheel, a tag that says where they run, and a README without relative links."""

from __future__ import annotations

import importlib.util
import re
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY = "https://github.com/sparsebert/sparsebert/blob/main/"
# What every manylinux promises besides the C library, and OpenMP, which torch brings along or needs of the system.
PROMISED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2"} | {
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libgomp.so.1",
}
# The oldest C library that wheels are tagged for, and the newest names that its distributions have (PEP 599 and 600).
OLDEST = (2, 17)
NEWEST = {"GLIBCXX": (3, 4, 19), "CXXABI": (1, 3, 7), "GCC": (4, 8, 0)}


class NativeKernels(BuildHookInterface):
    """Puts `_native.so` beside the code, in wheels and in editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a machine without a compiler gets the pure wheel."""
        script = Path(self.root) / "csrc" / "build.py"
        spec = importlib.util.spec_from_file_location("sparsebert_native_build", script)
        assert spec is not None and spec.loader is not None
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        try:
            native.build()
        except native.BuildError as error:
            native.OUTPUT.unlink(missing_ok=True)
            self.app.display_warning(f"Native kernels left out: {error}")
            return
        build_data["artifacts"].append("src/sparsebert/kernels/_native.so")
        tag = platform_tag(native.OUTPUT.read_bytes(), sysconfig.get_platform())
        build_data.update(pure_python=False, tag=f"py3-none-{tag}")


class Readme(MetadataHookInterface):
    """Gives package indexes the README with links that lead somewhere from there."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute_links(text)}


def platform_tag(library: bytes, platform: str) -> str:
    """The manylinux tag that a compiled library keeps to, or the plain one of this machine where it keeps to none.

    Reads the names of versions and libraries out of the whole file: one that is there by accident makes the tag newer
    than need be, never older.
    """
    plain = platform.replace("-", "_").replace(".", "_")
    needed = {name.decode() for name in re.findall(rb"\0((?:lib|ld-)[\w+.-]*\.so[.\d]*)(?=\0)", library)}
    versions = _versions(library)
    glibc = versions.pop("GLIBC", None)
    known = all(version <= NEWEST.get(name, version) for name, version in versions.items())
    # Names such as GLIBC_ABI_DT_RELR have no number, and need newer loaders than their neighbours say.
    if glibc is None or not known or not needed <= PROMISED or re.search(rb"\0GLIBC_[A-Z]", library):
        return plain
    major, minor = max(OLDEST, glibc[:2])
    return f"manylinux_{major}_{minor}_{plain.removeprefix('linux_')}"


def _versions(library: bytes) -> dict[str, tuple[int, ...]]:
    """The newest version of each name, three numbers long."""
    found: dict[str, tuple[int, ...]] = {}
    for name, text in re.findall(rb"\0(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+){0,2})(?=\0)", library):
        version = (*map(int, text.split(b".")), 0, 0)[:3]
        found[name.decode()] = max(version, found.get(name.decode(), version))
    return found


def absolute_links(markdown: str) -> str:
    """Links to files of the repository as addresses of it; those to parts of the page and to other sites stay."""
    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", rf"]({REPOSITORY}\1)", markdown)
