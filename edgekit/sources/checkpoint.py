"""Checkpoint → Program: the model built in one framework or the other, with the signature that exports give it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit import extras
from edgekit.checkpoint import Checkpoint, check_classifier, content_sha256, load_checkpoint
from edgekit.errors import CheckpointError
from edgekit.extras import require
from edgekit.program import FRAMEWORKS, Framework, Program, Signature, SourceRef, TensorSpec
from edgekit.sources.writers import build_writer_program

SIGNATURE = "serving_default"  # the name that TensorFlow's and TFLite's tools look for when none is given


def checkpoint_source(path: Path, framework: Framework, task: str = "classify") -> SourceRef:
    """Name the checkpoint at `path`, to be built in `framework`, with the hash of what is in it now.

    Raises CheckpointError where its files can't be read.
    """
    return SourceRef.model_validate(
        {
            "kind": "checkpoint",
            "path": str(path.absolute()),
            "framework": framework,
            "task": task,
            "sha256": content_sha256(path),
        }
    )


def encoder_signature(checkpoint: Checkpoint, framework: Framework, length: int | None = None) -> Signature:
    """The one signature of an encoder: ids and mask int32 [1, length] → logits float32 [1, labels].

    `length` is in tokens; None takes the longest that the model was built for. Raises CheckpointError for one that
    it can't take.
    """
    check_classifier(checkpoint, "this verb")
    longest = checkpoint.config.max_length
    if length is not None and not 1 <= length <= longest:
        raise CheckpointError(f"{checkpoint.name} takes 1 to {longest} tokens, not {length}")
    shape = (1, length or longest)
    return Signature(
        name=SIGNATURE,
        method="forward" if framework == "torch" else "call",
        inputs=tuple(TensorSpec(name=name, dtype="int32", shape=shape) for name in ("ids", "mask")),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, checkpoint.config.num_labels)),),
    )


def build_program(checkpoint: Checkpoint, framework: Framework, *, length: int | None = None) -> Program:
    """Build the checkpoint's model in `framework`, in inference mode.

    Raises CheckpointError for weights or a length that do not fit, MissingExtraError without the framework.
    """
    signature = encoder_signature(checkpoint, framework, length)
    if framework == "torch":
        require("torch", "building the model in PyTorch")
        from edgekit.model import pytorch

        module: object = pytorch.build_encoder(checkpoint.config, checkpoint.weights)
    else:
        require("tensorflow", "building the model in TensorFlow")
        from edgekit.model import keras

        module = keras.build_encoder(checkpoint.config, checkpoint.weights)
    return Program(framework=framework, module=module, signatures=(signature,))


def open_source(source: SourceRef, *, length: int | None = None) -> Program:
    """Build the Program that `source` names.

    Raises CheckpointError where the checkpoint is broken, or no longer the one that was named.
    """
    path = Path(source.path)
    if content_sha256(path) != source.sha256:
        raise CheckpointError(f"{path} has changed since this export began; start it again")
    checkpoint = load_checkpoint(path)
    if checkpoint.config.task == "classify":
        return build_program(checkpoint, source.framework, length=length)
    return build_writer_program(checkpoint, source.framework)


def checkpoint_logits(checkpoint: Checkpoint, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float64]:
    """The logits of ids and mask int32 [n, length], as the framework that trained the checkpoint computes them."""
    program = build_program(checkpoint, usable_framework(checkpoint))
    if program.framework == "torch":
        import torch

        with torch.inference_mode():
            logits = program.module(torch.from_numpy(ids), torch.from_numpy(mask))
    else:
        logits = program.module((ids, mask), training=False)
    return np.asarray(logits, dtype=np.float64)


def usable_framework(checkpoint: Checkpoint) -> Framework:
    """The framework that trained the checkpoint, or the other one where only that is installed: same weights."""
    others = [name for name in FRAMEWORKS if name != checkpoint.framework]
    usable = [name for name in (checkpoint.framework, *others) if extras.is_installed(name)]
    if not usable:
        extras.check_installed((checkpoint.framework,), f"predicting with the checkpoint {checkpoint.name}")
    return usable[0]
