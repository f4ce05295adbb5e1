"""Who works next: conversions before proofs, and nobody once they are closed."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from edgekit.export.slots import COMPRESS, PROVE, REFERENCE, Slots


def wait_for(slots: Slots, waiting: int) -> None:
    deadline = time.monotonic() + 10
    while len(slots._waiting) < waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(slots._waiting) == waiting


def test_the_lowest_rank_is_next_then_who_came_first() -> None:
    slots, order, lock = Slots(1), [], threading.Lock()

    def work(name: str, rank: int) -> None:
        with slots.take(rank), lock:
            order.append(name)

    with ThreadPoolExecutor(8) as pool, slots.take(0):
        asked = [("proof", PROVE), ("reference", REFERENCE), ("int8", COMPRESS), ("onnx", 1), ("other", 1)]
        for place, (name, rank) in enumerate(asked):
            pool.submit(work, name, rank)
            wait_for(slots, place + 1)
    assert order == ["onnx", "other", "int8", "reference", "proof"]


def test_no_more_work_at_once_than_there_are_slots() -> None:
    slots, now, most = Slots(2), [], []

    def work() -> None:
        with slots.take(0):
            now.append(1)
            most.append(len(now))
            time.sleep(0.005)
            now.pop()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(12)]:
            future.result()
    assert max(most) == 2


def test_closed_slots_are_taken_by_nobody() -> None:
    slots = Slots(1)

    def work() -> None:
        with slots.take(PROVE):
            raise AssertionError("it began")

    with ThreadPoolExecutor(2) as pool, slots.take(0):
        waiting = pool.submit(work)
        wait_for(slots, 1)
        slots.close()
        with pytest.raises(CancelledError):
            waiting.result(timeout=10)
    with pytest.raises(CancelledError), slots.take(0):
        pass
