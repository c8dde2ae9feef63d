# SPDX-License-Identifier: Apache-2.0
"""Work spread over forked processes, one of which may die: what it was doing is then known by name."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

import cv2

from ppcls.utils.forked import begin_forked

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_AHEAD = 4
"""Pieces of work that wait for each process, so that none of them ever waits for work."""

_function: Callable[[Any], Any] | None = None


def in_processes(
    function: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    num_workers: int,
    when_dead: Callable[[Piece], Result],
) -> Iterator[tuple[Piece, Result]]:
    """Give each piece of work with its result, in the order in which they are done.

    Args:
        function: runs in a forked process, which has all that this one has in memory.
        pieces: what it is called with; small.
        num_workers: processes at most; 0 works in this one.
        when_dead: called here with each piece that a process died of.
    """
    if num_workers == 0:
        for piece in pieces:
            yield piece, function(piece)
        return
    pieces = iter(pieces)
    # A pool starts all its processes, also those for which there is no work.
    first = list(islice(pieces, num_workers))
    num_workers = max(len(first), 1)
    rest, suspects = chain(first, pieces), deque[Piece]()
    while True:
        suspects.extend((yield from _until_one_dies(function, rest, num_workers)))
        if not suspects:
            return
        while suspects:
            piece = suspects.popleft()
            # Alone in a process: if that dies, it was this one.
            dead = yield from _until_one_dies(function, iter([piece]), 1)
            if dead:
                yield piece, when_dead(piece)


def _until_one_dies(
    function: Callable[[Piece], Result], pieces: Iterator[Piece], num_workers: int
) -> Iterator[tuple[Piece, Result]]:
    """Give results; return, as the generator's value, the pieces that were under way when a process died."""
    under_way: dict[Future, Piece] = {}
    refused: list[Piece] = []
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("fork"), _begin, (function,)) as pool:
        try:
            while True:
                for piece in islice(pieces, num_workers * _AHEAD - len(under_way)):
                    refused = [piece]  # by a pool of which a process died while the results were used
                    under_way[pool.submit(_call, piece)] = piece
                    refused = []
                if not under_way:
                    return []
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield under_way.pop(future), result
        except BrokenProcessPool:
            return [*under_way.values(), *refused]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    begin_forked()
    cv2.setNumThreads(0)


def _call(piece: Any) -> Any:
    assert _function is not None
    return _function(piece)
