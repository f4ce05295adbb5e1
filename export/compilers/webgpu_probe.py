"""Compiles a TFLite file for the GPU and ends: what LiteRT leaves to the CPU it tells on standard error alone.

`python -P webgpu_probe.py MODEL`, in a process of its own: files have crashed the accelerator of ai-edge-litert 2.3.0.
"""

import sys


def main(model: str) -> int:
    """Compile a file for the GPU, with the CPU for what is left; 0 where it could be."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import Options

    wanted = HardwareAccelerator.GPU | HardwareAccelerator.CPU
    CompiledModel.from_file(model, options=Options(hardware_accelerators=wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
