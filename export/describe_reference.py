"""Reads the references for servers: SavedModel folders (with TensorFlow) and `.pt2` archives (with nothing)."""

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.errors import BundleError
from edgekit.export.describe import (
    FileDescription,
    PortDescription,
    SignatureDescription,
    TensorDescription,
    summarize,
)
from edgekit.extras import require

#: torch._export.serde.schema.ScalarType (2.13) → (name, bytes)
_SCALAR_TYPES = {
    1: ("uint8", 1), 2: ("int8", 1), 3: ("int16", 2), 4: ("int32", 4), 5: ("int64", 8), 6: ("float16", 2),
    7: ("float32", 4), 8: ("float64", 8), 12: ("bool", 1), 13: ("bfloat16", 2),
}  # fmt: skip
_SIGNATURE = "serving_default"  # an archive has one unnamed entry: the name that edgekit gives everywhere


def describe_savedmodel(path: Path) -> FileDescription:
    """Describe a SavedModel whose weights are constants of its functions, as edgekit writes it.

    Raises BundleError where it can't be parsed, MissingExtraError without TensorFlow.
    """
    require("tensorflow", f"reading {path.name}")
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        graph = saved.meta_graphs[0]
    except (DecodeError, IndexError) as error:
        raise BundleError(f"{path} is truncated or not a SavedModel") from error
    nodes = [node for function in graph.graph_def.library.function for node in function.node_def]
    return summarize(
        path=path,
        format_name="savedmodel",
        version=graph.meta_info_def.tensorflow_version,
        signatures=list(_saved_signatures(graph)),
        operators=[node.op for node in nodes if node.op != "Const"],
        tensors=list(_saved_constants(nodes)),
    )


def _saved_signatures(graph: Any) -> Iterator[SignatureDescription]:
    for name, definition in sorted(graph.signature_def.items()):
        if not name.startswith("__"):
            yield SignatureDescription(
                name=name, inputs=_saved_ports(definition.inputs), outputs=_saved_ports(definition.outputs)
            )


def _saved_ports(ports: Any) -> tuple[PortDescription, ...]:
    import tensorflow as tf

    return tuple(
        PortDescription(
            name=name, dtype=tf.as_dtype(info.dtype).name, shape=tuple(d.size for d in info.tensor_shape.dim)
        )
        for name, info in sorted(ports.items())
    )


def _saved_constants(nodes: list[Any]) -> Iterator[TensorDescription]:
    import tensorflow as tf

    for node in nodes:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            dtype = tf.as_dtype(tensor.dtype)
            shape = tuple(d.size for d in tensor.tensor_shape.dim)
            size = math.prod(shape) * (dtype.size or 0)
            if tensor.tensor_content and len(tensor.tensor_content) != size:
                raise BundleError(f"the SavedModel's constant {node.name!r} is truncated")
            yield TensorDescription(name=node.name, dtype=dtype.name, shape=shape, bytes=size)


def describe_pt2(path: Path) -> FileDescription:
    """Describe an archive of `torch.export.save` by its JSON parts; nothing is unpickled.

    Raises BundleError where it is truncated or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            model = _json_member(archive, "models/model.json")
            weights = _json_member(archive, "data/weights/model_weights_config.json")["config"]
            sizes = {info.filename.split("/", 1)[-1]: info.file_size for info in archive.infolist()}
        graph = model["graph_module"]["graph"]
        return summarize(
            path=path,
            format_name="pt2",
            version=f"schema {model['schema_version']['major']}.{model['schema_version']['minor']}",
            signatures=[_archived_signature(model["graph_module"])],
            operators=[node["target"].removeprefix("torch.ops.") for node in graph["nodes"]],
            tensors=[_archived_weight(name, entry, sizes) for name, entry in weights.items()],
        )
    except BundleError as error:
        raise BundleError(f"{path} is broken: {error}") from error
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise BundleError(f"{path} is truncated or not an archive of torch.export") from error
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise BundleError(f"{path} is an archive that edgekit can't read: {error}") from error


def _json_member(archive: zipfile.ZipFile, suffix: str) -> Any:
    for name in archive.namelist():
        if name.split("/", 1)[-1] == suffix:
            return json.loads(archive.read(name))
    raise BundleError(f"it has no {suffix}")


def _archived_signature(module: dict[str, Any]) -> SignatureDescription:
    tensors = module["graph"]["tensor_values"]
    inputs = [spec["user_input"]["arg"] for spec in module["signature"]["input_specs"] if "user_input" in spec]
    outputs = [spec["user_output"]["arg"] for spec in module["signature"]["output_specs"] if "user_output" in spec]
    names = _keyword_names(module)
    return SignatureDescription(
        name=_SIGNATURE,
        inputs=tuple(_archived_port(names[0], i, arg, tensors) for i, arg in enumerate(inputs)),
        outputs=tuple(_archived_port(names[1], i, arg, tensors) for i, arg in enumerate(outputs)),
    )


def _keyword_names(module: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The keywords of inputs and outputs, as the call's tree specifications have them."""
    call = module["module_call_graph"][0]["signature"]
    arguments, results = json.loads(call["in_spec"])[1], json.loads(call["out_spec"])[1]
    keywords = json.loads(arguments["children_spec"][1]["context"])
    return keywords, json.loads(results["context"])


def _archived_port(names: list[str], index: int, arg: dict[str, Any], tensors: dict[str, Any]) -> PortDescription:
    meta = tensors[arg["as_tensor"]["name"]]
    return PortDescription(
        name=names[index],
        dtype=_SCALAR_TYPES[meta["dtype"]][0],
        shape=tuple(size.get("as_int", -1) for size in meta["sizes"]),
    )


def _archived_weight(name: str, entry: dict[str, Any], sizes: dict[str, int]) -> TensorDescription:
    dtype, width = _SCALAR_TYPES[entry["tensor_meta"]["dtype"]]
    shape = tuple(int(size["as_int"]) for size in entry["tensor_meta"]["sizes"])
    stored = sizes.get(f"data/weights/{entry['path_name']}", 0)
    if stored != math.prod(shape) * width:
        raise BundleError(f"the weight {name!r} has {stored} bytes, {dtype} {list(shape)} needs more or less")
    return TensorDescription(name=name, dtype=dtype, shape=shape, bytes=stored)
