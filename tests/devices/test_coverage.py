"""What really ran where: from a hand-made graph, from what runtimes tell, and from real files."""

import pytest

from edgekit.devices.coverage import add_time, read_coverage, read_delegate_lines, slice_delegated
from edgekit.devices.operators import parse_summary, read_profile
from edgekit.measurement import OperatorTime

#: 0 → CAST → 1 → (MUL with 9) → 2 → ADD(2, 1) → 3 → GATHER → 4 → MUL → 5; a delegate took MUL and ADD, another MUL
GRAPH = [
    ["CAST", [0], [1]],
    ["MUL", [1, 9], [2]],
    ["ADD", [2, 1], [3]],
    ["GATHER", [3, -1], [4]],
    ["MUL", [4, 4], [5]],
    ["DELEGATE", [1, 9], [3]],
    ["DELEGATE", [4], [5]],
]


def test_delegated_nodes_are_found_by_slicing_back() -> None:
    nodes = [(op, inputs, outputs) for op, inputs, outputs in GRAPH]
    assert slice_delegated(nodes) == [[1, 2], [4]]
    coverage = read_coverage({"format": "tflite", "nodes": GRAPH})
    assert (coverage.actual, coverage.nodes, coverage.nodes_on_accelerator, coverage.partitions) == ("XNNPACK", 5, 3, 2)
    assert {left.operator: left.count for left in coverage.left_behind} == {"CAST": 1, "GATHER": 1}


def test_without_a_delegate_the_cpu_did_it() -> None:
    coverage = read_coverage({"format": "tflite", "nodes": GRAPH[:5]})
    assert (coverage.actual, coverage.nodes, coverage.nodes_on_accelerator, coverage.partitions) == ("CPU", 5, 0, 0)


def test_providers_of_onnx_runtime() -> None:
    cpu = read_coverage({"format": "onnxruntime", "parts": [["CPUExecutionProvider", ["Cast", "Div"]]]})
    assert (cpu.actual, cpu.nodes, cpu.nodes_on_accelerator, cpu.partitions) == ("CPU", 2, 2, 1)
    parts = [
        ["CPUExecutionProvider", ["Gather"]],
        ["QNNExecutionProvider", ["MatMul", "Add"]],
        ["CPUExecutionProvider", ["Gather"]],
        ["QNNExecutionProvider", ["MatMul"]],
    ]
    npu = read_coverage({"format": "onnxruntime", "parts": parts})
    assert (npu.actual, npu.nodes, npu.nodes_on_accelerator, npu.partitions) == ("QNN", 5, 3, 2)
    assert [(left.operator, left.count) for left in npu.left_behind] == [("Gather", 2)]


def test_a_runtime_that_tells_nothing() -> None:
    coverage = read_coverage({})
    assert coverage.actual == "unknown"
    assert coverage.nodes_on_accelerator is None
    assert coverage.note


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "VERBOSE: Replacing 6 out of 6 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions "
            "for subgraph 0.",
            ("XNNPACK", 6, 6, 1),
        ),
        (
            "INFO: Created TensorFlow Lite delegate for GPU.\n"
            "VERBOSE: Replacing 76 out of 93 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions\n"
            "VERBOSE: Replacing 10 out of 20 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 4 partitions",
            ("GPU", 93, 76, 3),
        ),
        ("INFO: Initialized session in 69.34ms.", ("CPU", None, None, None)),
    ],
)
def test_lines_of_delegates(lines: str, expected: tuple[object, ...]) -> None:
    coverage = read_delegate_lines(lines)
    found = (coverage.actual, coverage.nodes, coverage.nodes_on_accelerator, coverage.partitions)
    assert found == expected


#: as LiteRT 2.3.0 prints it, shortened
SUMMARY = """\
Profiling Info for Benchmark Initialization:
====== Run Order ======
\t[node type]\t[start]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]
\tModifyGraphWithDelegate\t0.000\t9.1\t9.1\t90.0%\t90.0%\t0.000\t1\tModifyGraphWithDelegate/0
Operator-wise Profiling Info for Regular Benchmark Runs:
====== Run Order ======
             [node type]  [start]  [first]  [avg ms]     [%]  [cdf%]  [mem KB]  [times called]  [Name]
   CAST   0.000   0.002   0.001   0.378%   0.378%   0.000   5   [Builtin]:0
   TfLiteXNNPackDelegate   0.002   0.070   0.030   10.000%   10.378%   0.000   5   [logits]:7
 Delegate/Fully Connected (NC, F32) GEMM   0.000   0.022   0.021   9.839%   14.191%   0.000   5   [Delegate]:18

Number of nodes executed: 3
====== Summary by node type ======
   CAST   1   0.000   0.098%   99.902%   0.000   5
"""


