"""A model's folder to a repository of the hub: everything is checked before the hub is asked for anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token

from sparsebert.errors import UserError
from sparsebert.hub.card import model_card_of
from sparsebert.hub.errors import LOG_IN, check_name, hub_errors
from sparsebert.hub.folder import open_folder, result_of

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
    check_name(repo)
    opened = open_folder(folder)
    made = result_of(opened)
    card = None if Path(CARD) in opened.files else model_card_of(opened, made, repo)
    return Upload(folder, repo, opened.files, card)


def send(upload: Upload, private: bool = False, revision: str | None = None, message: str | None = None) -> str:
    """Create the repository and the branch `revision`, unless they are there, and commit. Returns the commit's address.

    All files go in one commit, so that nobody sees a part of them. Raises UserError without a token, and where the hub
    refuses or cannot be reached.
    """
    if get_token() is None:
        raise UserError("There is no token for the hub", fix=LOG_IN)
    api = HfApi()
    with hub_errors(upload.repo, revision):
        repo = api.create_repo(upload.repo, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.create_commit(repo, _operations(upload), commit_message=message or _message(), revision=revision)
    return str(done.commit_url)


def _operations(upload: Upload) -> list[CommitOperationAdd]:
    found = [CommitOperationAdd(file.as_posix(), upload.folder / file) for file in upload.files]
    if upload.card is not None:
        found.append(CommitOperationAdd(CARD, upload.card.encode("utf-8")))
    return found


def _message() -> str:
    from sparsebert.version import __version__

    return f"Model made with sparsebert {__version__}"
