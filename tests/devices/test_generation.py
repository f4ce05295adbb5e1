"""The loop that writes: beside the models' own greedy decoding, beside all texts there are, and on bad ground."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.runner.backend import Backend, Port, Signature
from edgekit.devices.runner.failures import RunError
from edgekit.devices.runner.generation import Generation, Prompt, Written, write
from edgekit.devices.runner.generation_job import parse_generation
from edgekit.devices.runner.rules import Text, filtered
from edgekit.devices.runner.sampling import Sampling, log_probabilities
from edgekit.devices.runner.session import check_states
from edgekit.devices.runner.writer import Writer, plan_chunks
from edgekit.model.decoder_pytorch import Decoder, EncoderDecoder, build_model, cached_step
from edgekit.model.greedy import greedy_ids
from edgekit.program import Program
from edgekit.proof.in_framework import ProgramBackend
from edgekit.sources.writers import input_names, writer_signatures
from edgekit.sources.writers_torch import build_flat
from edgekit.text.processor import pad_ids
from tests.devices.writers import CONTEXT, loud_weights, writer_config

NEVER = Generation(max_new_tokens=1000)


def live_backend(task: str, **overrides: Any) -> tuple[ProgramBackend, Decoder | EncoderDecoder]:
    """The runner's view of a live model with a fixed cache, and the model."""
    config = writer_config(task, **overrides)
    weights, signatures = loud_weights(config), writer_signatures(config, (4, 8) if task == "generate" else ())
    module = build_flat(config, weights, input_names(signatures))
    model = build_model(config, weights)
    assert isinstance(model, Decoder | EncoderDecoder)
    return ProgramBackend(Program(framework="torch", module=module, signatures=signatures)), model


