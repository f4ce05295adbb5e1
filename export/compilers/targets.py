"""The vocabulary of `edgekit compile --for`: compilers, and the devices that each compiles for."""

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import RefusedError, UnknownNameError

Compiler = Literal["qnn", "openvino", "ethos-u"]
#: Qualcomm's SoCs → their numbers in QNN, as the compiler plugin of ai-edge-litert 2.3.0 names both
QUALCOMM_SOCS = {
    "SA8255": 52,
    "SA8295": 39,
    "SM8350": 30,
    "SM8450": 36,
    "SM8475": 42,
    "SM8550": 43,
    "SM8650": 57,
    "SM8750": 69,
    "SM8845": 97,
    "SM8850": 87,
}
#: Arm's NPUs, as ethos-u-vela 5.2.0 names them
ETHOS_U = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
_INTEL_NPU = (
    "Intel's NPU compiler (libopenvino_intel_npu_compiler_loader) is in no package of a registry: openvino compiles "
    "for the CPU here"
)


@dataclass(frozen=True, kw_only=True)
class CompileTarget:
    """A compiler and the one device that it compiles for."""

    compiler: Compiler
    device: str

    @property
    def name(self) -> str:
        """As a part of a bundle's name: qnn-SM8650, openvino-CPU, ethos-u85-256."""
        return self.device if self.compiler == "ethos-u" else f"{self.compiler}-{self.device}"


def parse_target(text: str) -> CompileTarget:
    """What `--for` means: qnn:SOC, openvino, or one of Arm's NPUs.

    Raises UnknownNameError, which lists what exists, RefusedError for what exists and can't be compiled for here.
    """
    compiler, _, device = text.partition(":")
    if compiler == "qnn":
        return CompileTarget(compiler="qnn", device=_known("Qualcomm SoC", device.upper(), tuple(QUALCOMM_SOCS)))
    if compiler == "openvino":
        if device.upper() not in ("", "CPU"):
            raise RefusedError(f"--for {text}: {_INTEL_NPU}")
        return CompileTarget(compiler="openvino", device="CPU")
    if compiler.startswith("ethos-u"):
        return CompileTarget(compiler="ethos-u", device=_known("Ethos-U", compiler, ETHOS_U))
    raise UnknownNameError("device to compile for", text, ["qnn:SOC", "openvino", *ETHOS_U])


def _known(kind: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        raise UnknownNameError(kind, name, choices)
    return name
