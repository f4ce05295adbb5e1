"""A Hugging Face model folder → Program: transformers' own model, with the inputs and outputs that exports give it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError, RefusedError
from edgekit.extras import require
from edgekit.model.weights import MASKED_SCORE
from edgekit.program import HUB_WRITERS, Program, Signature, SourceOptions, SourceRef, Task, TensorSpec
from edgekit.sources.checkpoint import SIGNATURE
from edgekit.sources.hub_folder import DEFAULT_LENGTH, hub_sha256
from edgekit.sources.torch_outputs import named_tensors

AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
    "text-generation": "AutoModelForCausalLM",
    "translation": "AutoModelForSeq2SeqLM",
}
EMBEDDING = "sentence_embedding"  # as sentence-transformers names it
POOLER = "pooler_output"


def build_hub_program(source: SourceRef) -> Program:
    """Load the model that `source` names, in eval mode and float32.

    Raises CheckpointError for a folder that changed or can't be loaded, RefusedError for weights that the task has none
    of, or a text model with no end of its own.
    """
    path = Path(source.path)
    if hub_sha256(path) != source.sha256:
        raise CheckpointError(f"{path} has changed since this export began; start it again")
    model, missing = _load(path, source)
    if source.task in HUB_WRITERS:
        from edgekit.sources.hub_writers import build_hub_writer

        return build_hub_writer(model, HUB_WRITERS[source.task], source.options.length or DEFAULT_LENGTH)
    module = HubModule(model, source.task, source.options, skipped=(POOLER,) if missing else ())
    specs = input_specs(model, source)
    outputs = module.output_specs(specs)
    signature = Signature(name=SIGNATURE, method="forward", inputs=specs, outputs=outputs)
    return Program(framework="torch", module=module, signatures=(signature,))


def _load(path: Path, source: SourceRef) -> tuple[nn.Module, list[str]]:
    """The model and the weights that its files lack; a pooler's may be lacking where its output is not asked for."""
    transformers = require("transformers", "loading a model of Hugging Face")
    auto = getattr(transformers, AUTO_CLASSES[source.task])
    try:
        model, info = auto.from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=None if source.options.trust_remote_code else True,
            trust_remote_code=source.options.trust_remote_code,
            attn_implementation="eager",  # what converters take apart best, and the same arithmetic everywhere
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(f"transformers can't load {path} for {source.task}: {' '.join(lines[:2])}") from error
    missing = sorted(info["missing_keys"])
    lacking = [name for name in missing if source.task != "feature-extraction" or "pooler" not in name.split(".")]
    if lacking:
        raise RefusedError(
            f"{path} has no weights for {lacking[0]} ({len(lacking)} are missing): it was not trained for {source.task}"
        )
    return model.eval(), missing


def input_specs(model: nn.Module, source: SourceRef) -> tuple[TensorSpec, ...]:
    """Inputs as every bundle of edgekit has them: ids and mask (and token_types for pairs), or pixels."""
    config: Any = model.config
    if source.task == "image-classification":
        size = getattr(config, "image_size", None)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        if not isinstance(height, int) or not isinstance(width, int):
            raise RefusedError(f"{source.path}: its configuration gives no image_size to export for")
        shape = (1, int(getattr(config, "num_channels", 3)), height, width)
        return (TensorSpec(name="pixels", dtype="float32", shape=shape),)
    names = ["ids", "mask"]
    if source.task == "question-answering" and getattr(config, "type_vocab_size", 0) > 1:
        names.append("token_types")
    length = source.options.length or 1
    return tuple(TensorSpec(name=name, dtype="int32", shape=(1, length)) for name in names)


class HubModule(nn.Module):
    """A model of transformers as a function of plain tensors; its outputs keep transformers' names.

    With pooling, the one output is the embedding of the text [1, hidden_size].
    """

    def __init__(
        self, model: nn.Module, task: Task, options: SourceOptions | None = None, *, skipped: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.task, self.options, self.skipped = task, options or SourceOptions(), skipped

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Call the model; inputs come by position or by the names that `input_specs` gives them."""
        return tuple(self.call(*args, **kwargs).values())

    def call(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        names = ("pixels",) if self.task == "image-classification" else ("ids", "mask", "token_types")
        given = dict(zip(names, args, strict=False)) | kwargs
        asked = {_ARGUMENTS[name]: value for name, value in given.items()}
        with finite_masks():
            outputs = dict(named_tensors(dict(self.model(**asked, return_dict=True))))
        outputs = {name: value for name, value in outputs.items() if name not in self.skipped}
        if self.options.pooling == "none":
            return outputs
        embedding = pool(outputs["last_hidden_state"], given["mask"], self.options.pooling)
        return {EMBEDDING: nn.functional.normalize(embedding, dim=-1) if self.options.normalize else embedding}

    def output_specs(self, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        """Names and shapes of the outputs, from one call.

        Raises RefusedError for a length that the model can't take.
        """
        values = {spec.name: torch.ones(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in inputs}
        try:
            with torch.inference_mode():
                outputs = self.call(**values)
        except (IndexError, RuntimeError) as error:
            raise RefusedError(f"the model can't take inputs of {list(inputs[0].shape)}: {error}") from error
        return tuple(
            TensorSpec(name=name, dtype="float32", shape=tuple(value.shape)) for name, value in outputs.items()
        )


_ARGUMENTS = {"ids": "input_ids", "mask": "attention_mask", "token_types": "token_type_ids", "pixels": "pixel_values"}


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector [batch, hidden] for a text of vectors [batch, length, hidden]; padding has no part in it."""
    if pooling == "cls":
        return hidden[:, 0]
    real = mask.to(hidden.dtype).unsqueeze(-1)
    if pooling == "max":
        return (hidden * real + (1 - real) * MASKED_SCORE).amax(dim=1)
    return (hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


@contextmanager
def finite_masks() -> Iterator[None]:
    """While a graph is captured, let transformers mask with -1e4 instead of float32's lowest number.

    transformers 5.23 takes it from `torch.finfo`. It has no float16 (ONNX and Core ML files in float16 answer NaN),
    and stretches the ranges that quantizers see beyond all use. Softmax gives exactly 0 for either.
    """
    if not (torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None):
        yield
        return
    real = torch.finfo
    torch.finfo = _finfo_for(real)  # type: ignore[misc]
    try:
        yield
    finally:
        torch.finfo = real  # type: ignore[misc]


def _finfo_for(real: Any) -> Any:
    def finfo(*dtype: Any) -> Any:
        asking = str(sys._getframe(1).f_globals.get("__name__", ""))
        return _Finite(real(*dtype)) if asking.startswith("transformers") else real(*dtype)

    return finfo


class _Finite:
    """`torch.finfo` of a type, but for its lowest number."""

    min = float(MASKED_SCORE)

    def __init__(self, info: Any) -> None:
        self._info = info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._info, name)