class Oracle(Backend):
    """A cache that grows, and logits that depend on every token before them; `broken` of so many tokens are NaN."""

    def __init__(self, vocab: int, *, broken: int = -1) -> None:
        past, total = Port("float32", (None, 1, None, 1)), Port("float32", (None, 1, None, 1))
        ids = Port("int64", (None, None))
        self.vocab, self.broken, self.calls = vocab, broken, 0
        self.signatures = {
            "": Signature(
                {"input_ids": ids, "attention_mask": ids, "position_ids": ids, "past_key_values.0.key": past},
                {"logits": Port("float32", (None, None, vocab)), "present.0.key": total},
            )
        }

    def run(self, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
        past = inputs["past_key_values.0.key"]
        new = inputs["input_ids"].astype(np.float32).reshape(1, 1, -1, 1)
        assert inputs["attention_mask"].shape == (1, past.shape[2] + new.shape[2])
        assert inputs["position_ids"].tolist() == [list(range(past.shape[2], past.shape[2] + new.shape[2]))]
        present = np.concatenate([past, new], 2)
        self.calls += 1
        logits = np.stack([self.logits(present[0, 0, : past.shape[2] + i + 1, 0]) for i in range(new.shape[2])])
        return {"logits": logits[None], "present.0.key": present}

    def logits(self, ids: Any) -> Any:
        if len(ids) == self.broken:
            return np.full(self.vocab, np.nan, np.float32)
        generator = np.random.default_rng([int(token) for token in ids])
        return 2 * generator.standard_normal(self.vocab, np.float32)


@pytest.mark.parametrize("length", [1, 2, 4, 5, 9, 13, CONTEXT - 1, CONTEXT])
def test_greedy_text_is_the_models_own_for_prompts_of_any_length(length: int) -> None:
    backend, model = live_backend("generate")
    prompt = np.random.default_rng(length).integers(4, 260, (1, length), np.int32)
    expected = greedy_ids(cached_step(model, 1, None), prompt, max_length=CONTEXT, stop_id=3)[0]
    written = write(Writer(backend), Prompt(tuple(map(int, prompt[0]))), NEVER._replace(stop_ids=(3,)))
    assert written.ids == expected
    assert written.ended == ("context" if len(expected) == CONTEXT - length + 1 else "stop")


def test_greedy_translation_is_the_models_own() -> None:
    backend, model = live_backend("translate")
    source = pad_ids([[1, 77, 102, 90]], CONTEXT)
    expected = greedy_ids(cached_step(model, 1, source), np.full((1, 1), 1, np.int32), max_length=CONTEXT, stop_id=3)
    written = write(Writer(backend), Prompt((1,), (1, 77, 102, 90)), NEVER._replace(stop_ids=(3,)))
    assert written.ids == expected[0]
    assert len(written.ids) > 5


@given(st.integers(0, 300), st.sets(st.integers(2, 128), max_size=4), st.integers(0, 40))
def test_chunks_read_everything_and_never_write_behind_the_end(count: int, sizes: set[int], spare: int) -> None:
    room = count + spare
    chunks = plan_chunks(count, tuple(sorted({1, *sizes})), room)
    read = 0
    for chunk in chunks:
        assert read + chunk <= room
        assert read < count
        read += chunk
    assert read >= count
    assert set(chunks) <= {1, *sizes}


def test_a_prompt_is_read_in_few_calls() -> None:
    assert plan_chunks(127, (1, 8, 32, 128), 256) == [128]
    assert plan_chunks(40, (1, 8, 32, 128), 256) == [32, 8]
    assert plan_chunks(300, (1, 8, 32, 128), 512) == [128, 128, 32, 8, 8]
    assert plan_chunks(20, (1, 8, 32, 128), 24) == [8, 8, 8]


def all_texts(oracle: Oracle, prompt: tuple[int, ...], generation: Generation) -> dict[tuple[int, ...], float]:
    """Every text there is, which ends by token 0 or at the longest, with its score over its length."""
    found = {}
    for length in range(1, generation.max_new_tokens + 1):
        for text in itertools.product(range(oracle.vocab), repeat=length):
            if 0 in text[:-1] or (text[-1] != 0 and length < generation.max_new_tokens):
                continue
            score = 0.0
            for place, token in enumerate(text):
                before = [*prompt, *text[:place]]
                scores = log_probabilities(oracle.logits(np.array(before))).astype(np.float32)
                score += float(filtered(scores, Text(before), generation.sampling)[token])
            found[text[:-1] if text[-1] == 0 else text] = score / length**generation.length_penalty
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("first", range(1, 4))
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_beams_wide_enough_find_the_likeliest_text_of_all(first: int, length_penalty: float, penalty: float) -> None:
    oracle, prompt = Oracle(4), (first, 1 + first % 3)
    generation = Generation(
        max_new_tokens=4,
        stop_ids=(0,),
        num_beams=100,
        length_penalty=length_penalty,
        sampling=Sampling(repetition_penalty=penalty),
    )
    texts = all_texts(oracle, prompt, generation)
    written = write(Writer(oracle), Prompt(prompt), generation)
    assert texts[tuple(written.ids)] == pytest.approx(max(texts.values()), rel=1e-5)
    assert written.ended == ("length" if len(written.ids) == 4 else "stop")


def test_beams_are_transformers_beams() -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    shape = GPT2Config(vocab_size=30, n_positions=40, n_embd=16, n_layer=1, n_head=2, initializer_range=1.0)
    model = GPT2LMHeadModel(shape).eval()

    class InTransformers(Oracle):
        def logits(self, ids: Any) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, -1].numpy()

    writer = Writer(InTransformers(30))
    for prompt in ((5, 9), (7,), (11, 3, 2)):
        for beams, penalty in ((2, 1.0), (4, 0.0), (3, 2.0)):
            expected = model.generate(
                torch.tensor([prompt]), max_new_tokens=8, num_beams=beams, length_penalty=penalty, do_sample=False,
                eos_token_id=1, pad_token_id=0, early_stopping="never",
            )[0, len(prompt) :].tolist()  # fmt: skip
            expected = list(itertools.takewhile(lambda token: token != 1, expected))
            generation = Generation(max_new_tokens=8, stop_ids=(1,), num_beams=beams, length_penalty=penalty)
            assert write(writer, Prompt(prompt), generation).ids == expected, (prompt, beams, penalty)


