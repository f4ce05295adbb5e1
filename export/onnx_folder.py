"""Several ONNX graphs over one copy of their weights: a folder of graphs, and one file that all of them read.

ONNX Runtime maps that file into memory, so that graphs in one process share it.
"""

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model

from edgekit.errors import BundleError
from edgekit.sources.writers import DECODE, ENCODE
from edgekit.sources.writers_onnx import BEGIN

#: signature → file, as Optimum names them; the runner knows those that it loads
FILES = {ENCODE: "encoder_model.onnx", BEGIN: "decoder_model.onnx", DECODE: "decoder_with_past_model.onnx"}
WEIGHTS = "weights.bin"
#: smaller constants stay in their graph
SMALLEST_BYTES = 1024
#: ONNX Runtime maps weights that begin at a page
_ALIGNMENT = 4096


def write_folder(models: dict[str, Any], output: Path) -> None:
    """Write models by file name to the folder `output`, equal weights once."""
    output.mkdir()
    places: dict[str, tuple[int, int]] = {}
    with (output / WEIGHTS).open("wb") as stream:
        for model in models.values():
            for tensor in model.graph.initializer:
                content = onnx.numpy_helper.to_array(tensor).tobytes() if not tensor.raw_data else tensor.raw_data
                if len(content) < SMALLEST_BYTES:
                    continue
                key = hashlib.sha256(content).hexdigest()
                if key not in places:
                    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
                    places[key] = (stream.tell(), len(content))
                    stream.write(content)
                _point(tensor, *places[key])
    for name, model in models.items():
        (output / name).write_bytes(model.SerializeToString(deterministic=True))


def read_folder(folder: Path) -> dict[str, Any]:
    """The models of a folder by file name, with their weights inside; raises BundleError for weights elsewhere."""
    models = {}
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            check_external(tensor, folder)
        load_external_data_for_model(model, str(folder))
        for tensor in model.graph.initializer:
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        models[path.name] = model
    return models


def check_external(tensor: Any, folder: Path) -> None:
    """Raise BundleError unless a tensor's weights are in its graph or in the folder's own file of weights."""
    where = {entry.key: entry.value for entry in tensor.external_data}.get("location", WEIGHTS)
    if where != WEIGHTS or (folder / WEIGHTS).is_symlink():
        raise BundleError(f"{folder} keeps the weight {tensor.name!r} in {where}; edgekit takes {WEIGHTS} beside it")


def _point(tensor: Any, offset: int, length: int) -> None:
    """Let a tensor's values be those at a place of the file of weights."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
