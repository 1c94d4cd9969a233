"""Neighbouring rows of a key are the same pairs however the rows are cut into blocks and parts."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="NumPy is missing: pip install 'fpstate[trace]'")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fpstate.traces.columns import Block  # noqa: E402
from fpstate.traces.neighbours import Neighbours, Pairs  # noqa: E402
from fpstate.traces.trace import merged  # noqa: E402

GONE = 4
"""In place of a key: events were lost here."""
CUT_KEYS = st.lists(st.lists(st.integers(0, GONE), max_size=6), max_size=6)


def blocks(parts: list[list[int]]) -> list[Block]:
    """Make blocks of rows that have their number as time and their key as pid."""
    numbers = iter(range(1000))
    return [Block.of_rows([(next(numbers), 0, key, int(key != GONE), 0, 0, 0, 0) for key in part]) for part in parts]


def times(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.before.time.tolist(), pairs.after.time.tolist(), strict=True))


def expected(parts: list[list[int]]) -> list[tuple[int, int]]:
    last: dict[int, int] = {}
    found = []
    for number, key in enumerate(key for part in parts for key in part):
        if key == GONE:
            last.clear()
            continue
        if key in last:
            found.append((last[key], number))
        last[key] = number
    return sorted(found)


@given(CUT_KEYS)
def test_blocks_fed_in_turn_give_every_pair_once(parts: list[list[int]]) -> None:
    neighbours = Neighbours()
    found = [pair for block in blocks(parts) for pair in times(neighbours.feed(block, block.pid))]
    assert sorted(found) == expected(parts)


@given(CUT_KEYS, st.integers(0, 6), st.integers(0, 6))
def test_parts_fed_apart_and_joined_give_the_same_pairs(parts: list[list[int]], one: int, two: int) -> None:
    made = blocks(parts)
    one, two = sorted((min(one, len(made)), min(two, len(made))))
    whole, found = Neighbours(), []
    for part in (made[:one], made[one:two], made[two:]):
        apart = Neighbours()
        for block in part:
            found += times(apart.feed(block, block.pid))
        found += times(whole.join(apart))
    assert sorted(found) == expected(parts)


@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=4), max_size=4))
def test_streams_merge_in_order_of_time(streams: list[list[list[int]]]) -> None:
    made, every = [], []
    for cpu, stream in enumerate(streams):
        ordered = iter(sorted(time for block in stream for time in block))
        rows = [[(next(ordered), cpu, at, 0, 0, 0, 0, 0) for _ in block] for at, block in enumerate(stream)]
        made.append([Block.of_rows(block) for block in rows])
        every += [row for block in rows for row in block]
    found = [
        row
        for block in merged(made)
        for row in zip(block.time.tolist(), block.cpu.tolist(), block.pid.tolist(), strict=True)
    ]
    assert [row[0] for row in found] == sorted(row[0] for row in every)
    for cpu, _ in enumerate(streams):
        assert [row for row in found if row[1] == cpu] == [row[:3] for row in every if row[1] == cpu]
    assert sorted(found) == sorted(row[:3] for row in every)


@given(CUT_KEYS)
def test_the_ends_are_the_last_row_of_each_key_since_events_were_lost(parts: list[list[int]]) -> None:
    neighbours = Neighbours()
    for block in blocks(parts):
        neighbours.feed(block, block.pid)
    last: dict[int, int] = {}
    for number, key in enumerate(key for part in parts for key in part):
        last = {} if key == GONE else {**last, key: number}
    assert sorted(neighbours.ends().time.tolist()) == sorted(last.values())
