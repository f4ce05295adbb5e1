"""The README of a bundle that writes texts: the loop from one token to the next, in Python, Kotlin, Swift and C++."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from edgekit.bundle import TextEnds, TextRules
from edgekit.export.targets import TARGETS
from edgekit.program import PAST, Signature, Task, TensorSpec
from edgekit.sources.writers import PREFILL
from edgekit.text.processor import BOS_ID, EOS_ID

#: characters of a setting's value that a README shows
_SHOWN = 60
_NUMBER = re.compile(r"\.\d+\.")


def writer_facts(
    name: str, task: Task, target: str, signatures: Sequence[Signature], packages: str, ends: TextEnds | None
) -> dict[str, Any]:
    """What the templates `write.md` and those of the target say; `ends` as in the manifest."""
    decode = next(each for each in signatures if each.states and any(spec.name == "logits" for spec in each.outputs))
    outputs = {spec.name: spec for spec in decode.outputs}
    cache = next(spec for spec in decode.inputs if spec.name in decode.states)
    sizes = [each.inputs[0].shape[1] for each in signatures if each.name.startswith(PREFILL)]
    return {
        "name": name,
        "task": task,
        "target": target,
        "model": TARGETS[target].file,
        "signatures": signatures,
        "ports": _ports,
        "prefill": [f"`{each.name}`" for each in signatures if each.name.startswith(PREFILL)],
        "prefill_sizes": sizes,
        "grows": any(PAST in spec.axes.values() for spec in decode.inputs),
        "stateful": decode.stateful,
        "single": decode.inputs[0].shape[-1] == 1,
        "longest": cache.shape[2],
        "cache_bytes": (1 if cache.dtype == "int8" else 4) * cache.shape[1] * cache.shape[2] * cache.shape[3],
        "vocab": outputs["logits"].shape[-1],
        "own": ends is None,
        "bos": ", ".join(map(str, ends.begin_ids if ends else [BOS_ID])),
        "eos": ", ".join(map(str, ends.stop_ids if ends else [EOS_ID])),
        "packages": packages,
    }


def told_rules(rules: TextRules | None) -> dict[str, str]:
    """Settings of the model that ask for more than the likeliest tokens: those that are followed, and others."""
    changed = rules.model_dump(mode="json", exclude_defaults=True) if rules else {}
    others = changed.pop("not_followed", [])
    changed.pop("begun", None)
    followed = [
        f"`{name}` ({json.dumps(value)[:_SHOWN]})" for name, value in changed.items() if name != "early_stopping"
    ]
    return {"followed": ", ".join(followed), "not_followed": ", ".join(f"`{name}`" for name in others)}


def _ports(specs: Sequence[TensorSpec]) -> Iterator[dict[str, object]]:
    """Rows of a table: one for all layers of a cache."""
    seen: dict[str, list[str]] = {}
    shapes = {}
    for spec in specs:
        pattern = _NUMBER.sub(".N.", spec.name)
        seen.setdefault(pattern, []).append(spec.name)
        shapes[pattern] = spec
    for pattern, names in seen.items():
        several = f" (N from 0 to {len(names) - 1})" if pattern not in names else ""
        spec = shapes[pattern]
        yield {"shown": f"`{pattern}`{several}", "dtype": spec.dtype, "shape": list(spec.shape)}
