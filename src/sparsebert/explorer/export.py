"""The page as files that open from the disk and can be sent on: nothing in them asks a server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.explorer.library import Library
from sparsebert.explorer.pages import asset, asset_names, model_html, view_of
from sparsebert.files import clear_abandoned, folder_beside, write_text_atomically

PAGE = "index.html"
MODELS = "models.js"


def export(
    library: Library, folder: Path, done: Callable[[int], None] = lambda more: None
) -> tuple[Path, tuple[str, ...]]:
    """Write the page and its files into `folder`, all of it or nothing; gives the page, and what could not be shown.

    `done` is told of every model. An earlier export is replaced. Raises UserError where there is no model, and for a
    folder that holds anything else.
    """
    _refuse_foreign(folder)
    view = view_of(library.look(), live=False)
    if not view.models:
        raise UserError("; ".join(view.shelf.problems).rstrip(".") or "No run given has a model to show")
    clear_abandoned(folder.parent)
    with folder_beside(folder) as place:
        new = place / "new"
        write_text_atomically(new / PAGE, view.html)
        for name in asset_names():
            shutil.copyfile(asset(name), _made(new / "assets" / name))
        html = {}
        for key, model in view.models.items():
            html[key] = model_html(model)
            done(1)
        write_text_atomically(new / "assets" / MODELS, f"const MODELS = {json.dumps(html)};\n")
        if folder.exists():
            os.replace(folder, place / "old")
        os.replace(new, folder)
    return folder / PAGE, view.shelf.problems


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not ((folder / PAGE).is_file() and (folder / "assets" / MODELS).is_file()):
        raise UserError("The folder is not empty and holds no export", got=folder, fix="choose another --export")
