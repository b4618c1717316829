"""Fewer entries in a tokenizer: which of them texts need, and the tokenizer that has no others.

What is kept is closed: with an entry stay those that its tokenizer goes through to reach it. A text whose tokens are
all kept is then read as before, token for token:

- WordPiece takes the longest entry that fits, and the longest of all entries is also the longest of fewer.
- BPE merges the pair of the lowest rank; the merges that such a text goes through are kept, and no others are added.
- Unigram takes the cheapest path, and the cheapest of all paths is also the cheapest of fewer. What an unknown
  character costs follows from the lowest score, so that its entry stays.

Other texts are read in smaller pieces, down to single characters or bytes. Of characters that are neither in ASCII nor
in the texts, a WordPiece and a Unigram make their unknown token.
"""

from __future__ import annotations

import json
import string
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sparsebert.errors import UserError

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
TEXTS_AT_ONCE = 1000
Needs = Callable[[str], Iterable[str]]
"""The entries that an entry is of no use without, or that are fallen back to where it is gone; not all need exist."""


def count_entries(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Counter[str]:
    """How often each entry is used in texts, whole and without special tokens.

    Raises UserError as `cut_tokenizer` does.
    """
    names = {number: entry for entry, number in _ids(_state(tokenizer)).items()}
    found = Counter[int]()
    for ids in _read(tokenizer, texts):
        found.update(ids)
    return Counter({names[number]: count for number, count in found.items()})


def count_changed(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, ids: Sequence[int], texts: Sequence[str]
) -> int:
    """How many texts have other tokens by a tokenizer that was cut to `ids`, whole and without special tokens."""
    pairs = zip(_read(before, texts), _read(after, texts), strict=True)
    return sum(old != [ids[number] for number in new] for old, new in pairs)


def choose_entries(tokenizer: PreTrainedTokenizerBase, used: Mapping[str, int], most: int | None = None) -> set[str]:
    """The entries that stay: what cannot go, and of those used as many as fit into `most`, the commonest first.

    Special and added tokens cannot go, nor the characters of ASCII, nor those that a BPE begins with. `most` none = all
    that are used. Raises UserError where `most` is too small for what cannot go, and as `cut_tokenizer` does.
    """
    state = _state(tokenizer)
    entries, needs = set(_entries(state["model"])), _NEEDS[_kind(state)](state["model"])
    kept = _fixed(state)
    for entry in [*kept, *string.printable]:
        kept |= {entry, *needs(entry)} & entries
    if most is not None and len(kept) > most:
        raise UserError("The vocabulary is smaller than what it cannot do without", got=most, allowed=f"{len(kept)} up")
    # By name where counts are equal, so that the choice does not depend on the order of the texts.
    for entry in sorted(used, key=lambda entry: (-used[entry], entry)):
        more = ({entry, *needs(entry)} & entries) - kept
        if most is None or len(kept) + len(more) <= most:
            kept |= more
    return kept


def entries_of(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """All entries. Raises UserError as `cut_tokenizer` does."""
    return set(_ids(_state(tokenizer)))


def kept_ids(tokenizer: PreTrainedTokenizerBase, kept: set[str]) -> list[int]:
    """The ids of the entries that stay, ascending: the place in this list is the new id."""
    state = _state(tokenizer)
    return sorted(number for entry, number in _ids(state).items() if entry in kept)


def cut_tokenizer(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> PreTrainedTokenizerBase:
    """The tokenizer with these of its entries alone, numbered anew in their order.

    Raises UserError for a tokenizer without a file for the library `tokenizers`, for one of a kind that is not known,
    and for one whose ids are not those of its file.
    """
    state = _state(tokenizer)
    new = {old: place for place, old in enumerate(ids)}
    numbers = _ids(state)
    kept = {entry for entry, number in numbers.items() if number in new}
    _CUT[_kind(state)](state["model"], kept, new)
    for token in state["added_tokens"]:
        token["id"] = new[token["id"]]
    for values, place in _around(state["post_processor"]):
        values[place] = new[values[place]]
    # Whoever reads texts says how they are padded; the file's own id may be that of another token.
    state["padding"] = None
    with tempfile.TemporaryDirectory(prefix="sparsebert-") as folder:
        small = _written(tokenizer, state, Path(folder))
    found = small.get_vocab()
    misplaced = [entry for entry in kept if found.get(entry) != new[numbers[entry]]]
    if misplaced or len(small) != len(ids):
        got = repr(misplaced[0]) if misplaced else f"{len(small)} entries in place of {len(ids)}"
        raise UserError("The tokenizer's entries cannot be numbered anew", got=got)
    return small


def _written(tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any], folder: Path) -> PreTrainedTokenizerBase:
    """As the class of the tokenizer reads it from its files, with all that it knows beside them."""
    tokenizer.save_pretrained(folder)
    (folder / FILE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    # It repeats the ids of added tokens, which the other file has.
    config.pop("added_tokens_decoder", None)
    (folder / CONFIG).write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    for name in ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            "Only the vocabulary of a tokenizer of the library `tokenizers` can be cut", got=type(tokenizer).__name__
        )
    return tokenizer.backend_tokenizer


def _state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What its file holds."""
    return json.loads(_backend(tokenizer).to_str())


def _read(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[list[int]]:
    alone = Tokenizer.from_str(_backend(tokenizer).to_str())
    alone.no_truncation()
    alone.no_padding()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for one in alone.encode_batch_fast(list(texts[start : start + TEXTS_AT_ONCE]), add_special_tokens=False):
            yield one.ids


def _kind(state: Mapping[str, Any]) -> str:
    model = state["model"]
    kind = model.get("type")
    if kind not in _CUT:
        raise UserError("The vocabulary of such a tokenizer cannot be cut", got=kind, allowed=", ".join(_CUT))
    marks = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if kind == "BPE" and marks:
        raise UserError("The vocabulary of a BPE that marks parts of words cannot be cut", got=", ".join(marks))
    return kind


def _entries(model: Mapping[str, Any]) -> list[str]:
    return [pair[0] for pair in model["vocab"]] if isinstance(model["vocab"], list) else list(model["vocab"])


def _ids(state: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = state["model"]["vocab"]
    own = {pair[0]: number for number, pair in enumerate(vocabulary)} if isinstance(vocabulary, list) else vocabulary
    return own | {token["content"]: token["id"] for token in state["added_tokens"]}


def _fixed(state: Mapping[str, Any]) -> set[str]:
    """Entries that the tokenizer cannot do without: those outside its model, and what any text may fall back to."""
    model, added = state["model"], {token["content"] for token in state["added_tokens"]}
    names = {number: entry for entry, number in _ids(state).items()}
    around = {names[values[place]] for values, place in _around(state["post_processor"])}
    return added | around | _FIXED[_kind(state)](model)


def _fixed_scores(model: Mapping[str, Any]) -> set[str]:
    """The unknown token, the lowest score, and bytes."""
    lowest = min(model["vocab"], key=lambda pair: pair[1])[0]
    unknown = () if model["unk_id"] is None else (model["vocab"][model["unk_id"]][0],)
    return {lowest, *unknown} | _spelled(model)


def _fixed_merges(model: Mapping[str, Any]) -> set[str]:
    """Single characters, of which a byte-level tokenizer has 256: where one is missing, text would be lost."""
    return {entry for entry in model["vocab"] if len(entry) == 1} | _unknown(model) | _spelled(model)


def _spelled(model: Mapping[str, Any]) -> set[str]:
    spelled = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    return spelled & {*_entries(model)}


def _unknown(model: Mapping[str, Any]) -> set[str]:
    return {model["unk_token"]} & {*model["vocab"]}


def _word_piece(model: Mapping[str, Any]) -> Needs:
    prefix = model["continuing_subword_prefix"]
    return lambda entry: [form for letter in entry.removeprefix(prefix) for form in (letter, prefix + letter)]


def _single_letters(model: Mapping[str, Any]) -> Needs:
    return lambda entry: list(entry)


def _merged(model: Mapping[str, Any]) -> Needs:
    """Every piece on the way from the characters of an entry to it, by the ranks of the merges."""
    ranks = {pair: rank for rank, pair in enumerate(_pairs(model))}

    def needs(entry: str) -> list[str]:
        pieces = list(entry)
        found = list(pieces)
        while len(pieces) > 1:
            rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(pieces)))
            if rank == len(ranks):
                break
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
            found.append(pieces[place])
        return found

    return needs


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Older files have a merge as one text with a space between its parts."""
    found = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(first, second) for first, second in found]


def _cut_numbered(model: dict[str, Any], kept: set[str], new: Mapping[int, int]) -> None:
    model["vocab"] = {entry: new[number] for entry, number in model["vocab"].items() if entry in kept}


def _cut_merged(model: dict[str, Any], kept: set[str], new: Mapping[int, int]) -> None:
    _cut_numbered(model, kept, new)
    model["merges"] = [[one, other] for one, other in _pairs(model) if {one, other, one + other} <= kept]


def _cut_scored(model: dict[str, Any], kept: set[str], new: Mapping[int, int]) -> None:
    model["vocab"] = [pair for pair in model["vocab"] if pair[0] in kept]
    if model["unk_id"] is not None:
        model["unk_id"] = new[model["unk_id"]]


_NEEDS: dict[str, Callable[[Mapping[str, Any]], Needs]] = {
    "WordPiece": _word_piece,
    "WordLevel": lambda model: lambda entry: (),
    "BPE": _merged,
    "Unigram": _single_letters,
}
_FIXED: dict[str, Callable[[Mapping[str, Any]], set[str]]] = {
    "WordPiece": _unknown,
    "WordLevel": _unknown,
    "BPE": _fixed_merges,
    "Unigram": _fixed_scores,
}
_CUT: dict[str, Callable[[dict[str, Any], set[str], Mapping[int, int]], None]] = {
    "WordPiece": _cut_numbered,
    "WordLevel": _cut_numbered,
    "BPE": _cut_merged,
    "Unigram": _cut_scored,
}


def _around(processor: Mapping[str, Any] | None) -> Iterator[tuple[list[Any], int]]:
    """The ids of special tokens that a post-processor puts around texts, each as a list and the place in it."""
    if processor is None:
        return
    for part in processor.get("processors", ()):
        yield from _around(part)
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            yield from ((special["ids"], place) for place in range(len(special["ids"])))
    yield from ((processor[name], 1) for name in ("cls", "sep") if name in processor)
