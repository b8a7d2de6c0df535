"""A queue in which the clients take turns, so that none can keep the others waiting."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator


class BusyError(Exception):
    """Too much is waiting already; the message is one line for the client."""


class FairQueue:
    """Lets one request work at a time; the addresses that wait take turns.

    Args:
        most: requests that may wait, of all addresses together.
        most_each: requests that may wait, of each address.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._waiting: collections.OrderedDict[str, collections.deque[asyncio.Future]] = collections.OrderedDict()
        self._busy = False

    def check(self, address: str) -> None:
        """Raises a BusyError if a request of this address may not wait."""
        if len(self._waiting.get(address, ())) >= self._most_each or self._count() >= self._most:
            raise BusyError("Too many requests are waiting; try again in a moment.")

    @contextlib.asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Waits until it is this request's turn; the work is done inside.

        Raises:
            BusyError: too much is waiting already.
        """
        self.check(address)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, collections.deque()).append(turn)
        self._next()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._busy = False
            else:  # the client is gone
                self._remove(address, turn)
            self._next()

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _next(self) -> None:
        if self._busy or not self._waiting:
            return
        address, turns = self._waiting.popitem(last=False)
        turn = turns.popleft()
        if turns:
            self._waiting[address] = turns  # behind the others
        if turn.cancelled():
            self._next()
            return
        self._busy = True
        turn.set_result(None)

    def _remove(self, address: str, turn: asyncio.Future) -> None:
        turns = self._waiting.get(address)
        if turns and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[address]
