"""Which caches of a TFLite file can be written to as they lie: what its operators do with them tells."""

import mmap
import struct
from typing import Any, Iterator, Optional

_PAST, _PRESENT = b"past_key_values", b"present"
#: TFLite's number of DYNAMIC_UPDATE_SLICE
_UPDATE = 151


def updated_in_place(path: str) -> set[str]:
    """The signatures of a file that do nothing with the caches they take but to write new rows into them.

    A runtime may then be given one buffer for a cache before and after: one DYNAMIC_UPDATE_SLICE is all that reads
    `past_key_values…`, and it gives `present…`. Read by the numbers of fields in TFLite's schema.fbs (version 3): to
    import ai_edge_litert's (2.3.0) classes for it takes 4 MB, a tenth of what a small model takes.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = _Table(content, _unsigned(content, 0))
        updates = {i for i, code in enumerate(model.tables(1)) if code.number(3) == _UPDATE}
        subgraphs = list(model.tables(2))
        return {
            each.text(2).decode() for each in model.tables(7) if _only_updates(subgraphs[each.number(4)], each, updates)
        }


def _only_updates(subgraph: "_Table", definition: "_Table", updates: set[int]) -> bool:
    """Whether each cache that a signature takes and gives is read by an update alone."""
    taken, given = _ports(definition.tables(0), _PAST), _ports(definition.tables(1), _PRESENT)
    wanted = {taken[key]: given[key] for key in taken.keys() & given.keys()}
    found: dict[int, Any] = {}
    for operator in subgraph.tables(3):
        inputs = operator.numbers(1)
        for index in wanted.keys() & set(inputs):
            alone = operator.number(0) in updates and inputs[0] == index and index not in found
            found[index] = operator.numbers(2)[0] if alone else None
    return bool(wanted) and found == wanted


def _ports(entries: Iterator["_Table"], prefix: bytes) -> dict[bytes, int]:
    """The tensors of a signature's caches by what follows the prefix in their names."""
    named = ((entry.text(0), entry.number(1)) for entry in entries)
    return {name[len(prefix) :]: index for name, index in named if name.startswith(prefix)}


class _Table:
    """A table of a flatbuffer, its fields by number."""

    def __init__(self, content: Any, place: int) -> None:
        self._content, self._place = content, place
        self._fields = place - struct.unpack_from("<i", content, place)[0]
        self._size = struct.unpack_from("<H", content, self._fields)[0]

    def number(self, field: int) -> int:
        """A number of 32 bits; 0 where it is not there."""
        place = self._find(field)
        return 0 if place is None else _unsigned(self._content, place)

    def numbers(self, field: int) -> list[int]:
        """A vector of int32."""
        start, count = self._vector(field)
        return list(struct.unpack_from(f"<{count}i", self._content, start))

    def text(self, field: int) -> bytes:
        """A string."""
        start, count = self._vector(field)
        return bytes(self._content[start : start + count])

    def tables(self, field: int) -> Iterator["_Table"]:
        """A vector of tables."""
        start, count = self._vector(field)
        for place in range(start, start + 4 * count, 4):
            yield _Table(self._content, place + _unsigned(self._content, place))

    def _vector(self, field: int) -> tuple[int, int]:
        """Where a vector's values begin, and how many there are."""
        place = self._find(field)
        if place is None:
            return 0, 0
        start = place + _unsigned(self._content, place)
        return start + 4, _unsigned(self._content, start)

    def _find(self, field: int) -> Optional[int]:
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self._content, self._fields + entry)[0] if entry < self._size else 0
        return self._place + offset if offset else None


def _unsigned(content: Any, place: int) -> int:
    found: int = struct.unpack_from("<I", content, place)[0]
    return found
