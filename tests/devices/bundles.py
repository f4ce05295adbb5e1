"""Whole bundles of the files that divide ids by mask: sealed in milliseconds, run by real runtimes."""

from pathlib import Path

import numpy as np

from edgekit.bundle import GOLDEN, LABELS, Accuracy, Bundle, Parity, open_bundle, seal_bundle, write_labels
from edgekit.program import Signature, SourceRef, TensorSpec
from edgekit.proof.golden import Golden, Step, write_golden
from tests.devices.models import SHAPE, integers, write_onnx, write_tflite

WRITERS = {"tflite": ("model.tflite", "litert", write_tflite), "onnx": ("model.onnx", "onnxruntime", write_onnx)}
STEPS = 6
TOLERANCE = 1e-5


def write_bundle(folder: Path, target: str = "tflite", *, shift: float = 0.0) -> Bundle:
    """A bundle in `folder`; `shift` makes its golden outputs differ from what the file computes by so much."""
    name, runtime, write = WRITERS[target]
    path = folder / f"divide.{target}-none.edgekit"
    path.mkdir(parents=True)
    write(path / name)
    write_labels(path / LABELS, ("a", "b", "c", "d"))
    golden = divisions(shift)
    write_golden(path / GOLDEN, golden)
    ports = tuple(TensorSpec(name=port, dtype="int32", shape=SHAPE) for port in ("ids", "mask"))
    outputs = (TensorSpec(name="logits", dtype="float32", shape=SHAPE),)
    largest = max(float(np.max(step.outputs["logits"])) for step in golden.steps)
    seal_bundle(
        path,
        name=f"divide.{target}-none",
        task="classify",
        target=target,
        via="torch",
        scheme="none",
        scheme_details={},
        model=name,
        runtime=runtime,
        signatures=(Signature(name="serving_default", method="forward", inputs=ports, outputs=outputs),),
        source=SourceRef(kind="checkpoint", path="tiny", framework="torch", task="classify", sha256="0" * 64),
        tools={},
        parity=Parity(
            verdict="within-tolerance",
            steps=STEPS,
            max_abs_difference=0.0,
            tolerance=TOLERANCE * largest,
            max_abs_reference=largest,
            labels_changed=0,
        ),
        accuracy=Accuracy(accuracy=1.0, samples=STEPS, population=100),
        golden_texts="made by hand",
    )
    return open_bundle(path)


def divisions(shift: float) -> Golden:
    """Steps whose quotients are exact, each with its own largest one."""
    steps = []
    for number in range(STEPS):
        ids, mask = integers(2, 4, 6, 8), integers(1, 2, 1, 2)
        ids[0, number % 4] += 40
        quotient = ids.astype(np.float32) / mask.astype(np.float32) + np.float32(shift)
        steps.append(Step(signature="serving_default", inputs={"ids": ids, "mask": mask}, outputs={"logits": quotient}))
    labels = np.array([int(np.argmax(step.outputs["logits"])) for step in steps], dtype=np.int32)
    return Golden(steps=tuple(steps), labels=labels)
