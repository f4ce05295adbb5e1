"""The options of `edgekit export`, by what they decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, kw_only=True)
class ForeignOptions:
    """What a model of others is, and how it is read."""

    task: Annotated[
        str | None,
        typer.Option(
            help="Of a Hugging Face model: text-classification, token-classification, feature-extraction, fill-mask, "
            "question-answering or image-classification.",
            show_default=False,
        ),
    ] = None
    pooling: Annotated[
        str,
        typer.Option(help="Of feature-extraction: mean, cls or max in the graph; auto: as sentence-transformers says."),
    ] = "none"
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Of feature-extraction: scale the embedding to length 1, in the graph.")
    ] = False
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Of a function: name:dtype[shape], as in ids:int32[1,128].", show_default=False),
    ] = None
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run Python and pickles that come with the model: read them first."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """Which files are made: every target by every route in every scheme."""

    target: Annotated[
        list[str] | None, typer.Option(help="tflite, onnx, coreml, savedmodel, pt2, or all (the first three).")
    ] = None
    quantize: Annotated[
        list[str] | None,
        typer.Option(
            help="Schemes: none, fp16, int8-dynamic, int8, int8-weight, int4-weight, int16x8, palette4, palette6, "
            "palette8 (edgekit schemes explains them); or a recipe file (*.toml) that gives each module its own."
        ),
    ] = None
    via: Annotated[
        list[str] | None, typer.Option(help="Route: torch, tensorflow, or both; default: each target's better one.")
    ] = None
    rewrite: Annotated[
        list[str] | None,
        typer.Option(
            help="Do to the model before: float-mask, gelu-tanh, fused-heads, split-heads, fp16-mask, fp16-norm "
            "(edgekit schemes --rewrites explains them).",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """The texts that fixed ranges are calibrated with."""

    calibration_data: Annotated[
        Path | None,
        typer.Option(help="Texts to calibrate int8 and int16x8 with, a file as for train; else the training data's."),
    ] = None
    num_calibration_samples: Annotated[int, typer.Option(min=1, help="How many texts to calibrate with.")] = 200


@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """What the files of a target take and hold."""

    minimum_deployment_target: Annotated[
        str | None,
        typer.Option(
            help="Core ML: the oldest iOS that must read the package: iOS15, iOS16, iOS17 or iOS18; default: iOS17, or "
            "what other options need.",
            show_default=False,
        ),
    ] = None
    sequence_length: Annotated[
        list[str] | None,
        typer.Option(
            help="Lengths in tokens that a file takes, the model's own among them: one signature each over one copy of "
            "the weights, ONNX and SavedModel any length. Default: chosen from the lengths of the data's own texts, or "
            "of the texts that a Hugging Face model of one answer by text, or to translate, is proven on; Core ML: "
            "one, as several need iOS 18. Of a model to translate: of source texts, beside the longest, in TFLite.",
            show_default=False,
        ),
    ] = None
    prefill_length: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a model to generate: how many tokens of a prompt a file reads at once, one signature each over "
            "one copy of the weights. Default: 8, 32 and 128, as far as the model reads.",
            show_default=False,
        ),
    ] = None
    kv_cache: Annotated[
        Literal["dynamic", "static"],
        typer.Option(
            help="Of a model that writes, in ONNX: a cache that grows with the text, as Optimum and onnxruntime-genai "
            "have it, or one of fixed size."
        ),
    ] = "dynamic"
    cache_dtype: Annotated[
        Literal["float32", "int8"],
        typer.Option(
            help="Of a model that writes, in TFLite: how the cache is kept between calls; int8 takes a quarter of the "
            "memory, with scales from texts of the training data."
        ),
    ] = "float32"
    multifunction: Annotated[
        bool, typer.Option("--multifunction", help="Core ML: a function for each length, over one copy of the weights.")
    ] = False
    author: Annotated[str, typer.Option(help="Core ML: the author that Xcode shows.", show_default=False)] = ""
    license: Annotated[str, typer.Option(help="Core ML: the license that Xcode shows.", show_default=False)] = ""
