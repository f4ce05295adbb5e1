"""Core ML's own states in the runner's loop: coremltools' Python over a stand-in for its native part (not on a Mac)."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit.devices.runner.backend import Backend, import_runtime, load_backend
from edgekit.devices.runner.generation import Generation, Prompt, write
from edgekit.devices.runner.job import RunnerJob
from edgekit.devices.runner.session_coreml import CoremlSession
from edgekit.devices.runner.writer import Writer
from edgekit.model.config import TransformerConfig
from edgekit.proof.evaluated import EvaluatedBackend
from tests.devices import coreml_stand_in
from tests.export.writers import prompts, write_file
from tests.model.writers import CONFIGS

MODELS = {"generate": (CONFIGS[1], "stateful"), "translate": (CONFIGS[-1], "stateful"), "two": (CONFIGS[-1], "passed")}


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TransformerConfig, Path]:
    """A model whose package keeps the states, and one of two packages that are given them."""
    config, form = MODELS[request.param]
    return config, write_file(config, form, tmp_path_factory.mktemp("states"))


@pytest.fixture(autouse=True)
def macos() -> Iterator[None]:
    with coreml_stand_in.macos():
        yield


def load(path: Path) -> Backend:
    job = RunnerJob(runtime="coreml", model=str(path))
    return load_backend(import_runtime(job), job)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_it_writes_what_the_evaluator_writes(made: tuple[TransformerConfig, Path], num_beams: int) -> None:
    config, path = made
    writer, evaluated = Writer(load(path)), Writer(EvaluatedBackend(path))
    assert isinstance(writer.session, CoremlSession)
    generation = Generation(max_new_tokens=config.max_length, stop_ids=(0,), num_beams=num_beams)
    for each in prompts(config):
        prompt = Prompt(each.ids, each.source)
        assert write(writer, prompt, generation) == write(evaluated, prompt, generation)


def test_what_went_on_from_a_reading_leaves_it(made: tuple[TransformerConfig, Path]) -> None:
    config, path = made
    prompt, writer = prompts(config)[-1], Writer(load(path))
    reading = writer.read(prompt.ids, prompt.source)
    once = writer.step(3, reading)
    writer.step(5, once)
    other, again = writer.step(4, reading), writer.step(3, reading)
    assert np.abs(other.logits - once.logits).max() > 1e-3
    np.testing.assert_array_equal(again.logits, once.logits)
    evaluated = Writer(EvaluatedBackend(path))
    assert writer.cache_bytes(reading) == evaluated.cache_bytes(evaluated.read(prompt.ids, prompt.source))


def test_steps_are_given_their_states(made: tuple[TransformerConfig, Path]) -> None:
    """As a replay does it: what a step has for a state goes in, and what it holds then comes out."""
    _, path = made
    backend, evaluated = load(path), EvaluatedBackend(path)
    generator, known = np.random.default_rng(0), backend.signatures["decode"]
    assert known == evaluated.signatures["decode"]
    inputs = {
        name: np.ones(port.shape, port.dtype)
        if port.dtype == "int32"
        else generator.standard_normal(port.shape).astype(port.dtype)
        for name, port in known.inputs.items()
    }
    found, wanted = backend.run("decode", inputs), evaluated.run("decode", inputs)
    assert found.keys() == wanted.keys() == known.outputs.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_calls_are_those_of_coremltools() -> None:
    from coremltools.models import MLModel
    from coremltools.models.model import MLState

    inspect.signature(MLModel.predict).bind(None, {}, state=None)
    inspect.signature(MLModel.make_state).bind(None)
    inspect.signature(MLState.read_state).bind(None, "name")
    inspect.signature(MLState.write_state).bind(None, "name", np.zeros(1))
