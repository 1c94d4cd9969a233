"""Images that somebody pasted: xxd, hexdump, gdb's ``x``, a kernel's hex dump, C arrays, bare hex digits.

Lines that show an address (dumps) and lines that show none (arrays, digits) are two readers.  Quote marks, prompts,
colours and encodings are undone first (`fpstate.cpu.formats.text`); what holds no bytes is skipped, and said.

What a number means: in ``xxd``, ``hexdump -C`` and bare digits the bytes stand in memory order; gdb's units, C's
elements and ``hexdump`` without ``-C`` are little-endian numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fpstate.cpu.formats.text import decode, plain_lines
from fpstate.errors import UnreadableInput
from fpstate.sources import rawimage
from fpstate.sources.capture import Capture, Damage, Thread
from fpstate.sources.input import Input

__all__ = ["blocks", "is_text", "read", "sniff"]

_LONGEST: Final = 4 << 20
_LARGEST: Final = 1 << 20
"""Bytes of one image that a text may come to: repeated lines and gaps are not believed beyond."""
_MOST_BLOCKS: Final = 1024
_LEAST: Final = 512


class _Dump(NamedTuple):
    """A kind of line that shows an address and what lies there.

    Attributes:
        name: the tool.
        pattern: groups are the address and the numbers.
        little: whether a number is little-endian, else its digits stand in memory order.
    """

    name: str
    pattern: re.Pattern[str]
    little: bool


_ANY_CASE: Final = re.IGNORECASE
_DUMPS: Final = (
    _Dump(
        "gdb x",
        re.compile(
            r"(?:^|\s)(?P<at>0x[0-9a-f]+)(?:\s*+<[^>]{0,200}>)?:\s+(?P<data>(?:0x[0-9a-f]{2,16}\s*+)++)$", _ANY_CASE
        ),
        little=True,
    ),
    _Dump(
        "hexdump -C",
        re.compile(r"^(?P<at>[0-9a-f]{6,16})\s\s?(?P<data>(?:[0-9a-f]{2}(?:\s+|$)){1,16})(?:\||$)", _ANY_CASE),
        little=False,
    ),
    _Dump(
        "xxd",
        re.compile(
            r"(?:^|\s)(?P<at>(?:0x)?[0-9a-f]{7,16}):\s+(?P<data>[0-9a-f]{2,32}(?:\s[0-9a-f]{2,32})*)(?:\s.*)?$",
            _ANY_CASE,
        ),
        little=False,
    ),
    _Dump("hexdump", re.compile(r"^(?P<at>[0-9a-f]{7})(?P<data>(?:\s+[0-9a-f]{4}){1,8})$", _ANY_CASE), little=True),
)
_LONGEST_LINE: Final = 1000
"""Characters of a line of a dump."""
_LONGEST_ROW: Final = 512
"""Bytes that a row may have come to before a further line continues it; xxd prints 256 at most."""
_CONTINUED: Final = re.compile(
    r"^(?P<data>(?:(?:0x)?[0-9a-f]{2,16}\s+){0,15}(?:0x)?[0-9a-f]{2,16})\s*(?:\|.*)?$", _ANY_CASE
)
# Arrays and digits may be one line of a million characters: these patterns never go back.
_NUMBER: Final = re.compile(r"0x([0-9a-f]++)|([0-9]++)", _ANY_CASE)
_BRACES: Final = re.compile(r"\{([^{}]*+)\}")
_ELEMENTS: Final = re.compile(r"(?:0x[0-9a-f]++|[0-9]++)(?:ull?+|llu?+|lu?+)?+\s*+,?+\s*+", _ANY_CASE)
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)  # without \Z each /* looks for an end anew
_ESCAPED: Final = re.compile(r"\\x([0-9a-f]{2})", _ANY_CASE)
_DIGITS: Final = re.compile(r"^(?:0x)?(?:[0-9a-f]{2})++(?:[ \t]++(?:[0-9a-f]{2})++)*+$", _ANY_CASE)
_COMMAS: Final = re.compile(r"^(?:0x[0-9a-f]{1,16}\s*+,?+\s*+)++$", _ANY_CASE)
_DECLARATION: Final = 80
"""Characters before a brace in which the type of the elements is looked for."""
_WIDTHS: Final = {
    "u8": 1, "uint8_t": 1, "char": 1, "byte": 1, "unsigned char": 1, "uint8": 1,
    "u16": 2, "uint16_t": 2, "short": 2,
    "u32": 4, "uint32_t": 4, "int": 4, "unsigned": 4, "__u32": 4, "dword": 4,
    "u64": 8, "uint64_t": 8, "long": 8, "__u64": 8, "qword": 8,
}  # fmt: skip
"""Bytes of an element, by the last word of its type that is one of these."""


@dataclass(slots=True)
class _Block:
    """Bytes that stand one behind the other.

    Attributes:
        kind: what showed them.
        data: the bytes.
        damage: holes, and what was not believed.
        guess: what was not said but taken for granted, or "".
    """

    kind: str
    data: bytearray = field(default_factory=bytearray)
    damage: list[Damage] = field(default_factory=list)
    guess: str = ""


def sniff(source: Input) -> bool:
    """Tell whether *source* is text with an image in it."""
    if not is_text(source):
        return False
    data = source.upto(_LONGEST + 1)
    if len(data) > _LONGEST:
        return False
    found, _ = blocks(decode(bytes(data)))
    return any(_image(block) is not None for block in found)


def is_text(source: Input) -> bool:
    """Tell whether *source* begins as text does: without a zero byte, unless it is UTF-16."""
    return b"\0" not in source.head or source.head.startswith((b"\xff\xfe", b"\xfe\xff"))


def read(source: Input) -> Capture:
    """Return every image that a text shows, each as a thread without a number.

    Args:
        source: the text, in any encoding that `fpstate.cpu.formats.text` undoes.

    Raises:
        UnreadableInput: it has no bytes, too few, or none that can be an image; says which rule the first breaks.
    """
    name, data = source.name, source.upto(_LONGEST + 1)
    if len(data) > _LONGEST or not is_text(source):
        raise UnreadableInput(f"{name} is no text, or longer than {_LONGEST >> 20} MiB")
    found, skipped = blocks(decode(bytes(data)))
    threads, notes, reasons = [], [], []
    for block in found:
        image = _image(block)
        if image is None:
            reasons.append(f"{block.kind}: {rawimage.unrecognisable(memoryview(bytes(block.data)))}")
            continue
        thread, more = rawimage.thread(image, None)
        threads.append(Thread(None, image, thread.form, enabled=thread.enabled, damage=tuple(block.damage)))
        notes += [f"read as {block.kind}: {len(block.data)} bytes", *([block.guess] if block.guess else []), *more]
    if not threads:
        reason = reasons[0] if reasons else "it shows no bytes in a form that fpstate knows"
        cure = "paste xxd, hexdump -C, gdb x/xb, a C array or hex digits, from the image's first byte on"
        raise UnreadableInput(f"{name} holds no image: {reason}", cure=cure)
    if skipped:
        many = "1 line shows no bytes and was" if len(skipped) == 1 else f"{len(skipped)} lines show no bytes and were"
        notes.append(f"{many} skipped{':' if len(skipped) == 1 else ', such as'} {skipped[0][:60]!r}")
    return Capture(name, "text", tuple(threads), notes=tuple(notes))


def _image(block: _Block) -> memoryview | None:
    """Return the image in a block; what follows an FXSAVE image or a whole area is left out."""
    data = memoryview(bytes(block.data))
    if len(data) >= _LEAST and rawimage.unrecognisable(data) is None:
        return data
    return None


def blocks(text: str) -> tuple[list[_Block], list[str]]:
    """Return the runs of bytes that *text* shows, and the lines in which there are none."""
    lines = plain_lines(text)
    for reader in (_from_dumps, _from_arrays, _from_digits):
        found, skipped = reader(lines)
        if found:
            return found[:_MOST_BLOCKS], skipped
    return [], lines


class _Row(NamedTuple):
    """A line of a dump: where its bytes lie, and which they are."""

    at: str
    data: bytes


_REPEAT: Final = _Row("*", b"")


def _from_dumps(lines: Sequence[str]) -> tuple[list[_Block], list[str]]:
    """Read the kind of dump that most lines are of."""
    short = [line for line in lines if len(line) <= _LONGEST_LINE]
    counts = [(sum(dump.pattern.search(line) is not None for line in short), -i) for i, dump in enumerate(_DUMPS)]
    count, which = max(counts)
    if not count:
        return [], []
    dump = _DUMPS[-which]
    rows: list[_Row] = []
    skipped = []
    for line in lines:
        if len(line) <= _LONGEST_LINE and (found := dump.pattern.search(line)):
            rows.append(_Row(found["at"], _bytes(found["data"].split(), little=dump.little)))
        elif line == "*" and rows:
            if rows[-1] is not _REPEAT:
                rows.append(_REPEAT)
        elif rows and _is_end(line, rows):
            rows.append(_Row(line, b""))
        elif rows and (more := _continued(line, rows[-1])):
            rows[-1] = _Row(rows[-1].at, rows[-1].data + _bytes(more["data"].split(), little=dump.little))
        else:
            skipped.append(line)
    return _joined(rows, dump.name), skipped


def _is_end(line: str, rows: Sequence[_Row]) -> bool:
    """Tell whether *line* is the address alone with which hexdump ends."""
    last = (rows[-1] if rows[-1] is not _REPEAT else rows[-2]).at
    return len(line) == len(last) and re.fullmatch("[0-9a-f]+", line, _ANY_CASE) is not None and line.lower() > last


def _continued(line: str, row: _Row) -> re.Match[str] | None:
    """Return the numbers of a line without an address, if a mail program can have cut it off that of *row*."""
    if row is _REPEAT or len(row.data) > _LONGEST_ROW or len(line) > _LONGEST_LINE:
        return None
    return _CONTINUED.match(line)


def _bytes(numbers: Sequence[str], *, little: bool) -> bytes:
    found = bytearray()
    for number in numbers:
        digits = number[2:] if number[:2].lower() == "0x" else number
        piece = bytes.fromhex(digits if len(digits) % 2 == 0 else f"0{digits}")
        found += piece[::-1] if little else piece
    return bytes(found)


def _joined(rows: Sequence[_Row], kind: str) -> list[_Block]:
    """Return the rows as blocks: one ends where the address goes back, or too far on."""
    base = _base([row.at for row in rows if row is not _REPEAT])
    found: list[_Block] = []
    start = 0
    last, repeated, room = b"", False, _LARGEST
    for row in rows:
        if row is _REPEAT:
            repeated = True
            continue
        at = int(row.at, base)
        block = found[-1] if found else None
        gap = at - start - len(block.data) if block is not None else -1
        if block is None or not -len(last) < gap <= room:
            block, start, gap = _Block(kind), at, 0
            found.append(block)
            if len(found) > _MOST_BLOCKS:
                break
        room -= max(gap, 0)
        _fill(block, gap, last if repeated else b"")
        block.data += row.data
        last, repeated = row.data, False
    return found


def _fill(block: _Block, gap: int, last: bytes) -> None:
    """Make the block end where the next row begins: repeat the last row, cut what was text, or say what is missing."""
    if gap <= 0:
        del block.data[len(block.data) + gap :]
        return
    if last:
        block.data += (last * (gap // len(last) + 1))[:gap]
        return
    text = f"{gap} bytes are missing behind the first {len(block.data)}: they are taken for 0"
    block.damage.append(Damage("text.gap", text, len(block.data), "paste all lines"))
    block.data += bytes(gap)


def _base(addresses: Sequence[str]) -> int:
    """Return 8 if the addresses are od's, octal: sixteen bytes on is 20."""
    plain = [at for at in addresses if not at.lower().startswith("0x") and set(at) <= set("01234567")]
    if len(plain) < len(addresses) or len(plain) < 2:
        return 16
    return 8 if int(plain[1], 8) - int(plain[0], 8) == 16 else 16


