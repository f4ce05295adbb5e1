"""Writes a TFLite model that was read and changed."""

import hashlib
from pathlib import Path
from typing import Any

import flatbuffers

_PIECE_BYTES = 1 << 16


class _Builder(flatbuffers.Builder):
    """Puts byte vectors on multiples of 16, and writes equal parts once.

    TFLite's schema demands the former of buffers (`force_align: 16`), which runtimes read in place; flatbuffers'
    generated Python (25.12) does not do it. Of equal parts, files of several lengths have many: operators, shapes,
    scales and zero points. Parts are equal where their bytes are, and all that they point to is the same.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._known: dict[Any, int] = {}
        self._links: list[tuple[int, int]] = []
        self._before = -1  # where a part begins; of a string, that is not asked

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803  (overrides)
        self._begin()
        self._alignment = max(alignment, 16) if elemSize == 1 else alignment
        self._end = super().StartVector(elemSize, numElems, self._alignment)
        return self._end

    def EndVector(self, *arguments: Any) -> Any:  # noqa: N802  (overrides)
        written = super().EndVector(*arguments)
        if self._before < 0:
            return written
        return self._once(self._alignment, written, self._content(written, self._end))

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> Any:  # noqa: N802  (overrides)
        if ("", s) not in self._known:
            self._before = -1
            self._known["", s] = super().CreateString(s, encoding, errors)
        return self._known["", s]

    def StartObject(self, numfields: int) -> None:  # noqa: N802  (overrides)
        self._begin()
        super().StartObject(numfields)

    def EndObject(self) -> Any:  # noqa: N802  (overrides)
        written = super().EndObject()
        content = self._content(written, self.objectEnd)
        fields = written + int.from_bytes(content[:4], "little", signed=True)  # where the table's layout is
        return self._once(0, written, fields.to_bytes(4, "little") + content[4:])

    def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802  (overrides)
        super().PrependUOffsetTRelative(off)
        self._links.append((self.Offset(), off))

    def _begin(self) -> None:
        self._links, self._before = [], self.Offset()

    def _content(self, written: int, end: int) -> bytearray:
        """The bytes of a part, with the places that it points to instead of the distances to them."""
        size = len(self.Bytes)
        content = self.Bytes[size - written : size - end]
        for place, target in self._links:
            content[written - place : written - place + 4] = target.to_bytes(4, "little")
        return content

    def _once(self, kind: int, written: int, content: bytearray | bytes) -> int:
        """Where an equal part is that was written before, and this one taken back; where this one is without."""
        links = tuple(written - place for place, _ in self._links)
        known = self._known.setdefault((kind, links, hashlib.sha256(content).digest()), written)
        if known != written:
            self.head = len(self.Bytes) - self._before
        return known


def serialize(model: Any) -> bytes:
    """The bytes of an unpacked model (`ModelT`): its buffers aligned, equal parts shared."""
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def write_model(path: Path, model: Any) -> None:
    """Write an unpacked model to a file, a piece at a time.

    Linux (6.18) keeps what was written at once together, up to 2 MB, and maps it whole for whoever reads a byte of it:
    runtimes that read a few rows of a token table, before the file was ever read from the disk, would have all of it in
    their memory.
    """
    content = memoryview(serialize(model))
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), _PIECE_BYTES):
            file.write(content[start : start + _PIECE_BYTES])
