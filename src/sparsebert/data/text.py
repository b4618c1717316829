"""Bytes of a text file to letters."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from sparsebert.errors import UserError

# Those of UTF-32 first: that of UTF-16 is how one of them begins.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NAMED = "name its encoding, for example --encoding {} (columns.encoding in a recipe)"
_LOOKED_AT = 10_000


@dataclass(frozen=True)
class Written:
    """How text files are written: the delimiter of CSV, and the encoding; none = found out from the file."""

    delimiter: str | None = None
    encoding: str | None = None


def decoded(content: bytes, where: str, encoding: str | None = None) -> str:
    """The text of a file, without its byte order mark; in UTF-8 unless the mark or `encoding` says otherwise.

    Raises UserError for bytes that are not of the encoding, and for an encoding that Python does not know.
    """
    name = encoding or next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    # Text of two or four bytes a letter, without its mark.
    if encoding is None and name == "utf-8" and b"\0" in content[:_LOOKED_AT]:
        raise UserError(f"{where} holds zero bytes, so it is not UTF-8", fix=_NAMED.format("utf-16-le"))
    try:
        codecs.lookup(name)
        return content.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        said = f"{where} is not {name.upper()} ({error.reason} on line {line})"
        raise UserError(said, fix=_NAMED.format("cp1252")) from None
    except (LookupError, ValueError):
        known = "what Python knows, such as utf-8, utf-16, cp1252"
        raise UserError("Unknown encoding", got=ascii(name), allowed=known) from None
