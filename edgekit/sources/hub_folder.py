"""A folder of Hugging Face as plain files: what an export must know before any framework is loaded.

Weights are safetensors; pickles and the folder's own Python code are refused unless the user trusts them.
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edgekit.errors import CheckpointError, RefusedError, UnknownNameError
from edgekit.extras import require
from edgekit.program import MODEL_TASKS, Pooling, SourceOptions, SourceRef, Task
from edgekit.sources.hub_packages import packaged_model

PREFIX = "hf:"
TASKS: tuple[Task, ...] = tuple(task for task in get_args(Task) if task not in (*MODEL_TASKS, "custom"))
TEXT_TASKS = tuple(task for task in TASKS if task != "image-classification")
DEFAULT_LENGTH = 128
_ALIASES = {"text2text-generation": "translation"}

_CONFIG = "config.json"
#: files that decide what a model answers
_DECISIVE = ("*.json", "*.txt", "*.model", "*.safetensors", "*/config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
#: models that number positions from `pad_token_id` + 1
_SHIFTED = frozenset(["roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text", "xmod"])


@dataclass(frozen=True, kw_only=True)
class HubFolder:
    """A model folder and its configuration: `name` for bundles, `parameters` how many weights, `longest` in tokens."""

    path: Path
    name: str
    config: dict[str, Any]
    parameters: int
    longest: int


def find_hub_folder(reference: str, *, trust_remote_code: bool = False) -> HubFolder:
    """The folder that `hf:PATH` names, that of an installed package `hf:NAME`, or a download of an id, checked.

    Raises CheckpointError for a folder that is incomplete or broken, RefusedError for weights that are pickles, code of
    the folder's own, or an id that can't be fetched.
    """
    named = reference.removeprefix(PREFIX)
    given = Path(named).expanduser()
    path = given if given.is_dir() else packaged_model(named) or _fetch(named)
    config = _read_json(path / _CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{path / _CONFIG} names no model_type: it is no model of transformers")
    if not trust_remote_code:
        _check_safe(path, config)
    own = path.resolve()
    name = (own.parent if own.name == "model" else own).name if given.is_dir() else named
    return HubFolder(
        path=own,
        name=name.replace("/", "--"),
        config=config,
        parameters=_count_parameters(path),
        longest=_longest(path, config),
    )


def hub_source(
    folder: HubFolder,
    task: str,
    *,
    length: int | None = None,
    pooling: str = "none",
    normalize: bool = False,
    trust_remote_code: bool = False,
) -> SourceRef:
    """Name the model for a task; `pooling` "auto" is what the folder's own sentence-transformers files say.

    Raises UnknownNameError for a task or pooling that there is none of, RefusedError for options that the task has no
    use for or a length that the model can't take.
    """
    task = _ALIASES.get(task, task)
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    if pooling not in (*get_args(Pooling), "auto"):
        raise UnknownNameError("pooling", pooling, (*get_args(Pooling), "auto"))
    if task != "feature-extraction" and (pooling != "none" or normalize):
        raise RefusedError(f"--pooling and --normalize are of --task feature-extraction: {task} gives no embedding")
    if task not in TEXT_TASKS and length is not None:
        raise RefusedError(f"--sequence-length has no use for --task {task}")
    if length is not None and length > folder.longest:
        raise RefusedError(f"{folder.name} takes no more than {folder.longest} tokens, not {length}")
    if pooling == "auto":
        pooling, normalize = read_pooling(folder.path)
    if normalize and pooling == "none":
        raise RefusedError("--normalize is of one embedding: say which with --pooling mean, cls or max")
    options = {
        "length": (length or min(DEFAULT_LENGTH, folder.longest)) if task in TEXT_TASKS else None,
        "pooling": pooling,
        "normalize": normalize,
        "trust_remote_code": trust_remote_code,
    }
    return SourceRef(
        kind="huggingface",
        path=str(folder.path),
        framework="torch",
        task=task,
        sha256=hub_sha256(folder.path),
        options=SourceOptions.model_validate(options),
    )


def hub_sha256(path: Path) -> str:
    """The sha256 of what makes the model's answers: weights, configuration, tokenizer and code."""
    digest = hashlib.sha256()
    patterns = (*_DECISIVE, *_PICKLES, "*.py")
    for file in sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()}):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def read_pooling(path: Path) -> tuple[str, bool]:
    """Pooling and whether the embedding is normalized, as sentence-transformers' modules.json says.

    Raises CheckpointError where there is none, RefusedError for modules or poolings that edgekit has not.
    """
    if not (path / "modules.json").is_file():
        raise CheckpointError(f"{path} has no modules.json of sentence-transformers: give --pooling mean, cls or max")
    modules = _read_json(path / "modules.json")
    pooling, normalize = "none", False
    for module in modules if isinstance(modules, list) else ():
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_of(_read_json(path / str(module.get("path")) / _CONFIG), path)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise RefusedError(f"{path / 'modules.json'} has a {kind}, which --pooling auto does not build")
    return pooling, normalize


