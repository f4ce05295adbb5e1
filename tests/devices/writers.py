"""Models that write, small, with random weights: live programs, and bundles of real files made from them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import GOLDEN, TOKENIZER, Accuracy, Bundle, Parity, open_bundle, seal_bundle
from edgekit.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.model.config import TransformerConfig
from edgekit.model.weights import Weights, initial_weights
from edgekit.program import Program, SourceRef, TensorSpec
from edgekit.proof.golden import Golden, Step, write_golden
from edgekit.proof.golden_texts import GoldenTexts, pack_texts
from edgekit.proof.in_framework import ProgramBackend
from edgekit.proof.writing import Prompt
from edgekit.sources.writers import build_writer_program, input_names
from edgekit.sources.writers_onnx import growing_signatures
from edgekit.sources.writers_torch import build_flat
from edgekit.text.corpora import load_corpus
from edgekit.text.datasets import DataSpec
from edgekit.text.processor import train_processor
from tests.model.writers import LLAMA
from tests.tiny import THINGS, VERBS

CONTEXT = 24
SIZES: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "ffn_size": 48, "max_length": CONTEXT}


def writer_config(task: str, **overrides: Any) -> TransformerConfig:
    return TransformerConfig.model_validate({"task": task, "vocab_size": 260, **SIZES, **LLAMA, **overrides})


def loud_weights(config: TransformerConfig, seed: int = 0) -> Weights:
    """Weights so large that every token changes what is likeliest next."""
    generator = np.random.default_rng(seed)
    return {
        name: 0.3 * generator.standard_normal(tensor.shape, np.float32) if tensor.ndim > 1 else tensor
        for name, tensor in initial_weights(config, seed).items()
    }


def write_corpus(folder: Path, task: str) -> DataSpec:
    """Short commands, with a made-up translation to translate."""
    path = folder / f"{task}.tsv"
    rows = [(f"{verb} the {thing}", f"{thing}um {verb}áre") for verb in VERBS for thing in THINGS]
    path.write_text("source\ttarget\ttext\n" + "".join(f"{a}\t{b}\t{a}\n" for a, b in rows))
    return DataSpec.model_validate({"source": str(path), "task": task, "languages": ("la",)})


def writer_checkpoint(folder: Path, task: str, **overrides: Any) -> Checkpoint:
    """A checkpoint in `folder`/TASK, of bytes, whose greedy texts are long and go through many characters."""
    config = writer_config(task, **overrides)
    made = Checkpoint(
        path=folder / task,
        name=task,
        framework="torch",
        config=config,
        weights=loud_weights(config),
        processor=train_processor("byte", (), 260, max_length=CONTEXT, writes=True),
        labels=(),
        data=load_corpus(write_corpus(folder, task)).record,
        metrics=None,
    )
    save_checkpoint(made, made.path)
    return load_checkpoint(made.path)


def write_onnx_bundle(folder: Path, checkpoint: Checkpoint) -> Bundle:
    """An ONNX file with a cache that grows, and a bundle around it."""
    from edgekit.export.to_onnx import convert

    signatures = growing_signatures(checkpoint.config)
    module = build_flat(checkpoint.config, checkpoint.weights, input_names(signatures))
    program = Program(framework="torch", module=module, signatures=signatures)
    path = folder / f"{checkpoint.name}.onnx-none.edgekit"
    path.mkdir(parents=True)
    name = "model.onnx" if len(signatures) == 1 else "model"
    convert(program, path / name)
    return _seal(path, checkpoint, program, target="onnx", runtime="onnxruntime", model=name)


def write_tflite_bundle(folder: Path, checkpoint: Checkpoint) -> Bundle:
    """A TFLite file with a cache of fixed length, and a bundle around it."""
    from edgekit.export.to_tflite import convert

    program = build_writer_program(checkpoint, "torch")
    path = folder / f"{checkpoint.name}.tflite-none.edgekit"
    path.mkdir(parents=True)
    convert(program, path / "model.tflite")
    return _seal(path, checkpoint, program, target="tflite", runtime="litert-compiled", model="model.tflite")


def _seal(path: Path, checkpoint: Checkpoint, program: Program, *, target: str, runtime: str, model: str) -> Bundle:
    checkpoint.processor.save(path / TOKENIZER)
    golden = _golden(program)
    write_golden(path / GOLDEN, golden)
    largest = max(float(np.abs(value).max()) for value in golden.steps[0].outputs.values())
    task: Any = checkpoint.config.task
    seal_bundle(
        path,
        name=f"{checkpoint.name}.{target}-none",
        task=task,
        target=target,
        via="torch",
        scheme="none",
        scheme_details={},
        model=model,
        runtime=runtime,
        signatures=program.signatures,
        source=SourceRef(kind="checkpoint", path=str(checkpoint.path), framework="torch", task=task, sha256="0" * 64),
        tools={},
        parity=Parity(
            verdict="within-tolerance",
            steps=1,
            max_abs_difference=0.0,
            tolerance=1e-5 * max(1.0, largest),
            max_abs_reference=largest,
        ),
        accuracy=Accuracy(accuracy=None, note="not measured: made by hand"),
        golden_texts="made by hand",
    )
    return open_bundle(path)


def _golden(program: Program) -> Golden:
    """One step from the beginning of a text, and texts to go on from."""
    signature = next(each for each in program.signatures if not each.given and ("logits" in _names(each.outputs) or
                     (len(program.signatures) > 1 and not each.states)))  # fmt: skip
    inputs = {spec.name: _begun(spec) for spec in signature.inputs}
    outputs = ProgramBackend(program).run(signature.name, inputs)
    step = Step(signature=signature.name, inputs=inputs, outputs=outputs)
    source = (1, 80, 90) if any(each.given for each in program.signatures) else ()
    texts = GoldenTexts(
        prompts=(Prompt(ids=(1,), source=source),),
        max_new_tokens=4,
        scored=(Prompt(ids=(1, *range(100, 110)), source=source),),
    )
    return Golden(steps=(step,), labels=np.full(1, -1, np.int32), texts=pack_texts(texts))


def _names(specs: tuple[TensorSpec, ...]) -> list[str]:
    return [spec.name for spec in specs]


def _begun(spec: TensorSpec) -> NDArray[Any]:
    """An input of a first call: one token, and an empty cache where it grows."""
    sizes = [(1 if axis < 2 else 0) if axis in spec.axes else size for axis, size in enumerate(spec.shape)]
    ones = spec.name.endswith(("ids", "mask")) and spec.name != "position_ids"
    return np.full(sizes, int(ones), spec.dtype)
