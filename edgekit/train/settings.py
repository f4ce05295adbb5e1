"""Everything that decides what a training gives, beside the data."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import RefusedError, UnknownNameError
from edgekit.model.config import TransformerConfig
from edgekit.model.sizes import SIZES, named_config
from edgekit.program import Framework, ModelTask
from edgekit.text.augment import Augmentation
from edgekit.text.processor import TokenizerKind

LEARNING_RATE_FURTHER = 5e-4  # of a training that goes on from a checkpoint


# fields that a model's configuration has as they are
_OF_CONFIG = (
    *("task", "max_length", "num_decoder_layers", "num_kv_heads", "norm", "activation", "gated_ffn", "linear_bias"),
    *("tied_embeddings", "positions", "pooling", "shared_layers", "dropout"),
)
# what only a classifier has, and what only a model that writes has
_OF_CLASSIFIERS = (
    *("lowercase", "strip_placeholders", "pooling", "crop", "join", "cut", "ngrams", "qat", "teacher"),
    *("from_checkpoint",),
)
_OF_WRITERS = ("num_decoder_layers", "tied_embeddings")


class TrainSettings(BaseModel):
    """Settings of one training; the same settings and data give the same weights in the same framework.

    `hidden_size` to `embedding_size` replace those of the named size where they are given (`embedding_size` 0: not
    factorised). `crop`, `join`, `cut` and `cut_rate` are those of Augmentation.
    `warmup_fraction` is of all steps; the learning rate then falls to 0 along a cosine. `average_decay` is that of
    the moving average of the weights which is validated and kept (0: the weights themselves). `ngrams` is the length
    of the longest character n-grams whose embeddings tokens share while they are trained (0: none; see ngrams.py).
    `from_checkpoint` is the folder of a checkpoint whose weights training goes on from; `qat` is the scheme whose
    rounding it then learns to bear. `teacher` is the folder of a checkpoint to learn from: `temperature`,
    `teacher_weight` and `hidden_weight` are the T, w and h of distillation.py.
    `task` is what is learned: with generate and translate, accuracies are of the next token.
    `patience` is the number of epochs without a better validation accuracy after which training stops (0: never).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    framework: Framework = "torch"
    task: ModelTask = "classify"
    size: str = "nano"
    tokenizer: TokenizerKind = "bpe"
    vocab_size: int = Field(default=4096, ge=1)
    max_length: int = Field(default=64, ge=2)
    lowercase: bool = False
    strip_placeholders: bool = False
    hidden_size: int | None = Field(default=None, ge=1)
    num_layers: int | None = Field(default=None, ge=1)
    num_decoder_layers: int | None = Field(default=None, ge=1)
    num_heads: int | None = Field(default=None, ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    ffn_size: int | None = Field(default=None, ge=1)
    embedding_size: int | None = Field(default=None, ge=0)
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    gated_ffn: bool = False
    linear_bias: bool = True
    tied_embeddings: bool = True
    positions: Literal["learned", "rotary"] = "learned"
    pooling: Literal["mean", "first"] = "mean"
    shared_layers: bool = False
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    crop: float = Field(default=0.0, ge=0, le=1)
    join: float = Field(default=0.0, ge=0, le=1)
    cut: float = Field(default=0.0, ge=0, le=1)
    cut_rate: float = Field(default=0.1, gt=0, le=0.5)
    ngrams: int = Field(default=0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    average_decay: float = Field(default=0.998, ge=0, lt=1)
    patience: int = Field(default=8, ge=0)
    seed: int = Field(default=0, ge=0)
    from_checkpoint: str | None = None
    qat: Literal["none", "int8", "int4-weight"] = "none"
    teacher: str | None = None
    temperature: float = Field(default=2.0, gt=0)
    teacher_weight: float = Field(default=0.5, ge=0, le=1)
    hidden_weight: float = Field(default=0.1, ge=0)

    @property
    def augmentation(self) -> Augmentation:
        """How training texts are varied."""
        return Augmentation(crop=self.crop, join=self.join, cut=self.cut, cut_rate=self.cut_rate)

    def model_config_for(self, *, vocab_size: int, num_labels: int) -> TransformerConfig:
        """Return the configuration of the model to train, for the vocabulary and labels that the data has.

        Raises UnknownNameError for an unknown size, RefusedError for sizes that do not go together.
        """
        options: dict[str, Any] = {name: getattr(self, name) for name in _OF_CONFIG}
        for name in ("hidden_size", "num_layers", "num_heads", "ffn_size", "embedding_size"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name) or None
        try:
            return named_config(self.size, vocab_size=vocab_size, num_labels=num_labels, **options)
        except ValidationError as error:
            raise RefusedError(f"no such model: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def make_settings(values: Mapping[str, Any]) -> TrainSettings:
    """Return settings from what a user gave.

    Raises UnknownNameError for a name that does not exist, RefusedError for a value out of range.
    """
    choices = {"size": tuple(SIZES)}
    for name, field in TrainSettings.model_fields.items():
        if get_origin(field.annotation) is Literal:
            choices[name] = get_args(field.annotation)
    for name, known in choices.items():
        if name in values and values[name] not in known:
            raise UnknownNameError(name, str(values[name]), known)
    _check_task(values)
    if values.get("cut") and values.get("tokenizer", "bpe") != "bpe":
        raise RefusedError(f"--cut varies the subwords of --tokenizer bpe; {values['tokenizer']} has none to vary")
    if values.get("ngrams", 0) > 0 and values.get("tokenizer", "bpe") == "byte":
        raise RefusedError("--ngrams shares the letters of subwords; --tokenizer byte has none to share")
    if values.get("qat", "none") != "none" and not values.get("from_checkpoint"):
        raise RefusedError(f"--qat {values['qat']} goes on from a trained model: name it with --from CHECKPOINT")
    if values.get("ngrams", 0) > 0 and values.get("from_checkpoint"):
        raise RefusedError("--ngrams begins with the first weights: it can't be joined with --from")
    for name in ("temperature", "teacher_weight", "hidden_weight"):
        if not values.get("teacher") and values.get(name, TrainSettings.model_fields[name].default) != (
            TrainSettings.model_fields[name].default
        ):
            raise RefusedError(f"--{name.replace('_', '-')} is about a teacher: name it with --teacher CHECKPOINT")
    try:
        return TrainSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise RefusedError(f"--{option} {first['input']}: {first['msg'].lower()}") from error


def _check_task(values: Mapping[str, Any]) -> None:
    """Raise RefusedError for an option that the task does not have, naming both."""
    task = values.get("task", "classify")
    strange = _OF_WRITERS if task == "classify" else _OF_CLASSIFIERS
    if task == "generate":
        strange = (*strange, "num_decoder_layers")
    for name in strange:
        value, default = values.get(name), TrainSettings.model_fields[name].default
        if name in values and value != default:
            option = {"from_checkpoint": "from"}.get(name, name.replace("_", "-"))
            raise RefusedError(f"--{option} is not for --task {task}: leave it out")
    if task != "classify" and values.get("tokenizer", "bpe") == "wordpiece":
        raise RefusedError(f"--tokenizer wordpiece can't give a text back as it was: --task {task} takes byte or bpe")


def settings_of_model(config: TransformerConfig, metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that a trained model decides: its configuration's, and the tokenizer's from its metrics."""
    stored = (metrics or {}).get("settings")
    names = ("size", "tokenizer", "lowercase", "strip_placeholders", "task")
    kept = {name: stored[name] for name in names if name in stored} if isinstance(stored, dict) else {}
    shape = {name: value for name, value in dict(config).items() if name in TrainSettings.model_fields}
    return {**kept, **shape, "embedding_size": config.embedding_size or 0}


def learning_rate_at(settings: TrainSettings, step: int, total_steps: int) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then half a cosine down to 0."""
    warmup = int(settings.warmup_fraction * total_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def average_decay_at(settings: TrainSettings, step: int) -> float:
    """Return the decay of the weights' moving average at a step (from 0): short at first, to forget the start."""
    return min(settings.average_decay, (1 + step) / (10 + step))
