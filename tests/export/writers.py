"""Small models that write, as files of ONNX and Core ML, and the loop of the runner on them."""

from pathlib import Path

import numpy as np

from edgekit.export import to_coreml, to_onnx
from edgekit.export.checks import check_signatures
from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.describe import describe_file
from edgekit.export.targets import TARGETS
from edgekit.model.config import TransformerConfig
from edgekit.model.decoder_pytorch import cached_step
from edgekit.model.greedy import greedy_ids
from edgekit.program import Framework, Program, Signature
from edgekit.proof.writing import Prompt, WritingSettings, run_here, write_texts
from edgekit.sources import writers_torch
from edgekit.sources.writers import input_names, writer_signatures
from edgekit.sources.writers_coreml import passed_signatures, stateful_signatures
from edgekit.sources.writers_onnx import fixed_signatures, growing_signatures
from tests.model.writers import InTorch, random_texts, random_weights

SEED = 3


def write_file(
    config: TransformerConfig, form: str, folder: Path, scheme: str = "none", framework: Framework = "torch"
) -> Path:
    """The model in one of the forms growing, fixed, stateful and passed, its signatures checked."""
    target = "onnx" if form in ("growing", "fixed") else "coreml"
    output = folder / TARGETS[target].file
    signatures = form_signatures(config, form)
    if target == "onnx":
        to_onnx.convert(_program(config, signatures), output, scheme=scheme)
    else:
        options = CoremlOptions(minimum_deployment_target="iOS18" if form == "stateful" else "iOS17")
        program = _program(config, signatures) if framework == "torch" else _keras_program(config, signatures)
        to_coreml.convert(program, output, scheme=scheme, options=options)
    check_signatures(describe_file(output), signatures)
    return output


def form_signatures(config: TransformerConfig, form: str) -> tuple[Signature, ...]:
    """The signatures of a form."""
    own = _own_signatures(config)
    if form == "growing":
        return growing_signatures(config)
    if form == "fixed":
        return fixed_signatures(own, "torch")
    return stateful_signatures(own) if form == "stateful" else passed_signatures(own)


def _own_signatures(config: TransformerConfig) -> tuple[Signature, ...]:
    return writer_signatures(config, (4,) if config.task == "generate" else ())


def _program(config: TransformerConfig, signatures: tuple[Signature, ...]) -> Program:
    names = input_names(_own_signatures(config))
    module = writers_torch.build_flat(config, random_weights(config, SEED), names)
    return Program(framework="torch", module=module, signatures=signatures)


def _keras_program(config: TransformerConfig, signatures: tuple[Signature, ...]) -> Program:
    from edgekit.sources import writers_keras

    module = writers_keras.build_flat(config, random_weights(config, SEED))
    return Program(framework="tensorflow", module=module, signatures=signatures)


def prompts(config: TransformerConfig) -> list[Prompt]:
    """Five prompts of 2 to 6 tokens."""
    source, mask, ids = random_texts(config, seed=5, rows=5)
    return [
        Prompt(
            ids=tuple(map(int, ids[row, : row + 2])),
            source=tuple(map(int, source[row, : mask[row].sum()])) if config.task == "translate" else (),
        )
        for row in range(5)
    ]


def source_texts(config: TransformerConfig) -> list[tuple[int, ...]]:
    """What the model itself writes after each prompt, greedily."""
    model = InTorch(config, random_weights(config, SEED)).model
    found = []
    for prompt in prompts(config):
        source = np.array([prompt.source], np.int32)
        given = (source, np.ones_like(source)) if config.task == "translate" else None
        step = cached_step(model, 1, given)
        ids = greedy_ids(step, np.array([prompt.ids], np.int32), max_length=config.max_length, stop_id=0)
        found.append(tuple(ids[0]))
    return found


def file_texts(config: TransformerConfig, path: Path) -> list[tuple[int, ...]]:
    """What a file writes after each prompt."""
    run = run_here(path, "onnxruntime" if path.suffix == ".onnx" else "coreml")
    settings = WritingSettings(max_new_tokens=config.max_length, stop_ids=(0,), context=config.max_length)
    texts = write_texts(run, prompts(config), settings)
    return [text.ids for text in texts]
