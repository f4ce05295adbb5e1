"""What models' settings forbid, force and weigh: token for token what transformers' own `generate` writes with them."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgekit.bundle import TextEnds
from edgekit.devices.runner.generation import write
from edgekit.devices.runner.generation_job import parse_generation
from edgekit.devices.runner.rules import Rules, Text, filtered
from edgekit.devices.runner.sampling import Sampling
from edgekit.devices.runner.writer import Writer
from edgekit.export.text_rules import text_rules
from edgekit.proof.in_framework import ProgramBackend
from edgekit.proof.writing import Prompt, WritingSettings, job_fields
from edgekit.sources.hub_writers import build_hub_writer
from edgekit.writing import TextWriter
from tests.model.test_hub_writers import build

LONGEST, TOKENS = 24, 10
FORBIDDEN: dict[str, Any] = {
    "bad_words_ids": [[0], [7], [9, 11], [2]],
    "suppress_tokens": [12, 13],
    "begin_suppress_tokens": [14, 15, 16],
    "no_repeat_ngram_size": 2,
}
WEIGHED: dict[str, Any] = {"repetition_penalty": 1.7, "min_length": 6, "min_new_tokens": 5, "length_penalty": 0.4}
MARIAN: dict[str, Any] = {"bad_words_ids": [[0]], "num_beams": 4, "forced_eos_token_id": 2}
BART: dict[str, Any] = {
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "min_length": 5,
    "length_penalty": 2.0,
    "num_beams": 4,
    "early_stopping": True,
}
ENCODER: dict[str, Any] = {"encoder_repetition_penalty": 1.4, "encoder_no_repeat_ngram_size": 1, "num_beams": 2}


def as_bundles_write(model: Any, task: Any, prompts: list[Prompt], tokens: int) -> list[list[int]]:
    """The loop of the runner over the live model, with the rules as a bundle would hold them."""
    writer = TextWriter(
        name="live",
        task=task,
        processor=None,  # type: ignore[arg-type]  # ids are given
        ends=TextEnds(begin_ids=(1,), stop_ids=(2,)),
        run=None,  # type: ignore[arg-type]  # the loop runs here
        context=LONGEST,
        rules=text_rules(model.generation_config, task),
    )
    settings = writer.settle(writer.settle(WritingSettings(max_new_tokens=tokens)))
    job = parse_generation(job_fields(prompts, settings, stream=False))
    live = Writer(ProgramBackend(build_hub_writer(model, task, LONGEST)))
    return [write(live, prompt, job.generation).ids for prompt in job.prompts]


def as_transformers(model: Any, ids: tuple[int, ...], skip: int) -> list[int]:
    with torch.inference_mode():
        found = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    return list(itertools.takewhile(lambda token: token != 2, found[skip:]))


@pytest.mark.parametrize(
    "settings",
    [
        FORBIDDEN,
        WEIGHED,
        *(FORBIDDEN | WEIGHED | {"num_beams": 3, "early_stopping": early} for early in (False, True, "never")),
    ],
)
def test_decoders_keep_their_settings(settings: dict[str, Any]) -> None:
    model: Any = build("gpt2", pad_token_id=0)
    prompts = [(5, 9, 11, 5), (7,), (33, 3, 21)]
    plain = [as_transformers(model, ids, len(ids)) for ids in prompts]
    model.generation_config.update(**settings)
    expected = [as_transformers(model, ids, len(ids)) for ids in prompts]
    assert as_bundles_write(model, "generate", [Prompt(ids=ids) for ids in prompts], TOKENS) == expected
    assert expected != plain


@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("settings", [FORBIDDEN, WEIGHED, MARIAN, BART, ENCODER, MARIAN | FORBIDDEN | WEIGHED])
def test_translators_keep_their_settings(name: str, settings: dict[str, Any]) -> None:
    model: Any = build(name, pad_token_id=0, eos_token_id=2, decoder_start_token_id=1)
    sources = [(5, 9, 11, 5, 2), (7, 2), (33, 3, 21, 40, 41, 42, 2)]
    begin = (1, *([settings["forced_bos_token_id"]] if "forced_bos_token_id" in settings else []))
    plain = [as_transformers(model, ids, 1) for ids in sources]
    model.generation_config.update(**settings)
    expected = [as_transformers(model, ids, len(begin)) for ids in sources]
    prompts = [Prompt(ids=begin, source=ids) for ids in sources]
    assert as_bundles_write(model, "translate", prompts, TOKENS + 1 - len(begin)) == expected
    assert expected != plain


def test_settings_that_nothing_follows_are_named() -> None:
    config = transformers.GenerationConfig(do_sample=True, sequence_bias=[[[3], 2.0]], bad_words_ids=[[4]])
    rules = text_rules(config, "translate")
    assert rules.not_followed == ("do_sample", "sequence_bias")
    assert rules.bad_words_ids == ((4,),)
    assert text_rules(transformers.GenerationConfig(forced_bos_token_id=3), "generate").not_followed == (
        "forced_bos_token_id",
    )


def test_what_a_user_says_comes_first_and_chance_leaves_out_the_models_beams() -> None:
    rules = text_rules(transformers.GenerationConfig(num_beams=4, length_penalty=0.5, bad_words_ids=[[4]]), "translate")
    ends = TextEnds(begin_ids=(1,), stop_ids=(2,))
    writer = TextWriter(name="", task="translate", processor=None, ends=ends, run=None, context=9, rules=rules)  # type: ignore[arg-type]
    own = writer.settle(WritingSettings(stop_ids=(2, 3)))
    assert (own.num_beams, own.length_penalty, own.early_stopping, own.stop_ids) == (4, 0.5, False, (2, 3))
    assert own.rules["bad_words_ids"] == [[4]]
    given = writer.settle(WritingSettings(num_beams=2, length_penalty=1.0))
    assert (given.num_beams, given.length_penalty) == (2, 1.0)
    assert writer.settle(WritingSettings(temperature=0.7)).num_beams == 1


def test_tokens_that_a_model_has_no_logits_of_are_passed_over() -> None:
    kept = filtered(np.float32([0, 1, 2, 3]), Text([1]), Sampling(), Rules(begin_suppress_tokens=(3, 9)))
    assert kept.tolist() == [0, 1, 2, -np.inf]
