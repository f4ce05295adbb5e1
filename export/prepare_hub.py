"""Golden inputs, tokenizer and labels of a Hugging Face model, by transformers' own tokenizer and image settings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import PREPROCESSOR, TOKENIZER, TOKENS
from edgekit.errors import CheckpointError, RefusedError
from edgekit.export.prepare import Inputs, Texts
from edgekit.export.quantize.calibration import CalibrationRecord
from edgekit.extras import require
from edgekit.program import Program, Signature, SourceRef, TensorSpec
from edgekit.proof.golden import Step, text_steps
from edgekit.proof.tokens import write_tokens
from edgekit.text.hub_tokenizer import HubTokenizer

#: asked of every text in turn, where the task is to find the answer in it
QUESTIONS = (
    "What was saved?",
    "Which file could not be found?",
    "How many files were copied?",
    "Wo ist die Datei?",
    "What should the reader choose?",
)
IMAGES = 16
_NOT_COMPARED = "calibration texts were not compared with the data that the model was trained on: it is not known"


def make_inputs(source: SourceRef, program: Program, texts: Texts, folder: Path) -> Inputs:
    """Golden and calibration inputs; the tokenizer with its golden ids, or the image settings, go to `folder`.

    Raises RefusedError for a tokenizer that has no tokenizer.json.
    """
    path, signature = Path(source.path), program.signatures[0]
    labels = _labels(program.module.model.config, source.task)
    if source.task == "image-classification":
        return _image_inputs(path, signature, folder, labels)
    own = load_tokenizer(path, trust_remote_code=source.options.trust_remote_code)
    length = signature.inputs[0].shape[1]
    tokenizer = adopt_tokenizer(own, program.module.model.config, length)
    tokenizer.save(folder / TOKENIZER)
    write_tokens(
        folder / TOKENS, lambda given: [own(text, truncation=True, max_length=length)["input_ids"] for text in given]
    )
    steps = _steps(tokenizer, texts.samples, source.task, signature)
    calibration = _steps(tokenizer, texts.calibration, source.task, signature)
    record = _record(texts, calibration) if calibration else None
    return Inputs(steps=steps, origin=texts.origin, calibration=calibration, record=record, labels=labels)


def _labels(config: Any, task: str) -> tuple[str, ...]:
    if not task.endswith("-classification"):
        return ()
    return tuple(str(config.id2label[index]) for index in sorted(config.id2label))


def load_tokenizer(path: Path, *, trust_remote_code: bool) -> Any:
    """transformers' own tokenizer; raises CheckpointError where it can't be loaded, RefusedError for a slow one."""
    transformers = require("transformers", "reading a tokenizer of Hugging Face")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, use_fast=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # transformers 5.23 and tokenizers raise anything, plain Exception among it
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"transformers can't load the tokenizer of {path}: {first}") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        kind = type(tokenizer).__name__
        raise RefusedError(
            f"{path} has the tokenizer {kind}, which has no tokenizer.json and so can't go to a device: "
            "use a model with a fast tokenizer"
        )
    return tokenizer


def adopt_tokenizer(own: Any, config: Any, length: int) -> HubTokenizer:
    """The tokenizer for a bundle; padding with id 0 where it has no token for it: the mask hides it."""
    pad_id = own.pad_token_id if own.pad_token_id is not None else getattr(config, "pad_token_id", None) or 0
    pad_token = own.pad_token or own.convert_ids_to_tokens(pad_id) or ""
    return HubTokenizer.adopt(own.backend_tokenizer.to_str(), length, pad_id=pad_id, pad_token=pad_token)


def _steps(tokenizer: HubTokenizer, texts: Sequence[str], task: str, signature: Signature) -> tuple[Step, ...]:
    """One step for each text that has a token, as the signature takes it."""
    if not texts:
        return ()
    given: Sequence[Any] = texts
    if task == "question-answering":
        given = [(QUESTIONS[index % len(QUESTIONS)], text) for index, text in enumerate(texts)]
    encoded = tokenizer.encode_inputs(given, signature.inputs[0].shape[1])
    named = {spec.name: encoded[spec.name] for spec in signature.inputs}
    return tuple(step for step in text_steps(named, signature.name) if step.inputs["mask"].any())


def _record(texts: Texts, steps: Sequence[Step]) -> CalibrationRecord:
    tokens = sorted(int(np.asarray(step.inputs["mask"]).sum()) for step in steps)
    remarks = [_NOT_COMPARED]
    if len(steps) < texts.calibration_asked:
        remarks.insert(0, f"calibrated with {len(steps)} texts, not {texts.calibration_asked}: there are no more")
    return CalibrationRecord(
        origin=texts.calibration_origin,
        asked=texts.calibration_asked,
        samples=len(steps),
        tokens=(tokens[0], tokens[len(tokens) // 2], tokens[-1]),
        divergence=None,
        own_divergence=None,
        remarks=tuple(remarks),
    )


def _image_inputs(path: Path, signature: Signature, folder: Path, labels: tuple[str, ...]) -> Inputs:
    """Drawn images, normalized as the model's own settings say; every other one calibrates."""
    settings = path / PREPROCESSOR
    if not settings.is_file():
        raise CheckpointError(f"{path} has no {PREPROCESSOR}: how its images are normalized is not known")
    (folder / PREPROCESSOR).write_bytes(settings.read_bytes())
    config = json.loads(settings.read_bytes())
    spec = signature.inputs[0]
    made = tuple(
        Step(signature=signature.name, inputs={spec.name: _normalized(draw_image(seed, spec), config)})
        for seed in range(2 * IMAGES)
    )
    origin = f"{IMAGES} images drawn by edgekit (waves, discs and noise)"
    record = CalibrationRecord(
        origin="images drawn by edgekit",
        asked=IMAGES,
        samples=IMAGES,
        tokens=(1, 1, 1),
        divergence=None,
        own_divergence=None,
        remarks=("calibrated with drawn images, not with photographs: ranges may not fit",),
    )
    return Inputs(steps=made[::2], origin=origin, calibration=made[1::2], record=record, labels=labels)


def draw_image(seed: int, spec: TensorSpec) -> NDArray[np.float32]:
    """An image [1, channels, height, width] in [0, 1]: waves of each channel's own, a disc, and some noise."""
    _, channels, height, width = spec.shape
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for _ in range(channels):
        a, b, phase = generator.uniform(1, 12, 3)
        planes.append(0.5 + 0.4 * np.sin(a * x + b * y + phase))
    cx, cy, radius = generator.uniform((0.2, 0.2, 0.1), (0.8, 0.8, 0.4))
    disc = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    image = np.where(disc, 1 - np.stack(planes), np.stack(planes)) + generator.normal(
        0, 0.05, (channels, height, width)
    )
    return np.clip(image, 0, 1)[None].astype(np.float32)


def _normalized(image: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    """(image - mean) / std, as `do_normalize`, `image_mean` and `image_std` say."""
    if not config.get("do_normalize", True):
        return image
    mean, std = (np.asarray(config.get(key, 0.5), np.float32).reshape(-1, 1, 1) for key in ("image_mean", "image_std"))
    return np.asarray((image - mean) / std, np.float32)
