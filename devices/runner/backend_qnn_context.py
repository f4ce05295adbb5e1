"""TFLite files compiled for Qualcomm's NPU, on the simulator of it that onnxruntime-qnn ships for x86_64.

Such a file holds DISPATCH_OP nodes, each with a QNN context behind the model, and operators that the compiler left.
Each context runs in ONNX Runtime's QNN provider, which must not hand it to the CPU; what was left runs in TFLite. The
simulator takes contexts of every SoC: which one a file is for, is asked elsewhere.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .backend import Backend, Call, Port, Signature, nothing
from .failures import RunError
from .job import RunnerJob
from .steps import Arrays

ACCELERATORS = {"qnn-simulator": ("npu",)}
_DISPATCH = b"DISPATCH_OP"
_PROVIDER = "QNNExecutionProvider"
_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT16": "int16",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
Values = dict[int, Any]  # number of a tensor → its value
Piece = Callable[[Values], None]


class _Packages:
    """What is needed of four packages, imported once."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime
        import onnxruntime_qnn
        from ai_edge_litert import interpreter, schema_py_generated
        from flatbuffers import Builder, flexbuffers

        self.onnx, self.onnxruntime, self.schema = onnx, onnxruntime, schema_py_generated
        self.interpreter, self.builder, self.flexbuffers = interpreter, Builder, flexbuffers
        onnxruntime.register_execution_provider_library(_PROVIDER, onnxruntime_qnn.get_library_path())
        self.version = f"onnxruntime {onnxruntime.__version__}, QNN provider {onnxruntime_qnn.__version__}"


def import_runtime(runtime: str) -> Any:
    """Import ONNX Runtime with its QNN provider, onnx and ai-edge-litert; raises ImportError without one of them."""
    return _Packages()


def load(runtime: Any, job: RunnerJob) -> Backend:
    """Load a compiled file; raises RunError for one that holds no context."""
    return ContextBackend(runtime, job)


