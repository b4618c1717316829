"""What the hub's client raises, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # pyright: ignore[reportPrivateImportUsage]

from sparsebert.errors import UserError

# Its package has another name from one version of the hub's client to the next.
_CONNECTION_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_name(repo: str, with_owner: bool = False) -> None:
    """Raise UserError for what cannot be the name of a repository, or lacks its owner."""
    try:
        validate_repo_id(repo)
        if with_owner and "/" not in repo:
            raise HFValidationError
    except HFValidationError:
        raise UserError(
            "This is no name of a repository", got=repo, allowed="OWNER/NAME, of letters, digits, -, _ and ."
        ) from None


def checked_token() -> str | None:
    """The token of HF_TOKEN or of `hf auth login`, if there is one.

    Raises UserError for one that no header can hold.
    """
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError("HF_TOKEN holds no token", allowed="letters, digits and signs, without spaces", fix=LOG_IN)
    return token


@contextmanager
def hub_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Inside, errors of the hub and of the way to it become a UserError."""
    try:
        yield
    except RevisionNotFoundError:
        raise UserError(
            f"The repository {repo} has no such revision", got=revision, fix="leave out --revision"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"The hub has no repository {repo} that you may see", fix=f"check the name; for a private one {LOG_IN}"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = f"{LOG_IN}, with a token that may write" if status in (401, 403) else ""
        raise UserError(f"The hub refuses: {_first_line(error)}", fix=fix) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, _CONNECTION_ERROR):
        fix = (
            "unset HF_HUB_OFFLINE"
            if constants.HF_HUB_OFFLINE
            else "connect to the network, or set HF_ENDPOINT to your hub"
        )
        raise UserError("The hub cannot be reached", got=constants.ENDPOINT, fix=fix) from None
    except (ValueError, RuntimeError) as error:
        # As of metadata in README.md that the hub does not take, and of an upload that breaks off.
        raise UserError(f"The hub's client fails: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