def _pooling_of(config: dict[str, Any], path: Path) -> str:
    """The one mode that 1_Pooling/config.json turns on."""
    names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    on = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True and "pooling_mode" in key]
    on += [str(config["pooling_mode"])] if isinstance(config.get("pooling_mode"), str) else []
    if len(on) != 1 or names.get(on[0], on[0]) not in get_args(Pooling):
        raise RefusedError(f"{path}: its pooling is {' and '.join(on) or 'not said'}; edgekit has mean, cls or max")
    return names.get(on[0], on[0])


def _fetch(named: str) -> Path:
    """Download a model by its id, or find it in Hugging Face's cache; safetensors and plain files only."""
    if named.startswith((".", "/", "~")) or named.count("/") > 1:
        raise CheckpointError(f"there is no folder {named}")
    hub = require("huggingface_hub", f"fetching {PREFIX}{named}")
    try:
        return Path(hub.snapshot_download(named, allow_patterns=list(_DECISIVE)))
    except Exception as error:  # httpx, OSError, ValueError and its own, by version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RefusedError(
            f"{PREFIX}{named} is no folder here and can't be fetched as a model of the Hugging Face hub ({reason}): "
            f"without a network give a folder that holds it, {PREFIX}path/to/folder"
        ) from error


def _check_safe(path: Path, config: dict[str, Any]) -> None:
    if config.get("auto_map"):
        raise RefusedError(
            f"{path} is built by Python code of its own (auto_map in {_CONFIG}): read it, then say --trust-remote-code"
        )
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        raise RefusedError(
            f"{path / pickles[0]} can run code and is not loaded: save the model as model.safetensors "
            "(save_pretrained does), or say --trust-remote-code"
        )
    raise CheckpointError(f"{path} has no model.safetensors: it is not complete")


def _count_parameters(path: Path) -> int:
    """How many weights there are, by the headers of the safetensors files; 0 where there are none."""
    total = 0
    for file in sorted(path.glob("*.safetensors")):
        try:
            with file.open("rb") as stream:
                (size,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(size, 100_000_000)))
            total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} is truncated or not safetensors") from error
    return total


def _longest(path: Path, config: dict[str, Any]) -> int:
    """The longest text in tokens: the least of what the tokenizer, sentence-transformers and the positions allow."""
    shift = int(config.get("pad_token_id") or 0) + 1 if config["model_type"] in _SHIFTED else 0
    known = [
        _optional(path / "tokenizer_config.json").get("model_max_length"),
        _optional(path / "sentence_bert_config.json").get("max_seq_length"),
        (config.get("max_position_embeddings") or 0) - shift,
    ]
    return int(min([n for n in known if isinstance(n, (int, float)) and 0 < n < 1_000_000], default=DEFAULT_LENGTH))


def _optional(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}: it is no complete model of Hugging Face") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}") from error