class ContextBackend(Backend):
    """A compiled file as a chain of pieces: contexts on the simulator, and TFLite for what lies between them."""

    def __init__(self, packages: Any, job: RunnerJob) -> None:
        self.version = packages.version
        self._packages, self._threads = packages, job.num_threads
        self._content = Path(job.model).read_bytes()
        self._model = packages.schema.ModelT.InitFromPackedBuf(self._content, 0)
        for buffer in self._model.buffers:  # weights behind the model: a part of it is written without what is there
            if buffer.offset > 1:
                buffer.data = np.frombuffer(self._content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        self._types = {v: k for k, v in vars(packages.schema.TensorType).items() if isinstance(v, int)}
        self._parts: list[list[Any]] = []  # [provider, [operators]]
        self._chains: dict[str, tuple[dict[str, int], dict[str, int], list[Piece]]] = {}
        self.signatures = {}
        for definition in self._model.signatureDefs or []:
            self._add(definition)
        if not any(provider == _PROVIDER for provider, _ in self._parts):
            raise RunError("load-failed", f"{job.model} holds no QNN context: it was not compiled for Qualcomm's NPU")

    def _add(self, definition: Any) -> None:
        graph = self._model.subgraphs[definition.subgraphIndex]
        name = definition.signatureKey.decode()
        inputs = {entry.name.decode(): int(entry.tensorIndex) for entry in definition.inputs or []}
        outputs = {entry.name.decode(): int(entry.tensorIndex) for entry in definition.outputs or []}
        self._chains[name] = (inputs, outputs, [self._piece(graph, run) for run in self._runs(graph)])
        ports = [{port: self._port(graph.tensors[i]) for port, i in side.items()} for side in (inputs, outputs)]
        self.signatures[name] = Signature(*ports)

    def _port(self, tensor: Any) -> Port:
        return Port(_DTYPES[self._types[tensor.type]], tuple(int(size) for size in tensor.shape))

    def _runs(self, graph: Any) -> list[list[Any]]:
        """The operators in order; those between two contexts together."""
        runs: list[list[Any]] = []
        for operator in graph.operators:
            if runs and not self._is_context(operator) and not self._is_context(runs[-1][0]):
                runs[-1].append(operator)
            else:
                runs.append([operator])
        return runs

    def _is_context(self, operator: Any) -> bool:
        return self._model.operatorCodes[operator.opcodeIndex].customCode == _DISPATCH

    def _piece(self, graph: Any, run: list[Any]) -> Piece:
        names = {v: k for k, v in vars(self._packages.schema.BuiltinOperator).items() if isinstance(v, int)}
        if self._is_context(run[0]):
            self._parts.append([_PROVIDER, ["DISPATCH_OP"]])
            return self._context(graph, run[0])
        codes = [self._model.operatorCodes[operator.opcodeIndex] for operator in run]
        self._parts.append(["TFLite", [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in codes]])
        return self._left(graph, run)

    def _context(self, graph: Any, operator: Any) -> Piece:
        """One context as a session of its own, which may use nothing but the NPU."""
        runtime = self._packages.onnxruntime
        told = self._packages.flexbuffers.Loads(bytes(operator.customOptions))
        start = told["bytecode_offset"]
        context = self._content[start : start + told["bytecode_size"]]
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        devices = [device for device in runtime.get_ep_devices() if device.ep_name == _PROVIDER]
        options.add_provider_for_devices(devices[:1], {"backend_type": "htp"})
        model = self._wrap(graph, operator, told["name"], context)
        session = runtime.InferenceSession(model.SerializeToString(), options)
        inputs = [(graph.tensors[i].name.decode(), int(i)) for i in operator.inputs]
        outputs = [(graph.tensors[i].name.decode(), int(i)) for i in operator.outputs]

        def work(values: Values) -> None:
            answers = session.run([name for name, _ in outputs], {name: values[i] for name, i in inputs})
            values.update(zip([i for _, i in outputs], answers))

        return work

    def _wrap(self, graph: Any, operator: Any, name: str, context: bytes) -> Any:
        """The context as an EPContext node: the form in which ONNX Runtime takes what was compiled before."""
        helper = self._packages.onnx.helper
        ports = [[self._value(graph.tensors[i]) for i in side] for side in (operator.inputs, operator.outputs)]
        node = helper.make_node(
            "EPContext",
            *([port.name for port in side] for side in ports),
            domain="com.microsoft",
            main_context=1,
            embed_mode=1,
            ep_cache_context=context,
            source=_PROVIDER,
            partition_name=name,
        )
        versions = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(helper.make_graph([node], name, *ports), opset_imports=versions, ir_version=9)

    def _value(self, tensor: Any) -> Any:
        port = self._port(tensor)
        code = self._packages.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
        return self._packages.onnx.helper.make_tensor_value_info(tensor.name.decode(), code, port.shape)

    def _left(self, graph: Any, run: list[Any]) -> Piece:
        """The operators between two contexts as a TFLite model of their own."""
        made = {int(i) for operator in run for i in operator.outputs}
        used = {int(i) for operator in run for i in operator.inputs if i >= 0}
        inputs = sorted(i for i in used - made if not self._is_constant(graph.tensors[i]))
        model, cut = copy.copy(self._model), copy.copy(graph)
        cut.operators, cut.inputs, cut.outputs = run, inputs, sorted(made)
        model.subgraphs, model.signatureDefs = [cut], []
        builder = self._packages.builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        interpreter = self._packages.interpreter.Interpreter(
            model_content=bytes(builder.Output()), num_threads=self._threads
        )
        interpreter.allocate_tensors()
        places = [(detail["index"], i) for detail, i in zip(interpreter.get_input_details(), inputs)]
        answers = [(detail["index"], i) for detail, i in zip(interpreter.get_output_details(), sorted(made))]

        def work(values: Values) -> None:
            for place, i in places:
                interpreter.set_tensor(place, values[i])
            interpreter.invoke()
            values.update((i, interpreter.get_tensor(place)) for place, i in answers)

        return work

    def _is_constant(self, tensor: Any) -> bool:
        data = self._model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Run all pieces in turn."""
        places, answers, pieces = self._chains[signature]
        values: Values = {places[name]: value for name, value in inputs.items()}

        def read(_: Any) -> Arrays:
            return {name: np.array(values[i]) for name, i in answers.items()}

        return Call(nothing, partial(_run_all, pieces, values), read)

    def assignment(self) -> dict[str, Any]:
        """What runs on the simulator and what in TFLite, as this file was cut."""
        return {"format": "onnxruntime", "parts": self._parts}


def _run_all(pieces: list[Piece], values: Values) -> None:
    for piece in pieces:
        piece(values)