def test_one_beam_is_greedy() -> None:
    greedy = write(Writer(Oracle(9)), Prompt((1, 2)), Generation(max_new_tokens=7))
    backend, _ = live_backend("translate")
    prompt = Prompt((1,), (1, 50, 60))
    wide = Generation(max_new_tokens=6, num_beams=4)
    assert len(greedy.ids) == 7
    assert write(Writer(backend), prompt, wide).ids == write(Writer(backend), prompt, wide).ids


def test_a_text_goes_on_from_the_same_states_twice() -> None:
    writer = Writer(live_backend("generate")[0])
    begun = writer.read([1, 80, 90])
    first, other, again = writer.step(100, begun), writer.step(101, begun), writer.step(100, begun)
    np.testing.assert_array_equal(first.logits, again.logits)
    assert np.abs(first.logits - other.logits).max() > 0.1


def test_chance_is_the_same_for_a_seed_and_tokens_are_told_as_they_come() -> None:
    told: list[int] = []
    sampled = Generation(max_new_tokens=12, sampling=Sampling(temperature=1.5), seed=4)
    first = write(Writer(Oracle(50)), Prompt((1,)), sampled, told.append)
    assert told == first.ids
    assert write(Writer(Oracle(50)), Prompt((1,)), sampled).ids == first.ids
    assert write(Writer(Oracle(50)), Prompt((1,)), sampled._replace(seed=5)).ids != first.ids


def test_a_repetition_penalty_sees_the_prompt() -> None:
    oracle = Oracle(6)
    strong = Generation(max_new_tokens=1, sampling=Sampling(repetition_penalty=100.0))
    for prompt in itertools.product(range(6), repeat=2):
        (token,) = write(Writer(oracle), Prompt(prompt), strong).ids
        logits = oracle.logits(np.array(prompt))
        assert token not in prompt or (np.delete(logits, prompt) < 0).all()


