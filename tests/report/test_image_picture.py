"""The picture of an image: what is in it, and that a browser can read it."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest

from fpstate.cpu import by_name
from fpstate.image import Image, read
from fpstate.isa import Capabilities
from fpstate.isa.masks import xcomp_bv
from fpstate.report.image_picture import svg

SVG = "{http://www.w3.org/2000/svg}"


def image(cpu: str, xstate_bv: int, components: int = 0) -> Image:
    """Return an image of zeros with this header; compacted if *components* is given."""
    data = bytearray(16384)
    struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv(components) if components else 0)
    return read(bytes(data), Capabilities(by_name(cpu)))


def boxes(picture: str) -> list[tuple[str, str]]:
    """Return (class, title) of every box that has a title, in the order of the picture."""
    root = ET.fromstring(picture)  # noqa: S314  what this test made
    rows = [(rect.get("class", ""), rect.find(f"{SVG}title")) for rect in root.iter(f"{SVG}rect")]
    return [(css, title.text or "") for css, title in rows if title is not None]


def test_standard_stands_over_compacted() -> None:
    titles = [title for _, title in boxes(svg(image("zen4", 7)))]
    assert titles.index("opmask: 64 bytes at 832, initial configuration") < len(titles) / 2  # CPUID.0DH.5 of a Zen 4
    assert titles.count("AVX: 256 bytes at 576, in use") == 2


def test_what_is_in_use_is_filled_and_what_is_not_is_outlined() -> None:
    found = {title.split(":")[0]: css for css, title in boxes(svg(image("zen4", 0b100101)))}
    assert (found["AVX"], found["opmask"], found["SSE"], found["Hi16_ZMM"]) == ("in-use", "in-use", "init", "init")


def test_bytes_that_are_nobodys_are_hatched_and_named() -> None:
    holes = [title for css, title in boxes(svg(image("ice-lake", 7))) if css == "hole"]
    assert len(holes) == 1
    assert holes[0].startswith("unused here (BNDREGS, BNDCSR, opmask, PKRU, APX, LWP on other CPUs): 256 bytes at 832")


def test_a_compacted_image_shows_the_components_that_its_header_names() -> None:
    picture = svg(image("sapphire-rapids", 3, components=0x60003 | 1 << 9))
    titles = [title for _, title in boxes(picture)]
    assert "XTILECFG: 64 bytes at 640, initial configuration" in titles  # 576 + 8 of PKRU, then aligned to 64
    assert "alignment of XTILECFG to 64 bytes: 56 bytes at 584, nobody's" in titles
    assert not any(title.startswith("AVX") for title in titles)


@pytest.mark.parametrize("cpu", ["zen4", "ice-lake", "sapphire-rapids", "sandy-bridge"])
def test_the_boxes_of_a_format_cover_every_byte_once(cpu: str) -> None:
    places = []
    for _, title in boxes(svg(image(cpu, 7))):
        size, _, _, offset = title.rsplit(": ", 1)[1].split(",")[0].split()
        places.append((int(offset), int(size)))
    starts = [i for i, place in enumerate(places) if place[0] == 0]
    assert len(starts) == 2
    for run in (places[: starts[1]], places[starts[1] :]):
        end = 0
        for start, length in run:
            assert start == end
            end = start + length


def test_boxes_lie_beside_each_other_within_the_picture() -> None:
    root = ET.fromstring(svg(image("sapphire-rapids", 7)))  # noqa: S314  what this test made
    rows: dict[str, list[tuple[float, float]]] = {}
    for rect in root.iter(f"{SVG}rect"):
        if rect.find(f"{SVG}title") is not None:
            rows.setdefault(rect.get("y", ""), []).append((float(rect.get("x", 0)), float(rect.get("width", 0))))
    assert len(rows) == 2
    for row in rows.values():
        for (left, width), (following, _) in pairwise(row):
            assert width >= 16
            assert abs(left + width - following) < 0.2
        assert sum(row[-1]) <= float(root.get("width", 0))


def test_the_same_image_gives_the_same_bytes() -> None:
    assert svg(image("zen4", 7)) == svg(image("zen4", 7))


def test_colours_follow_the_readers_scheme() -> None:
    assert "prefers-color-scheme: dark" in svg(image("zen4", 7))


def test_a_cpus_name_cannot_break_the_picture() -> None:
    cpu = replace(by_name("zen4"), name='<script>&"\x00')
    data = bytearray(4096)
    struct.pack_into("<Q", data, 512, 7)
    assert "<script>" not in svg(read(bytes(data), cpu))
    ET.fromstring(svg(read(bytes(data), cpu)))  # noqa: S314  what this test made


def test_a_format_that_cannot_be_told_is_said_and_the_other_is_shown() -> None:
    cpu = by_name("zen4")
    components = {bit: replace(c, offset=None) if bit == 9 else c for bit, c in cpu.components.items()}
    data = bytearray(4096)
    struct.pack_into("<QQ", data, 512, 3, xcomp_bv(0x207))
    picture = svg(read(bytes(data), Capabilities(replace(cpu, components=components))))
    assert "standard format cannot be told: where PKRU" in picture
    assert any("PKRU: 8 bytes at 832" in title for _, title in boxes(picture))
