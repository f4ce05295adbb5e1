"""What a written file must hold before it leaves its worker: the program's signatures, and weights in its scheme."""

from collections.abc import Sequence

from edgekit.errors import ExportError
from edgekit.export.describe import FileDescription, PortDescription, SignatureDescription
from edgekit.program import LENGTH, Signature, TensorSpec

Ports = dict[str, tuple[str, tuple[int | str, ...]]]


def check_signatures(
    description: FileDescription, expected: Sequence[Signature] | Sequence[SignatureDescription]
) -> None:
    """Raise ExportError unless the file has exactly the expected signatures: names, dtypes and shapes.

    Formats keep inputs in orders of their own, so order does not count.
    """
    found = {s.name: (_ports(s, "inputs"), _ports(s, "outputs")) for s in description.signatures}
    for signature in expected:
        if signature.name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise ExportError(f"the {description.format} file lacks the signature {signature.name!r}: it has {known}")
        for side, ports in zip(("inputs", "outputs"), found[signature.name], strict=True):
            wanted = _ports(signature, side)
            if ports != wanted:
                raise ExportError(f"the {description.format} file's {side} are {_text(ports)}, not {_text(wanted)}")
    if len(found) != len(expected):
        raise ExportError(f"the {description.format} file has signatures that were not asked for: {sorted(found)}")


def check_weights(description: FileDescription, scheme: str) -> None:
    """Raise ExportError for a file without weights, or whose largest ones are not in the scheme's dtype.

    Converters have written files that load and run without any weights. Of schemes in integers, the weights are
    compared one by one: see `quantize/evidence.py`.
    """
    if scheme not in ("none", "fp16"):
        return
    floats = [tensor for tensor in description.largest if tensor.dtype.startswith(("float", "bfloat"))]
    if not floats:
        raise ExportError(f"the {description.format} file was written without its weights")
    wanted = {"none": "float32", "fp16": "float16"}[scheme]
    if floats[0].dtype != wanted:
        raise ExportError(
            f"{scheme} did not take: the largest weight, {floats[0].name!r}, is {floats[0].dtype}, not {wanted}"
        )


def _ports(signature: Signature | SignatureDescription, side: str) -> Ports:
    free = isinstance(signature, Signature) and signature.dynamic_length and side == "inputs"
    return {
        port.name: (port.dtype, (port.shape[0], LENGTH) if free else _shape(port))
        for port in getattr(signature, side)
        if not _is_kept(signature, port.name)
    }


def _is_kept(signature: Signature | SignatureDescription, name: str) -> bool:
    """Whether a port is a state that the file keeps itself."""
    return (
        isinstance(signature, Signature)
        and signature.stateful
        and name in {*signature.states, *signature.states.values()}
    )


def _shape(port: TensorSpec | PortDescription) -> tuple[int | str, ...]:
    axes = port.axes if isinstance(port, TensorSpec) else {}
    return tuple(axes.get(axis, _named(size)) for axis, size in enumerate(port.shape))


def _named(size: int | str) -> int | str:
    """A size of -1 is free, as formats without names for axes have it."""
    return LENGTH if size == -1 else size


def _text(ports: Ports) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(ports.items()))
