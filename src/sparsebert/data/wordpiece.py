"""BERT's tokenizer: trained on a text, or of a vocabulary that is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, PreTrainedTokenizerBase

from sparsebert.data.chunks import one_thread
from sparsebert.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Tokens of every vocabulary of BERT, in the order of their ids where it is made here."""
# As Hugging Face's BertWordPieceTokenizer has them: rarer letters become [UNK], and a piece is seen twice at least.
_ALPHABET, _LEAST = 1000, 2
_INNER = "##"
# Distinct words of the text, with their punctuation, that are held before they are taken apart.
_WORDS_HELD = 1_000_000
_REPEATED_AT_ONCE = 10_000


def train_wordpiece(documents: Iterable[str], size: int, lower: bool = True) -> PreTrainedTokenizerBase:
    """BERT's tokenizer with at most `size` tokens, the special ones first; fewer where the text is too short for more.

    Letters, accents, Chinese and punctuation are treated as BERT does (Devlin et al. 2019, arXiv:1810.04805), `lower`
    as its uncased models. The same documents, in any order, give the same tokenizer. Memory grows with the number of
    different words, not with the text. Raises UserError for a size that does not hold the letters of the text, and
    for documents without a word.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lower)
    words = _words(documents, normalizer)
    if not words:
        raise UserError("There is no text to train a tokenizer on", fix="name files that hold words")
    letters, inner = _alphabet(words)
    start = [*SPECIAL, *letters, *inner]
    if size < len(start):
        raise UserError(
            "The vocabulary is too small for the letters of the text", got=size, allowed=f"at least {len(start)}"
        )
    # The library numbers inner letters in an order that changes from one process to the next, and ties between pairs
    # are broken by number; as special tokens they are numbered first, in the order that is given here.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_LEAST,
        show_progress=False,
        special_tokens=[*SPECIAL, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=_INNER,
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with one_thread():
        tokenizer.train_from_iterator(_repeated(words), trainer)
    ids = tokenizer.get_vocab()
    pieces = sorted(ids.keys() - set(start), key=ids.__getitem__)
    return _bert([*start, *pieces], lower)


def tokenizer_of_vocabulary(file: Path) -> PreTrainedTokenizerBase:
    """BERT's tokenizer of a vocabulary file in UTF-8, as its models have: one token a line, numbered from 0.

    Text is made lower case if no token, but for those in brackets, holds a capital letter. Raises UserError for a file
    that cannot be read, repeated or empty tokens, and missing special ones.
    """
    try:
        lines = file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"The vocabulary {file} cannot be read", got=error.strerror) from None
    except UnicodeDecodeError as error:
        raise UserError(f"The vocabulary {file} is not UTF-8 ({error.reason} at byte {error.start})") from None
    tokens = [line.removesuffix("\r") for line in lines]
    if missing := [token for token in SPECIAL if token not in tokens]:
        raise UserError(f"The vocabulary {file} lacks {', '.join(missing)}", fix="give one of a BERT model")
    first: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if not token:
            raise UserError(f"Line {number} of the vocabulary {file} is empty")
        if first.setdefault(token, number) != number:
            raise UserError(f"Line {number} of the vocabulary {file} repeats line {first[token]}", got=token)
    plain = (token for token in tokens if not (token.startswith("[") and token.endswith("]")))
    return _bert(tokens, lower=all(token == token.lower() for token in plain))


def _bert(tokens: list[str], lower: bool) -> PreTrainedTokenizerBase:
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, do_lower_case=lower)


def _words(documents: Iterable[str], normalizer: normalizers.Normalizer) -> Counter[str]:
    """How often each word is there that BERT splits text into."""
    splitter = pre_tokenizers.BertPreTokenizer()
    found: Counter[str] = Counter()
    held: Counter[str] = Counter()
    # What lies between spaces is taken apart once, not as often as it is there.
    for document in chain(documents, (None,)):
        if document is not None:
            held.update(document.split())
        if document is None or len(held) > _WORDS_HELD:
            for text, count in held.items():
                for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
                    found[word] += count
            held.clear()
    return found


def _alphabet(words: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The most frequent letters, and those of them that stand within words, marked as inner; both sorted."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    kept = set(sorted(counts, key=lambda letter: (-counts[letter], letter))[:_ALPHABET])
    inner = {letter for word in words for letter in word[1:]} & kept
    return sorted(kept), [_INNER + letter for letter in sorted(inner)]


def _repeated(words: Mapping[str, int]) -> Iterator[str]:
    """Texts that hold every word as often as it was counted."""
    for word, count in sorted(words.items()):
        for start in range(0, count, _REPEATED_AT_ONCE):
            yield " ".join([word] * min(_REPEATED_AT_ONCE, count - start))
