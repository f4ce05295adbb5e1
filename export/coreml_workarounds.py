"""Where coremltools trips over models that PyTorch and TensorFlow hold for ordinary, and the way round, in one place.

Each `Workaround` names the versions that it was seen with and what a conversion fails with without it; a test converts
a model that fails so. All of them are put in for the length of one conversion and taken out again:

    with workarounds("torch"):
        model = coremltools.convert(exported, ...)

`convert_torch_module` in `coreml_torch.py` does this for any `torch.nn.Module`.
"""

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partialmethod
from io import StringIO
from typing import Any

import numpy as np

from edgekit.errors import ExportError
from edgekit.program import Framework

#: the attribute by which coreml_torch holds the user's module, which messages leave out
WRAPPER = "module"

Converter = Callable[[Any, Any], None]  # (coremltools' context, the node): adds the node's MIL to the context


@dataclass(frozen=True, kw_only=True)
class Workaround:
    """One trap: the versions it was seen with, the error without it, and what puts the way round in."""

    name: str
    framework: Framework
    versions: str
    failure: str
    install: Callable[[ExitStack], None]


@contextmanager
def workarounds(framework: Framework, *, without: Collection[str] = ()) -> Iterator[None]:
    """Put in all workarounds for models of `framework` but those named, quietly, and take them out at the end.

    A conversion that still fails raises ExportError, which names the operation and the module it is in.
    """
    with ExitStack() as stack:
        stack.enter_context(quiet_converter())
        for each in WORKAROUNDS:
            if each.framework == framework and each.name not in without:
                each.install(stack)
        if framework == "torch":
            _name_failures(stack)
        yield


@contextmanager
def quiet_converter() -> Iterator[None]:
    """Stop what converters say on every run: progress bars, warnings, and errors that they raise as well.

    What was printed goes with an exception as its note, so that the log of a worker has it.
    """
    import tqdm

    shown, disabled = tqdm.tqdm.__init__, logging.root.manager.disable
    tqdm.tqdm.__init__ = partialmethod(shown, disable=True)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as said, redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        error.add_note(said.getvalue())
        raise
    finally:
        logging.disable(disabled)
        tqdm.tqdm.__init__ = shown


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute until `stack` is closed."""
    stack.callback(setattr, owner, name, vars(owner)[name])
    setattr(owner, name, value)


def _register(stack: ExitStack, registry: dict[str, Any], name: str, value: Any) -> None:
    """Set an entry of a registry until `stack` is closed."""
    if name in registry:
        stack.callback(registry.__setitem__, name, registry[name])
    else:
        stack.callback(registry.pop, name, None)
    registry[name] = value


def _torch_operator(*names: str) -> Callable[[Converter], Callable[[ExitStack], None]]:
    """Make an installer that registers a converter for PyTorch operators, by coremltools' names for them."""

    def wrap(convert: Converter) -> Callable[[ExitStack], None]:
        def install(stack: ExitStack) -> None:
            from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

            for name in names:
                _register(stack, _TORCH_OPS_REGISTRY.name_to_func_mapping, name, convert)

        return install

    return wrap


def _argument(context: Any, node: Any, inputs: list[Any], position: int, name: str) -> Any:
    """One argument of a node: by position, else by name, else None."""
    from coremltools.converters.mil.frontend.torch import ops

    if len(inputs) > position and inputs[position] is not None:
        return inputs[position]
    return ops._get_kwinputs(context, node, name, default=[None])[0]


def _cast_scalars(stack: ExitStack) -> None:
    """`int()` and `bool()` of constants with one element."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch import ops

    original = ops._cast

    def cast(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        (x,) = ops._get_inputs(context, node, expected=1)
        if not x.can_be_folded_to_const() or np.size(x.val) != 1:
            original(context, node, dtype, dtype_name)
            return
        context.add(Builder.const(val=dtype(np.asarray(x.val).item()), name=node.name), node.name)

    _replace(stack, ops, "_cast", cast)


@_torch_operator("new_ones")
def _new_ones(context: Any, node: Any) -> None:
    """x.new_ones(size, dtype=None): of x's dtype, unless told; size may be empty or known at run time only."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.frontend.torch.utils import NUM_TO_DTYPE_STRING
    from coremltools.converters.mil.mil import types

    inputs = ops._get_inputs(context, node, min_expected=2)
    x, size = inputs[:2]
    dtype = _argument(context, node, inputs, 2, "dtype")
    name = types.builtin_to_string(x.dtype) if dtype is None else NUM_TO_DTYPE_STRING[dtype.val]
    if isinstance(size, list) and size:
        size = Builder.concat(values=size, axis=0)
    scalar = isinstance(size, list) or size.shape == (0,)
    ones = Builder.const(val=np.float32(1)) if scalar else Builder.fill(shape=size, value=1.0)
    context.add(Builder.cast(x=ones, dtype=name, name=node.name))