def test_the_end_of_the_context_ends_a_text_or_slides_it() -> None:
    backend, _ = live_backend("generate")
    prompt = Prompt(tuple(range(10, 10 + CONTEXT)))
    assert write(Writer(backend), prompt, Generation(max_new_tokens=50)) == Written(
        write(Writer(backend), prompt, Generation(max_new_tokens=1)).ids, "context"
    )
    slid = write(Writer(backend), prompt, Generation(max_new_tokens=50, long_prompt="slide"))
    assert (len(slid.ids), slid.ended) == (50, "length")
    assert slid.slid > 2
    # what follows a slide is what the newest half alone is gone on with
    kept = (prompt.ids[0], *(prompt.ids + tuple(slid.ids[:1]))[-(CONTEXT // 2 - 1) :])
    assert write(Writer(backend), Prompt(kept), Generation(max_new_tokens=5)).ids == slid.ids[1:6]


def test_a_prompt_longer_than_the_context_is_refused_or_slides() -> None:
    backend, _ = live_backend("generate")
    prompt = Prompt(tuple(range(10, 11 + CONTEXT)))
    words = f"the prompt has {CONTEXT + 1} tokens, the model reads {CONTEXT} at most"
    with pytest.raises(RunError, match=words) as error:
        write(Writer(backend), prompt, Generation())
    assert error.value.kind == "bad-input"
    slid = write(Writer(backend), prompt, Generation(max_new_tokens=4, long_prompt="slide"))
    kept = (prompt.ids[0], *prompt.ids[-(CONTEXT // 2 - 1) :])
    assert slid == write(Writer(backend), Prompt(kept), Generation(max_new_tokens=4))._replace(slid=1)


@pytest.mark.parametrize(
    ("task", "prompt", "words"),
    [
        ("generate", Prompt(()), "empty"),
        ("generate", Prompt((1, 260)), "the token 260, which the file does not know: it has 260"),
        ("generate", Prompt((1, -1)), "the token -1"),
        ("generate", Prompt((1,), (1, 2)), "does not translate"),
        ("translate", Prompt((1,)), "no text to translate"),
        ("translate", Prompt((1,), (1,) * (CONTEXT + 1)), "the source text has 25 tokens"),
        ("translate", Prompt((1,), (1, 300)), "the source text has the token 300"),
    ],
)
def test_prompts_that_a_file_can_not_take(task: str, prompt: Prompt, words: str) -> None:
    with pytest.raises(RunError, match=words) as error:
        write(Writer(live_backend(task)[0]), prompt, Generation())
    assert error.value.kind == "bad-input"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_logits_that_are_no_numbers_name_the_token(num_beams: int) -> None:
    with pytest.raises(RunError, match=r"the logits of token 3 are no numbers: 9 of 9 are NaN") as error:
        write(Writer(Oracle(9, broken=4)), Prompt((1, 2)), Generation(num_beams=num_beams))
    assert error.value.kind == "run-failed"


def changed(backend: ProgramBackend, side: str, name: str, port: Port) -> dict[str, Signature]:
    decode = backend.signatures["decode"]
    ports = {**getattr(decode, side), name: port}
    return {**backend.signatures, "decode": decode._replace(**{side: ports})}


def test_a_cache_of_another_shape_is_told_of_before_anything_runs() -> None:
    backend, _ = live_backend("generate")
    backend.signatures = changed(backend, "outputs", "present.1.value", Port("float32", (1, 2, CONTEXT + 1, 8)))
    with pytest.raises(RunError, match=r"present.1.value of the signature decode is float32 \[1, 2, 25, 8\]") as error:
        Writer(backend)
    assert error.value.kind == "load-failed"
    backend, _ = live_backend("generate")
    half = changed(backend, "inputs", "past_key_values.0.key", Port("float16", (1, 2, CONTEXT, 8)))
    with pytest.raises(RunError, match=r"past_key_values.0.key .* is float16"):
        check_states(half)
    backend, _ = live_backend("generate")
    for signature in backend.signatures.values():
        del signature.outputs["present.1.key"]
    with pytest.raises(RunError, match=r"no output present.1.key goes on with the input past_key_values.1.key"):
        Writer(backend)


def test_a_file_that_does_not_write(tmp_path: Path) -> None:
    backend, _ = live_backend("generate")
    ports = {"ids": Port("int32", (1, 4))}
    backend.signatures = {"serving_default": Signature(ports, {"logits": Port("float32", (1, 2))})}
    with pytest.raises(RunError, match=r"does not write.*serving_default.*--task generate or translate"):
        Writer(backend)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": []}, "no 'prompts'"),
        ({"prompts": [{"ids": [1], "text": "a"}]}, "a prompt of the job is not"),
        ({"prompts": [{"ids": [1.5]}]}, "'ids' must be whole numbers"),
        ({"max_new_tokens": 0}, "'max_new_tokens' must be of type int, 1 to"),
        ({"temperature": -1.0}, "'temperature' must be of type float, 0 to"),
        ({"top_p": "all"}, "'top_p' must be of type float"),
        ({"long_prompt": "cut"}, "unknown long_prompt 'cut': known are refuse, slide"),
        ({"early_stopping": "soon"}, "unknown early_stopping 'soon'"),
        ({"rules": {"bad_words": [[1]]}}, "rules have no such bad_words"),
        ({"rules": {"bad_words_ids": [[]]}}, "rules have no such bad_words_ids"),
        ({"rules": {"min_length": 1.5}}, "rules have no such min_length"),
        ({"rules": {"encoder_repetition_penalty": 0}}, "rules have no such encoder_repetition_penalty"),
        ({"context": 0}, "'context' must be a number of tokens"),
        ({"beams": 2}, "unknown field 'beams'"),
    ],
)
def test_jobs_that_are_none_name_the_field(changes: dict[str, Any], words: str) -> None:
    fields = {"prompts": [{"ids": [1]}], "temperature": 1, "stop_ids": [3], **changes}
    with pytest.raises(RunError, match=words) as error:
        parse_generation(fields)
    assert error.value.kind == "bad-job"
    if "prompts" not in changes:
        assert parse_generation({"prompts": [{"ids": [1]}], "temperature": 1}).generation.sampling.temperature == 1.0
