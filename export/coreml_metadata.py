"""What Xcode shows of a package: author, license, descriptions of the model and of each input and output, labels."""

import json
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.describe_coreml import SPEC
from edgekit.extras import require

SCHEME = "edgekit.scheme"  # a key of the user-defined metadata
_WRITES = {
    "generate": "gives scores of the token that follows a text of token ids; its cache holds what was read.",
    "translate": "encode reads a text of token ids, decode gives scores of the next token of its translation.",
}
_PORTS = {
    "ids": "Token ids, padded to the right with 0: the tokenizer.json beside this package makes them.",
    "mask": "1 for a token, 0 for padding.",
    "logits": "One score for each label, in the order of the metadata's edgekit.labels; softmax gives probabilities.",
    "position": "How many tokens the cache holds.",
    "next_position": "How many tokens the cache holds after this call.",
    "source_ids": "Token ids of the text to translate, padded to the right with 0.",
    "source_mask": "1 for a token of the text to translate, 0 for padding.",
}


def describe_package(package: Path, options: CoremlOptions, scheme: str) -> None:
    """Write the descriptions into a package's specification; the program and its weights stay as they are.

    Labels are metadata, not Core ML's classifier, whose outputs (a label and a dictionary) would replace the logits.
    """
    proto = require("coremltools", "describing a Core ML package").proto.Model_pb2
    spec = proto.Model.FromString((package / SPEC).read_bytes())
    description = spec.description
    for function in [description, *description.functions]:
        for feature in (*function.input, *function.output):
            feature.shortDescription = _PORTS.get(feature.name, "")
    _fill(description.metadata, options, scheme)
    (package / SPEC).write_bytes(spec.SerializeToString(deterministic=True))


def _fill(metadata: Any, options: CoremlOptions, scheme: str) -> None:
    metadata.shortDescription = _what_it_does(options)
    _fill_rest(metadata, options, scheme)


def _what_it_does(options: CoremlOptions) -> str:
    if options.task in _WRITES:
        return f"{options.name or 'A text model'}: {_WRITES[options.task]}"
    labels = f"one of {len(options.labels)} labels" if options.labels else "a label"
    return f"{options.name or 'A text classifier'}: finds {labels} for a text of token ids."


def _fill_rest(metadata: Any, options: CoremlOptions, scheme: str) -> None:
    metadata.versionString = options.source_sha256[:12]
    metadata.author = options.author or f"exported by edgekit {__version__}"
    metadata.license = options.license
    metadata.userDefined["edgekit.version"] = __version__
    metadata.userDefined[SCHEME] = scheme
    metadata.userDefined["edgekit.source_sha256"] = options.source_sha256
    metadata.userDefined["edgekit.labels"] = json.dumps(options.labels, ensure_ascii=False)
    if options.sequence_lengths:
        metadata.userDefined["edgekit.sequence_lengths"] = ",".join(map(str, options.sequence_lengths))
