"""Who works next, where there are more jobs than cores: conversions, the longest chain first; then the proof."""

import heapq
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from edgekit.export.plan import PlannedExport

#: targets whose conversion takes longest, measured: 7.4 s, 6.6 s and 4.8 s of one core for a compact encoder
_LONGEST = ("tflite", "onnx", "coreml")
COMPRESS = len(_LONGEST) + 1  # starts from a converted file, and is short
REFERENCE = COMPRESS + 1  # what needs its outputs is the proof
PROVE = REFERENCE + 1


class Slots:
    """As many workers at once as there are slots; of those who wait, the lowest rank is next, then who came first."""

    def __init__(self, count: int) -> None:
        self._free, self._changed = count, threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._arrivals, self._closed = itertools.count(), False

    @contextmanager
    def take(self, rank: int) -> Iterator[None]:
        """Hold a slot; raises CancelledError once they are closed."""
        with self._changed:
            ticket = (rank, next(self._arrivals))
            heapq.heappush(self._waiting, ticket)
            self._changed.wait_for(lambda: self._closed or (self._free > 0 and self._waiting[0] == ticket))
            if self._closed:
                raise CancelledError
            heapq.heappop(self._waiting)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody begin any more: for Ctrl-C, where those who wait would start new processes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def conversion_rank(plan: PlannedExport) -> int:
    """The rank of converting a plan's file from its source."""
    name = plan.target.name
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)
