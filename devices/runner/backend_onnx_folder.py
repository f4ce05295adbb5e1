"""A folder of ONNX files in ONNX Runtime: an encoder and a decoder, named as Optimum names them."""

from pathlib import Path
from typing import Any

from .backend import UNNAMED, Backend, Call, Signature
from .backend_onnxruntime import OnnxBackend
from .failures import RunError
from .job import RunnerJob
from .steps import Arrays

#: signature → file; Optimum's third, decoder_model.onnx, is for its own first step, and not loaded
FILES = {"encode": "encoder_model.onnx", "decode": "decoder_with_past_model.onnx"}


class OnnxFolderBackend(Backend):
    """One inference session for each signature; weights that files share are mapped into memory once."""

    def __init__(self, runtime: Any, job: RunnerJob) -> None:
        paths = {name: Path(job.model, file) for name, file in FILES.items()}
        missing = [path.name for path in paths.values() if not path.is_file()]
        if missing:
            raise RunError("load-failed", f"{job.model} lacks {missing[0]}")
        self._runtime = runtime
        self._parts = {name: OnnxBackend(runtime, _part(job, name, path)) for name, path in paths.items()}
        self.version = str(runtime.__version__)
        self.signatures: dict[str, Signature] = {n: part.signatures[UNNAMED] for n, part in self._parts.items()}
        self.cache = next((part.cache for part in self._parts.values()), "")

    def prepare(self, signature: str, inputs: Arrays) -> Call:
        """Run the signature's session for all outputs."""
        return self._parts[signature].prepare(UNNAMED, inputs)

    def session(self) -> Any:
        """States as ONNX Runtime's values, handed from one session to the other."""
        from .session_onnxruntime import OnnxSession

        return OnnxSession(self, self._runtime, {name: part.inference for name, part in self._parts.items()})

    def assignment(self) -> dict[str, Any]:
        """The operators that each provider took, of all files."""
        told = [part.assignment() for part in self._parts.values()]
        parts = [each for found in told for each in found.get("parts", [])]
        return {**told[0], "parts": parts} if parts else {}

    def profile(self, call: Call, runs: int) -> dict[str, Any]:
        """The mean time of each node over the runs, from the profiles that the sessions write."""
        for _ in range(runs):
            call.run()
        nodes = [node for part in self._parts.values() for node in part.end_profile()]
        return {"format": "onnxruntime", "nodes": nodes}


def _part(job: RunnerJob, name: str, path: Path) -> RunnerJob:
    return job._replace(model=str(path), cache=str(Path(job.cache, name)) if job.cache else "")
