"""Blob files: the weights beside a program, mapped into memory and never copied.

Each begins with a record of 64 bytes that names its type, its size and where its data is (coremltools'
mlmodel/src/MILBlob/Blob/StorageFormat.hpp). coremltools' own loader copies every weight: BERT-base took 2.0 times its
size at load alone (coremltools 9.0), which is why it is not used here.
"""

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.mil.failures import MilError
from edgekit.mil.values import DATA_TYPES, Array, PackedIntegers

_MODEL_PATH = "@model_path/"
_SENTINEL = 0xDEADBEEF
_METADATA = struct.Struct("<IIQQ")  # sentinel, type, bytes, offset of the data


class BlobFiles:
    """The blob files of one package; `folder` is the one that holds its model.mlmodel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mapped: dict[str, NDArray[np.uint8]] = {}

    def locate(self, name: str, file: str, offset: int, data_type: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The stored bytes of the weight `name`.

        Raises MilError: the file is missing, truncated or outside the package, or the weight is not at its place.
        """
        content = self._map(file)
        if offset + _METADATA.size > len(content):
            raise MilError("load-failed", f"the weight {name!r} lies beyond the end of {file}")
        sentinel, code, size, start = _METADATA.unpack(content[offset : offset + _METADATA.size].tobytes())
        kind = DATA_TYPES.get(data_type)
        expected = math.ceil(math.prod(shape) * kind.bits / 8) if kind else -1
        if sentinel != _SENTINEL or kind is None or code != kind.code or size != expected:
            raise MilError(
                "load-failed", f"the weight {name!r} is not at its place in {file}, or not {data_type} {list(shape)}"
            )
        if start + size > len(content):
            raise MilError("load-failed", f"{file} is truncated: the weight {name!r} ends beyond its end")
        return content[start : start + size]

    def read(self, name: str, file: str, offset: int, data_type: str, shape: tuple[int, ...]) -> Array | PackedIntegers:
        """The weight `name` as numpy sees it; integers of less than a byte stay packed."""
        content = self.locate(name, file, offset, data_type, shape)
        if DATA_TYPES[data_type].bits < 8:
            return PackedIntegers(content=content, data_type=data_type, shape=shape)
        return content.view(DATA_TYPES[data_type].dtype).reshape(shape)

    def _map(self, name: str) -> NDArray[np.uint8]:
        if name not in self._mapped:
            relative = Path(name.removeprefix(_MODEL_PATH))
            file = self._folder / relative
            inside = name.startswith(_MODEL_PATH) and not relative.is_absolute() and ".." not in relative.parts
            if not inside or file.is_symlink() or file.parent.is_symlink():
                raise MilError("load-failed", f"its program names weights outside the package: {name!r}")
            if not file.is_file():
                raise MilError("load-failed", f"its weights {relative} are missing")
            empty = file.stat().st_size == 0  # which can't be mapped
            self._mapped[name] = np.zeros(0, np.uint8) if empty else np.asarray(np.memmap(file, np.uint8, mode="r"))
        return self._mapped[name]
