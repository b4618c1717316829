"""A repository of the hub to a new folder, which is there only once the model in it opens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download

from sparsebert.errors import UserError
from sparsebert.files import folder_beside
from sparsebert.hub.errors import check_name, checked_token, hub_errors
from sparsebert.hub.folder import ModelFolder, open_folder

# What the hub keeps for itself, and weights in formats that are never opened here.
_UNWANTED = [".*", "*/.*", "pytorch_model*", "tf_model*", "flax_model*", "*.pkl", "*.pt"]


def folder_of(repo: str) -> Path:
    """Where a repository goes unless another folder is named: the last part of its name, here."""
    return Path(repo.rpartition("/")[2])


def pull(repo: str, folder: Path, revision: str | None = None) -> ModelFolder:
    """Download a repository into `folder`, and open the model.

    Raises UserError for a name that no repository has, a folder that exists, a repository or revision that the hub does
    not have, a hub that cannot be reached, and for what is no model that opens; then nothing is left behind.
    """
    check_name(repo)
    checked_token()
    if folder.exists():
        raise UserError("The output folder exists already", got=folder, fix="choose another --output")
    with folder_beside(folder) as place:
        made, cache = place / folder.name, place / "cache"
        with hub_errors(repo, revision):
            snapshot_download(
                repo, revision=revision, local_dir=made, cache_dir=cache, ignore_patterns=_UNWANTED, max_workers=4
            )
        made.mkdir(exist_ok=True)
        shutil.rmtree(made / ".cache", ignore_errors=True)
        try:
            opened = open_folder(made)
        except UserError as error:
            raise UserError(f"{repo} holds no model that opens: {error}".replace(str(made), repo)) from None
        os.replace(made, folder)
    return ModelFolder(folder, opened.files, opened.manifest, opened.config)
