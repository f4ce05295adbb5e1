"""Tells which nodes a provider of ONNX Runtime takes: `python ort_probe.py MODEL qnn:NUMBER|webgpu`, where it is.

Run by path in an environment of its own: it imports onnxruntime and the standard library alone. The last line of
standard output is {"parts": [[provider, [[operator, name of the node], …]], …], "version": …}; onnxruntime's log is on
standard error.
"""

import json
import sys
from typing import Any

_VERBOSE = 0


def main(model: str, provider: str) -> int:
    """Load a model with a provider and print what each provider took; 0 where it could be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _VERBOSE
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    name, _, number = provider.partition(":")
    if name == "qnn":
        session = onnxruntime.InferenceSession(model, _with_qnn(onnxruntime, options, number))
    else:
        providers = ["WebGpuExecutionProvider", "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    parts = [
        [part.ep_name, [[node.op_type, node.name] for node in part.get_nodes()]]
        for part in session.get_provider_graph_assignment_info()
    ]
    print(json.dumps({"parts": parts, "version": onnxruntime.__version__}))  # noqa: T201
    return 0


def _with_qnn(onnxruntime: Any, options: Any, number: str) -> Any:
    import onnxruntime_qnn

    name = "QNNExecutionProvider"
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    options.add_provider_for_devices(devices[:1], {"backend_type": "htp", "soc_model": number})
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
