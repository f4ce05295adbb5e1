"""What a bundle of a Hugging Face model that writes holds beside its file: prompts by its own tokenizer, sizes."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgekit.bundle import TOKENIZER, TOKENS
from edgekit.errors import RefusedError
from edgekit.export.prepare import Texts
from edgekit.export.prepare_hub import adopt_tokenizer, load_tokenizer
from edgekit.program import ModelTask, Program, Signature, SourceRef
from edgekit.proof.golden_texts import GoldenTexts
from edgekit.proof.tokens import write_tokens
from edgekit.proof.writing import Prompt

SHAPE = "writer.json"
#: tokens that follow the beginning of a text
NEW_TOKENS = 32


class PreparedWriter(BaseModel):
    """What only the loaded model tells: the sizes of its cache, its signatures, and where the texts are from."""

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
    adopt_tokenizer(own, model.config, longest).save(folder / TOKENIZER)
    write_tokens(
        folder / TOKENS, lambda given: [own(text, truncation=True, max_length=longest)["input_ids"] for text in given]
    )
    sizes = {name: getattr(shape, name) for name in PreparedWriter.model_fields if hasattr(shape, name)}
    prepared = PreparedWriter(**sizes, signatures=program.signatures, origin=asked.origin)
    (folder / SHAPE).write_text(prepared.model_dump_json(), encoding="utf-8")
    stop_ids = _ids(model, "eos_token_id")
    encoded = [own(text, truncation=True, max_length=longest)["input_ids"] for text in asked.samples]
    if shape.task == "translate":
        begin = _ids(model, "decoder_start_token_id")[:1]
        prompts = [Prompt(ids=begin, source=tuple(ids)) for ids in encoded if ids]
    else:
        halves = [[i for i in ids if i not in stop_ids or i == ids[0]] for ids in encoded]
        prompts = [Prompt(ids=tuple(ids[: max(1, min(len(ids), longest) // 2)])) for ids in halves if ids]
    new = longest if shape.task == "translate" else min(NEW_TOKENS, longest)
    return GoldenTexts(prompts=tuple(prompts), max_new_tokens=new, stop_ids=stop_ids, foreign=True)


def _ids(model: Any, name: str) -> tuple[int, ...]:
    """Token ids that the model's generation settings, or its configuration, name."""
    for config in (getattr(model, "generation_config", None), model.config):
        found = getattr(config, name, None)
        if found is not None:
            return tuple(map(int, found)) if isinstance(found, (list, tuple)) else (int(found),)
    raise RefusedError(f"the configuration of {model.config.model_type} has no {name}: set it in config.json")