def _from_arrays(lines: Sequence[str]) -> tuple[list[_Block], list[str]]:
    """Read C arrays in braces, and strings of hex escapes."""
    text = _COMMENT.sub(" ", "\n".join(lines))
    found = []
    for array in _BRACES.finditer(text):
        block = _array(text[max(array.start() - _DECLARATION, 0) : array.start()], array[1])
        if block is not None:
            found.append(block)
    escaped = _ESCAPED.findall(text)
    if not found and len(escaped) >= _LEAST:
        found.append(_Block("a C string", bytearray.fromhex("".join(escaped[:_LARGEST]))))
    skipped = [line for line in lines if not re.search(r"[{}]|0x|\\x|\d\s*,", line)] if found else []
    return found, skipped


def _array(declared: str, body: str) -> _Block | None:
    """Return the elements of one array, little-endian each; None if anything else stands between the braces."""
    if _ELEMENTS.sub("", body.strip()).strip():
        return None
    numbers = [
        (hexed or f"{int(plain):x}") for hexed, plain in _NUMBER.findall(body[: 24 * _LARGEST]) if len(plain) < 21
    ]
    if not numbers:
        return None
    words = re.findall(r"\w+", declared.lower())
    width = next((_WIDTHS[word] for word in reversed(words) if word in _WIDTHS), 0)
    guess = ""
    if not width:
        width = _guessed(numbers)
        guess = (
            f"no type is shown: elements of {width} bytes, by the longest number; a larger type would need more digits"
        )
    if any(len(number.lstrip("0")) > 2 * width for number in numbers):
        return None
    data = bytearray().join(int(number, 16).to_bytes(width, "little") for number in numbers)
    return _Block(f"a C array of {width}-byte elements", data[:_LARGEST], guess=guess)


def _guessed(numbers: Sequence[str]) -> int:
    longest = max(len(number) for number in numbers)
    return next((width for width in (1, 2, 4, 8) if longest <= 2 * width), 8)


def _from_digits(lines: Sequence[str]) -> tuple[list[_Block], list[str]]:
    """Read lines of nothing but hex digits, in memory order; with ``0x`` and commas they are little-endian numbers."""
    commas = [line for line in lines if _COMMAS.match(line)]
    if commas:
        block = _array("", " ".join(commas))
        return ([block] if block else []), [line for line in lines if not _COMMAS.match(line)]
    digits = [line for line in lines if _DIGITS.match(line)]
    data = bytearray.fromhex("".join(line.removeprefix("0x") for line in digits)[: 2 * _LARGEST])
    block = _Block("hex digits", data)
    return ([block] if data else []), [line for line in lines if not _DIGITS.match(line)]