def test_a_printed_profile_is_read_once_and_whole() -> None:
    found = parse_summary(SUMMARY)
    assert [(operator.kind, operator.ms, operator.name) for operator in found] == [
        ("CAST", 0.001, "[Builtin]:0"),
        ("Delegate/Fully Connected (NC, F32) GEMM", 0.021, "[Delegate]:18"),
    ]
    share = add_time(read_coverage({}), found).share_of_time
    assert share == pytest.approx(0.021 / 0.022)


def test_profiles_without_a_delegate_say_nothing_of_shares() -> None:
    found = read_profile({"format": "onnxruntime", "nodes": [["a", "Div", "CPUExecutionProvider", 0.5]]})
    assert found == (OperatorTime(name="a", kind="Div", count=1, ms=0.5),)
    assert add_time(read_coverage({}), found).share_of_time is None


#: as LiteRT 2.3.0 writes it to standard error, shortened
GPU_LOG = """\
I0000 00:00:1795577219.297896   18718 environment.cc:532] Selected adapter: Adreno 740, arch=a7xx, vendor=qualcomm, \
backend=Vulkan, adapterType=Discrete
ERROR: Following operations are not supported by GPU delegate:
DEQUANTIZE:
EMBEDDING_LOOKUP: EMBEDDING_LOOKUP: Empty quantization params.
7 operations will run on the GPU, and the remaining 4 operations will run on the CPU.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
"""
NPU_LOG = """\
INFO: [compiler_plugin.cc:742] Partitioned subgraph<0>, selected 80 ops, from a total of 82 ops. resulted in 3 \
partitions.
INFO: [compiled_model.cc:1397] 1 compiler plugins were applied successfully: IntelOpenVINO compiler plugin (ver 0.1.0)
INFO: [invocation_context.cc:293] Using Intel OpenVINO device: NPU
"""
#: the plugin selects all, fails to compile, and LiteRT goes on with the CPU
NPU_FAILED_LOG = """\
INFO: [compiler_plugin.cc:742] Partitioned subgraph<0>, selected 80 ops, from a total of 80 ops. resulted in 1 \
partitions.
INFO: [openvino_compile_context.cc:77] Using Intel OpenVINO device: NPU
VCL compiler loading failed, aborting. Error: Exception from src/plugins/intel_npu/src/utils/src/vcl/vcl_api.cpp:22:
INFO: [compiled_model.cc:1397] 0 compiler plugins were applied successfully:
"""
COMPILED = {"format": "litert-compiled", "operators": ["EMBEDDING_LOOKUP", *["DEQUANTIZE"] * 2, *["MUL"] * 8]}


def test_what_litert_says_of_the_gpu() -> None:
    found = read_coverage(COMPILED | {"all_accelerated": True}, "gpu", GPU_LOG)  # the log says less: it counts
    assert (found.actual, found.nodes, found.nodes_on_accelerator) == ("WebGPU", 11, 7)
    assert [(left.operator, left.count, left.reason) for left in found.left_behind] == [
        ("DEQUANTIZE", 2, ""),
        ("EMBEDDING_LOOKUP", 1, "EMBEDDING_LOOKUP: Empty quantization params."),
        ("(not named)", 1, ""),
    ]
    assert found.note == "adapter Adreno 740 (Discrete)"
    whole = read_coverage(COMPILED | {"all_accelerated": True}, "gpu", "")
    assert (whole.actual, whole.nodes_on_accelerator, whole.partitions) == ("WebGPU", 11, 1)
    silent = read_coverage(COMPILED | {"all_accelerated": False}, "gpu", "")
    assert (silent.actual, silent.nodes_on_accelerator) == ("CPU", 0)
    unknown = read_coverage(COMPILED, "gpu", "")  # another version of LiteRT, whose C interface is not known
    assert (unknown.actual, unknown.nodes_on_accelerator) == ("unknown", None)


def test_what_litert_says_of_an_npu() -> None:
    found = read_coverage(COMPILED, "npu", NPU_LOG)
    assert (found.actual, found.nodes, found.nodes_on_accelerator, found.partitions) == ("OpenVINO NPU", 82, 80, 3)
    failed = read_coverage(COMPILED, "npu", NPU_FAILED_LOG)
    assert (failed.actual, failed.nodes_on_accelerator) == ("CPU", 0)
    assert "no driver of an Intel NPU" in failed.note
    compiled = read_coverage(COMPILED | {"operators": ["CAST", "DISPATCH_OP"]}, "npu", NPU_LOG)
    assert (compiled.nodes, compiled.nodes_on_accelerator, compiled.partitions) == (2, 1, 1)


def test_xnnpack_is_never_an_accelerators() -> None:
    line = "VERBOSE: Replacing 6 out of 6 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions"
    found = read_delegate_lines(line, "nnapi")
    assert (found.actual, found.nodes, found.nodes_on_accelerator) == ("CPU", 6, 0)
    assert read_delegate_lines("", "gpu").nodes_on_accelerator == 0