@_torch_operator("diff")
def _diff(context: Any, node: Any) -> None:
    """torch.diff(x, n=1, dim=-1, prepend=None, append=None); of booleans, whether neighbours differ."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.mil import types

    inputs = ops._get_inputs(context, node, min_expected=1)
    x = inputs[0]
    n, dim, before, after = (
        _argument(context, node, inputs, position, name)
        for position, name in enumerate(("n", "dim", "prepend", "append"), start=1)
    )
    axis = (-1 if dim is None else int(dim.val)) % x.rank
    parts = [part for part in (before, x, after) if part is not None]
    if len(parts) > 1:
        x = Builder.concat(values=parts, axis=axis)
    for _ in range(1 if n is None else int(n.val)):
        here, whole = [i == axis for i in range(x.rank)], [True] * x.rank
        others = [not each for each in here]
        later = Builder.slice_by_index(
            x=x, begin=[int(each) for each in here], end=[0] * x.rank, begin_mask=others, end_mask=whole
        )
        earlier = Builder.slice_by_index(
            x=x, begin=[0] * x.rank, end=[-int(each) for each in here], begin_mask=whole, end_mask=others
        )
        x = Builder.logical_xor(x=later, y=earlier) if types.is_bool(x.dtype) else Builder.sub(x=later, y=earlier)
    context.add(x, node.name)


@_torch_operator("alias")
def _alias(context: Any, node: Any) -> None:
    """A view of the whole of a tensor: the tensor itself."""
    context.add(context[node.inputs[0]], node.name)


@_torch_operator("__and__")
def _and(context: Any, node: Any) -> None:
    from coremltools.converters.mil.frontend.torch import ops

    ops.bitwise_and(context, node)


@_torch_operator("__or__", "or")
def _or(context: Any, node: Any) -> None:
    """x | y of booleans; MIL has no bitwise operations of integers."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.mil import types

    x, y = ops._get_inputs(context, node, expected=2)
    if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
        raise NotImplementedError("bitwise operations are converted of booleans only")
    context.add(Builder.logical_or(x=x, y=y, name=node.name))


@_torch_operator("where.scalarself", "where.scalarother", "where.scalar")
def _where(context: Any, node: Any) -> None:
    from coremltools.converters.mil.frontend.torch import ops

    ops.where(context, node)  # which gives both branches one dtype; its own for scalars passes them on as they are


@_torch_operator("gelu")
def _gelu(context: Any, node: Any) -> None:
    """gelu(x, approximate="none"), where torch.export gives `approximate` by name."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch import ops

    inputs = ops._get_inputs(context, node, min_expected=1)
    approximate = _argument(context, node, inputs, 1, "approximate")
    by_tanh = getattr(approximate, "val", approximate) == "tanh"  # torch.export gives the text itself
    context.add(Builder.gelu(x=inputs[0], mode="TANH_APPROXIMATION" if by_tanh else "EXACT", name=node.name))


def _erfc(stack: ExitStack) -> None:
    """1 - erf(x)."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.tensorflow import ops  # noqa: F401  (fills the registry)
    from coremltools.converters.mil.frontend.tensorflow.tf_op_registry import _TF_OPS_REGISTRY

    def convert(context: Any, node: Any) -> None:
        x = context[node.inputs[0]]
        context.add(node.name, Builder.sub(x=1.0, y=Builder.erf(x=x), name=node.name))

    _register(stack, _TF_OPS_REGISTRY, "Erfc", convert)


