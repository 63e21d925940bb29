"""Sequence numbers of one spool as ranges: small however long a node lives, and however far a number jumps.

A range is (first, last), both included; a list of ranges is ascending, and its ranges do not touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Any ranges as a list that is ascending and does not touch.

    >>> merged([(9, 9), (4, 6), (1, 3)])
    [(1, 6), (9, 9)]
    """
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def runs(numbers: Iterable[int]) -> list[Range]:
    """Single numbers as ranges.

    >>> runs([3, 1, 2, 9, 2])
    [(1, 3), (9, 9)]
    """
    return merged((number, number) for number in numbers)


def holes(accounted: Sequence[Range], first: int, last: int) -> list[Range]:
    """What lies from `first` to `last` in none of the ranges.

    >>> holes([(3, 4), (7, 7)], 1, 8)
    [(1, 2), (5, 6), (8, 8)]
    """
    found, expected = [], first
    for start, end in accounted:
        if start > last:
            break
        if start > expected:
            found.append((expected, start - 1))
        expected = max(expected, end + 1)
    if expected <= last:
        found.append((expected, last))
    return found


def common(ranges: Sequence[Range], first: int, last: int) -> list[Range]:
    """What lies from `first` to `last` and in one of the ranges.

    >>> common([(1, 4), (7, 9)], 3, 8)
    [(3, 4), (7, 8)]
    """
    return [
        (max(start, first), min(end, last))
        for start, end in ranges
        if start <= last and end >= first
    ]


def contiguous(accounted: Sequence[Range]) -> int:
    """The highest number with nothing missing below it, from 1 on; 0 when there is no 1.

    >>> contiguous([(1, 6), (9, 9)]), contiguous([(2, 6)])
    (6, 0)
    """
    return next((last for first, last in accounted if first <= 1 <= last), 0)


def count(ranges: Iterable[Range]) -> int:
    """How many numbers the ranges hold.

    >>> count([(1, 6), (9, 9)])
    7
    """
    return sum(last - first + 1 for first, last in ranges)


def holds(ranges: Iterable[Range], number: int) -> bool:
    """Whether one of the ranges has this number."""
    return any(first <= number <= last for first, last in ranges)
