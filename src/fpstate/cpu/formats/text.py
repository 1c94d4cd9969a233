"""Text as people hand it over: quoted in mail, wrapped, coloured, encoded; made plain once, before any reader looks.

What every reader can do without is undone for the whole input (`decode`, `plain_lines`): encodings, colours, HTML
entities, quote marks.  What only a reader can judge, whether a line was cut in the middle of a record, is undone with
the reader's own patterns (`rejoin`).  Timestamps and log prefixes need nothing: readers search within a line.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["HEX32", "decode", "plain_lines", "rejoin"]

HEX32: Final = r"([0-9a-fA-F]{8})(?![0-9a-fA-F])"
"""Pattern of a 32-bit register as all these tools print it: eight digits, captured."""

_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")

# In quoted-printable text '=' only ever starts an escape or a soft line break (RFC 2045, 6.7), ...
_NOT_QUOTED_PRINTABLE: Final = re.compile(rb"=(?!\r?\n|[0-9A-F]{2})")
# ... but so it does in a register list whose values happen to be decimal digits; one of these must be there too.
_QUOTED_PRINTABLE: Final = re.compile(rb"=3D(?:0x|=\r?\n)?[0-9A-Fa-f]{8}|=3D[^0-9A-Fa-f]|=C2=A0|=20\r?\n")

_ANSI_ESCAPE: Final = re.compile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)?|[@-Z\\\\^_])")

_PLAIN: Final = (
    ("\r\n", "\n"),
    ("\r", "\n"),
    ("\0", ""),
    ("\xa0", " "),
    ("\u202f", " "),
    ("\u200b", ""),
    ("\ufeff", ""),
    ("\u2018", "'"),
    ("\u2019", "'"),
)
_ENTITIES: Final = (
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&#34;", '"'),
    ("&apos;", "'"),
    ("&#39;", "'"),
    ("&#039;", "'"),
    ("&#x27;", "'"),
    ("&nbsp;", " "),
    ("&#160;", " "),
    ("&amp;", "&"),
)

_QUOTE_MARKS: Final = " \t>|"

_MOST_PIECES: Final = 3
"""Further lines that one record may have been cut into."""
_LONGEST_PIECE: Final = 400
"""Characters; nobody wraps a record of a hundred characters into longer lines than this."""
_PATIENCE: Final = 10_000
"""Records that may stay incomplete before `rejoin` stops trying: it keeps a hostile input linear in practice."""


def decode(data: bytes) -> str:
    """Return *data* as text: UTF-16 with a byte order mark, quoted-printable, UTF-8, or else Latin-1."""
    if data.startswith(_UTF16_BOMS):
        return data.decode("utf-16", errors="replace")
    if _is_quoted_printable(data):
        data = binascii.a2b_qp(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _is_quoted_printable(data: bytes) -> bool:
    """Say whether *data* is mail text that nobody decoded."""
    if b"=" not in data or _NOT_QUOTED_PRINTABLE.search(data):
        return False
    return _QUOTED_PRINTABLE.search(data) is not None


def plain_lines(text: str) -> list[str]:
    """Return the lines of *text* without colours, entities and quote marks; blank lines are left out."""
    for odd, plain in _PLAIN:
        text = text.replace(odd, plain)
    if "\x1b" in text:
        text = _ANSI_ESCAPE.sub("", text)
    if "&" in text:
        for entity, plain in _ENTITIES:
            text = text.replace(entity, plain)
    return [plain for line in text.split("\n") if (plain := line.lstrip(_QUOTE_MARKS).rstrip())]


def rejoin(lines: Sequence[str], start: re.Pattern[str], whole: re.Pattern[str]) -> Iterator[str]:
    """Yield *lines*, each record that was cut into several lines put together again.

    Args:
        lines: what `plain_lines` returned.
        start: matches in every line in which a record begins.
        whole: matches in a line only if its record is complete, and then to the end of the record.
    """
    patience = _PATIENCE
    at = 0
    while at < len(lines):
        line, used = lines[at], 1
        if patience and len(line) <= _LONGEST_PIECE and start.search(line):
            record = _complete(lines, at, start, whole)
            if record:
                line, used = record
            else:
                patience -= 1
        yield line
        at += used


def _complete(lines: Sequence[str], at: int, start: re.Pattern[str], whole: re.Pattern[str]) -> tuple[str, int] | None:
    """Return the record that begins in line *at*, and in how many lines it lies; None if it never becomes whole."""
    following = _following(lines, at, start)
    if found := whole.search(lines[at]):
        longer = _longer(lines[at], found.end(), following[0], whole) if following else None
        return (longer, 2) if longer else (lines[at], 1)
    heads = [lines[at]]
    for used, piece in enumerate(following, 2):
        heads = [joined for head in heads for joined in _joints(head, piece)]
        for head in heads:
            if whole.search(head):
                return head, used
    return None


def _longer(head: str, end: int, piece: str, whole: re.Pattern[str]) -> str | None:
    """Return *head* with *piece*, if its record, complete at *end*, has the rest of itself there; else None.

    Where the record may end in a number, a line that begins with digits need not continue it: it must then belong to
    the record as a whole.
    """
    for joined in _joints(head, piece):
        if (found := whole.search(joined)) and found.end() > end:
            cut_in_number = end == len(head) and joined == head + piece
            if not cut_in_number or found.end() == len(joined):
                return joined
    return None


def _following(lines: Sequence[str], at: int, start: re.Pattern[str]) -> list[str]:
    """Return the lines after *at* that may be the rest of its record."""
    pieces: list[str] = []
    for piece in lines[at + 1 : at + 1 + _MOST_PIECES]:
        if len(piece) > _LONGEST_PIECE or start.search(piece):
            break
        pieces.append(piece)
    return pieces


def _joints(head: str, piece: str) -> Iterator[str]:
    """Yield *head* and *piece* as they may have hung together: cut anywhere, at a blank, by a soft line break."""
    yield head + piece
    yield f"{head} {piece}"
    if head.endswith("="):
        yield head[:-1] + piece