def _strided_slice(stack: ExitStack) -> None:
    """x[begin:end] of fewer axes than x has, where begin or end is known at run time only: the rest is whole."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.tensorflow import ops
    from coremltools.converters.mil.frontend.tensorflow.tf_op_registry import _TF_OPS_REGISTRY

    class Padded:
        """coremltools' context, in which some variables are others."""

        def __init__(self, context: Any, instead: dict[str, Any]) -> None:
            self.add, self._context, self._instead = context.add, context, instead

        def __getitem__(self, name: str) -> Any:
            return self._instead.get(name) or self._context[name]

    def convert(context: Any, node: Any) -> None:
        rank, instead = context[node.inputs[0]].rank, {}
        for name in node.inputs[1:3]:
            given = context[name]
            missing = rank - given.shape[0]
            if given.val is None and missing > 0 and not (node.attr["ellipsis_mask"] or node.attr["new_axis_mask"]):
                instead[name] = Builder.concat(values=[given, np.zeros(missing, np.int32)], axis=0)
        ops.StridedSlice(Padded(context, instead), node)

    _register(stack, _TF_OPS_REGISTRY, "StridedSlice", convert)


def _name_failures(stack: ExitStack) -> None:
    """Make what fails inside coremltools name the operation and the module of the source, as its log does."""
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.frontend.torch.internal_graph import InternalTorchIRNode

    read, convert = InternalTorchIRNode.from_exir_node, ops.convert_single_node

    def read_node(node: Any) -> Any:
        try:
            return read(node)
        except Exception as error:
            raise _failure(str(node.target), _exported_module(node.meta), error) from error

    def convert_node(context: Any, node: Any) -> None:
        try:
            convert(context, node)
        except ExportError:
            raise  # of a block inside this node
        except Exception as error:
            module = _exported_module(node.meta) if node.meta else ".".join(node.get_scope_info()[0][:-1])
            raise _failure(node.kind, module, error) from error

    _replace(stack, InternalTorchIRNode, "from_exir_node", staticmethod(read_node))
    _replace(stack, ops, "convert_single_node", convert_node)


def _exported_module(meta: Any) -> str:
    """Where torch.export says that a node comes from: the innermost module's path."""
    stack = list((meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _failure(operation: str, module: str, error: Exception) -> ExportError:
    module = module.removeprefix(WRAPPER).removeprefix(".")
    where = f"in the module {module!r}" if module else "in the outermost module"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ExportError(f"coremltools can't convert the operation {operation!r} {where}: {(lines or [repr(error)])[0]}")


_PINNED = "coremltools 9.0, torch 2.13"
WORKAROUNDS = (
    Workaround(
        name="int",
        framework="torch",
        versions="coremltools 9.0, numpy 2.4",
        failure="TypeError: only 0-dimensional arrays can be converted to Python scalars",
        install=_cast_scalars,
    ),
    Workaround(
        name="new_ones",
        framework="torch",
        versions=_PINNED,
        failure="no converter for 'new_ones', which transformers 5 makes masks with",
        install=_new_ones,
    ),
    Workaround(
        name="diff",
        framework="torch",
        versions=_PINNED,
        failure="no converter for 'diff', by which decoders of transformers 5 look for packed sequences",
        install=_diff,
    ),
    Workaround(
        name="alias",
        framework="torch",
        versions=_PINNED,
        failure="no converter for 'alias', which torch.export makes of detach() and whole views",
        install=_alias,
    ),
    Workaround(
        name="and",
        framework="torch",
        versions=_PINNED,
        failure="'&' is registered as 'and', torch.export calls it '__and__'",
        install=_and,
    ),
    Workaround(
        name="or",
        framework="torch",
        versions=_PINNED,
        failure="no converter for '|' as torch.export calls it, '__or__'",
        install=_or,
    ),
    Workaround(
        name="where",
        framework="torch",
        versions=_PINNED,
        failure="where(condition, number, tensor): 'select' is given two dtypes, or the overload is unknown",
        install=_where,
    ),
    Workaround(
        name="gelu",
        framework="torch",
        versions=_PINNED,
        failure="gelu(x, approximate='tanh') of torch.export converts, to the exact GELU: 5e-4 of difference",
        install=_gelu,
    ),
    Workaround(
        name="Erfc",
        framework="tensorflow",
        versions="coremltools 9.0, TensorFlow 2.21",
        failure="Conversion for TF op 'Erfc' not implemented: Keras' exact GELU",
        install=_erfc,
    ),
    Workaround(
        name="StridedSlice",
        framework="tensorflow",
        versions="coremltools 9.0, TensorFlow 2.21",
        failure="table[:length] converts, to a slice whose end has fewer axes than the table: nothing can run it",
        install=_strided_slice,
    ),
)
