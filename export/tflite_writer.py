"""Writes a TFLite model that was read and changed."""

from typing import Any

import flatbuffers


class _AlignedBuilder(flatbuffers.Builder):
    """Puts byte vectors on multiples of 16, as TFLite's schema demands of buffers (`force_align: 16`).

    flatbuffers' generated Python (25.12) does not, and runtimes read weights in place.
    """

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803  (overrides)
        return super().StartVector(elemSize, numElems, max(alignment, 16) if elemSize == 1 else alignment)


def serialize(model: Any) -> bytes:
    """The bytes of an unpacked model (`ModelT`), its buffers aligned."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
