"""The README of a bundle: how to call its file from Python, Kotlin, Swift and C++, with its own names and shapes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgekit.bundle import LABELS, README, TOKENIZER, TextEnds, TextRules
from edgekit.export.targets import TARGETS
from edgekit.export.writer_snippets import told_rules, writer_facts
from edgekit.program import HUB_WRITERS, Signature, Task, TensorSpec

_RUNTIMES = {
    "tflite": "ai-edge-litert",
    "onnx": "onnxruntime",
    "coreml": "coremltools",
    "savedmodel": "tensorflow",
    "pt2": "torch",
}


def write_snippets(
    folder: Path,
    name: str,
    task: Task,
    target: str,
    signatures: Sequence[Signature],
    *,
    text_ends: TextEnds | None = None,
    text_rules: TextRules | None = None,
) -> None:
    """Write README.md for a bundle that already has its tokenizer and labels; ends and rules as in the manifest."""
    environment = Environment(loader=PackageLoader("edgekit.export"), undefined=StrictUndefined, trim_blocks=False)
    if any(signature.states for signature in signatures):
        verb, packages = HUB_WRITERS.get(task, task), _packages(target, text=True)
        facts = writer_facts(name, verb, target, signatures, packages, text_ends) | told_rules(text_rules)
        page, python = "write.md", f"{target}_write.py.jinja"
    else:
        facts = _facts(folder, name, task, target, signatures)
        page, python = "bundle.md", "call.py.jinja"
    facts["python"] = environment.get_template(python).render(facts).lstrip()
    text = environment.get_template(page).render(facts)
    (folder / README).write_text(text.rstrip() + "\n", encoding="utf-8")


def python_snippet(folder: Path) -> str:
    """The Python code of a bundle's README, as a user copies it."""
    return (folder / README).read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def _facts(folder: Path, name: str, task: Task, target: str, signatures: Sequence[Signature]) -> dict[str, Any]:
    first = signatures[0]
    names = [spec.name for spec in first.inputs]
    text = (folder / TOKENIZER).is_file()
    pad_id = _pad_id(folder / TOKENIZER) if text else 0
    return {
        "name": name,
        "task": task,
        "target": target,
        "model": TARGETS[target].file,
        "signature": first,
        "dynamic": first.dynamic_length,
        "lengths": {each.inputs[0].shape[1]: each.name for each in reversed(signatures)} if text else {},
        "input_names": names,
        "text": text,
        "image": task == "image-classification",
        "pairs": task == "question-answering",
        "labels": (folder / LABELS).is_file(),
        "by_token": task == "token-classification",
        "pad_id": pad_id,
        "packages": _packages(target, text=text),
        "columns": {
            "ids": f"encoding.ids + [{pad_id}] * padding",
            "mask": "[1] * len(encoding.ids) + [0] * padding",
            "token_types": "encoding.type_ids + [0] * padding",
        },
        "kotlin_zeros": _kotlin_zeros,
        "kotlin_name": _camel_case,
    }


def _packages(target: str, *, text: bool) -> str:
    """What pip installs for the Python code."""
    return " ".join([_RUNTIMES[target], "numpy", *(["tokenizers"] if text else [])])


def _pad_id(tokenizer: Path) -> int:
    padding = json.loads(tokenizer.read_bytes()).get("padding")
    return int(padding["pad_id"]) if padding else 0


def _kotlin_zeros(spec: TensorSpec) -> str:
    """Nested arrays of a tensor's shape: Array(1) { IntArray(128) }."""
    *outer, last = spec.shape or (1,)
    arrays = "".join(f"Array({size}) {{ " for size in outer)
    kind = "IntArray" if spec.dtype == "int32" else "FloatArray"
    return f"{arrays}{kind}({last}){' }' * len(outer)}"


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
