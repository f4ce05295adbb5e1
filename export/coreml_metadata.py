"""What Xcode shows of a package: author, license, descriptions of the model and of each input and output, labels."""

import json
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.describe_coreml import SPEC
from edgekit.extras import require

SCHEME = "edgekit.scheme"  # a key of the user-defined metadata
_PORTS = {
    "ids": "Token ids, padded to the right with 0: the tokenizer.json beside this package makes them.",
    "mask": "1 for a token, 0 for padding.",
    "logits": "One score for each label, in the order of the metadata's edgekit.labels; softmax gives probabilities.",
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
    labels = f"one of {len(options.labels)} labels" if options.labels else "a label"
    metadata.shortDescription = f"{options.name or 'A text classifier'}: finds {labels} for a text of token ids."
    metadata.versionString = options.source_sha256[:12]
    metadata.author = options.author or f"exported by edgekit {__version__}"
    metadata.license = options.license
    metadata.userDefined["edgekit.version"] = __version__
    metadata.userDefined[SCHEME] = scheme
    metadata.userDefined["edgekit.source_sha256"] = options.source_sha256
    metadata.userDefined["edgekit.labels"] = json.dumps(options.labels, ensure_ascii=False)
    if options.sequence_lengths:
        metadata.userDefined["edgekit.sequence_lengths"] = ",".join(map(str, options.sequence_lengths))
