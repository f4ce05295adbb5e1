"""What a bundle of a Hugging Face model that writes holds beside its file: prompts by its own tokenizer, sizes."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgekit.bundle import TOKENIZER, TOKENS, TextEnds, TextRules
from edgekit.errors import RefusedError
from edgekit.export.prepare import Texts
from edgekit.export.prepare_hub import load_tokenizer
from edgekit.export.text_rules import text_rules
from edgekit.program import ModelTask, Program, Signature, SourceRef
from edgekit.proof.golden_texts import GoldenTexts
from edgekit.proof.held_out_texts import NEW_TOKENS
from edgekit.proof.tokens import write_tokens
from edgekit.proof.writing import Prompt
from edgekit.text.hub_tokenizer import HubTokenizer

SHAPE = "writer.json"


class PreparedWriter(BaseModel):
    """What only the loaded model tells: the sizes of its cache, signatures, ends of texts; and where those are from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: ModelTask
    vocab_size: int
    max_length: int
    hidden_size: int
    decoder_layers: int
    num_decoder_blocks: int
    kv_heads: int
    head_dim: int
    signatures: tuple[Signature, ...]
    text_ends: TextEnds
    text_rules: TextRules
    origin: str


def prepare_writer(source: SourceRef, program: Program, texts: Path, folder: Path) -> GoldenTexts:
    """The golden texts before the model has written; tokenizer, golden ids and sizes go to `folder`.

    Raises RefusedError for a tokenizer without a tokenizer.json, and for a model that does not say what begins or ends
    its texts.
    """
    asked = Texts.model_validate_json(texts.read_bytes())
    model, shape = program.module.model.model, program.module.model.config
    own = load_tokenizer(Path(source.path), trust_remote_code=source.options.trust_remote_code)
    longest = shape.max_length
    HubTokenizer.adopt(own.backend_tokenizer.to_str(), longest).save(folder / TOKENIZER)
    write_tokens(
        folder / TOKENS, lambda given: [own(text, truncation=True, max_length=longest)["input_ids"] for text in given]
    )
    sizes = {name: getattr(shape, name) for name in PreparedWriter.model_fields if hasattr(shape, name)}
    ends = TextEnds(begin_ids=_begin_ids(model, shape.task), stop_ids=_ids(model, "eos_token_id"))
    rules = text_rules(model.generation_config, shape.task)
    prepared = PreparedWriter(
        **sizes, signatures=program.signatures, text_ends=ends, text_rules=rules, origin=asked.origin
    )
    (folder / SHAPE).write_text(prepared.model_dump_json(), encoding="utf-8")
    stop_ids = ends.stop_ids
    encoded = [own(text, truncation=True, max_length=longest)["input_ids"] for text in asked.samples]
    if shape.task == "translate":
        prompts = [Prompt(ids=ends.begin_ids, source=tuple(ids)) for ids in encoded if ids]
    else:
        halves = [[i for i in ids if i not in stop_ids or i == ids[0]] for ids in encoded]
        prompts = [Prompt(ids=tuple(ids[: max(1, min(len(ids), longest) // 2)])) for ids in halves if ids]
    new = longest if shape.task == "translate" else min(NEW_TOKENS, longest)
    return GoldenTexts(prompts=tuple(prompts), max_new_tokens=new, stop_ids=stop_ids, foreign=True)


def _begin_ids(model: Any, task: ModelTask) -> tuple[int, ...]:
    """What a translation, or an empty text to go on from, begins with; a forced first token is part of it."""
    if task == "generate":
        return _named_ids(model, "bos_token_id")[:1]
    return (*_ids(model, "decoder_start_token_id")[:1], *_named_ids(model, "forced_bos_token_id")[:1])


def _ids(model: Any, name: str) -> tuple[int, ...]:
    """Token ids that the model must name; raises RefusedError where it does not."""
    if found := _named_ids(model, name):
        return found
    raise RefusedError(f"the configuration of {model.config.model_type} has no {name}: set it in config.json")


def _named_ids(model: Any, name: str) -> tuple[int, ...]:
    """Token ids that the model's generation settings, or its configuration, name; empty where neither does."""
    for config in (getattr(model, "generation_config", None), model.config):
        found = getattr(config, name, None)
        if found is not None:
            return tuple(map(int, found)) if isinstance(found, (list, tuple)) else (int(found),)
    return ()
