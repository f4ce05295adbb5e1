"""What the generation settings of a Hugging Face model ask of whoever writes with it."""

from typing import Any

from edgekit.bundle import TextRules
from edgekit.program import ModelTask

#: settings that change what transformers' `generate` writes and are not followed here → the value that changes nothing
_OTHERS: dict[str, Any] = {
    "do_sample": False,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "sequence_bias": None,
    "stop_strings": None,
    "token_healing": False,
    "watermarking_config": None,
}
_IDS = ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")


def text_rules(config: Any, task: ModelTask) -> TextRules:
    """The rules of a `GenerationConfig`; a translation's forced first token stands in its prompt, and counts.

    That of a decoder alone is not followed: transformers forces it after prompts of one token.
    """
    begun = int(task == "translate" and config.forced_bos_token_id is not None)
    given = {name: getattr(config, name, None) for name in TextRules.model_fields}
    given |= {name: [value] if isinstance(value, int) else value for name, value in given.items() if name in _IDS}
    others = [name for name, neutral in _OTHERS.items() if getattr(config, name, None) not in (None, neutral)]
    if task == "generate" and config.forced_bos_token_id is not None:
        others.append("forced_bos_token_id")
    named = {name: value for name, value in given.items() if value is not None}
    return TextRules.model_validate(named | {"begun": begun, "not_followed": sorted(others)})
