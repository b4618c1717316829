"""A model's folder to a repository of the hub: everything is checked before the hub is asked for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from sparsebert.deployment.manifest import FILE_NAME
from sparsebert.errors import UserError
from sparsebert.hub.card import model_card_of
from sparsebert.hub.errors import LOG_IN, check_name, checked_token, hub_errors
from sparsebert.hub.folder import open_folder, result_of
from sparsebert.models.companions import is_weights

CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """What goes to a repository: files of a folder, and a card where the folder has none."""

    folder: Path
    repo: str
    files: tuple[Path, ...]
    card: str | None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file by its name in the repository, sorted by name."""
        found = {str(file): (self.folder / file).stat().st_size for file in self.files}
        if self.card is not None:
            found[CARD] = len(self.card.encode("utf-8"))
        return dict(sorted(found.items()))


def prepare(folder: Path, repo: str) -> Upload:
    """Open the folder and list what would be sent; nothing is sent, and the folder stays as it is.

    Raises UserError for a name that no repository has, a folder that is no model, and files that do not fit each other
    or the record of the run that made them.
    """
    check_name(repo, with_owner=True)
    opened = open_folder(folder)
    made = result_of(opened)
    card = None if Path(CARD) in opened.files else model_card_of(opened, made, repo)
    return Upload(folder, repo, opened.files, card)


def send(upload: Upload, private: bool = False, revision: str | None = None, message: str | None = None) -> str:
    """Create the repository and the branch `revision`, unless they are there, and commit. Returns the commit's address.

    All files go in one commit, so that nobody sees a part of them; weights and the manifest of what lay there before go
    away in it, which would otherwise be opened in their place. `private` makes a new repository private; without it the
    owner's own choice counts. Raises UserError without a token, for a public repository where it is to be private, and
    where the hub refuses or cannot be reached.
    """
    if checked_token() is None:
        raise UserError("There is no token for the hub", fix=LOG_IN)
    api = HfApi()
    with hub_errors(upload.repo, revision):
        repo = api.create_repo(upload.repo, private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(repo).private:
            raise UserError(
                f"The repository {repo} is there already, and public", fix="name another, or make it private"
            )
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo, revision=revision)
        changes = _operations(upload, there)
        done = api.create_commit(repo, changes, commit_message=message or _message(), revision=revision)
    return str(done.commit_url)


def _operations(upload: Upload, there: Sequence[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    found: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(file.as_posix(), upload.folder / file) for file in upload.files
    ]
    if upload.card is not None:
        found.append(CommitOperationAdd(CARD, upload.card.encode("utf-8")))
    sent = {one.path_in_repo for one in found}
    stale = [name for name in there if name not in sent and (is_weights(name) or name == FILE_NAME)]
    return found + [CommitOperationDelete(name) for name in stale]


def _message() -> str:
    from sparsebert.version import __version__

    return f"Model made with sparsebert {__version__}"
