"""The six exports of export_speed.py by edgekit, in a process of their own; tells each stage on a line of its own.

    python benchmarks/export_speed_ours.py CHECKPOINT LENGTH|default FOLDER CACHE [SCHEME]

One command of `edgekit export` has the same schemes for all targets, and Core ML has no int8-dynamic: hence this.
"""

import sys
from pathlib import Path

from edgekit.cache import Cache
from edgekit.checkpoint import load_checkpoint
from edgekit.export.coreml_options import CoremlOptions
from edgekit.export.lengths import default_lengths
from edgekit.export.pipeline import export_checkpoint
from edgekit.export.plan import plan_exports

CACHE_BYTES = 10**9


def main(source: str, lengths: str, folder: str, cache: str, *scheme: str) -> None:
    """Export in float32 and int8, or in `scheme` alone; exit with 1 where one fails."""
    checkpoint = load_checkpoint(Path(source))
    kept = Cache(Path(cache), max_bytes=CACHE_BYTES, on_remark=print)
    chosen = lengths == "default"
    given = default_lengths(checkpoint, 500, cache=kept).lengths if chosen else (int(lengths),)
    plans = [
        plan
        for targets, schemes in ((("tflite", "onnx"), ("none", "int8-dynamic")), (("coreml",), ("none", "int8-weight")))
        for plan in plan_exports(
            checkpoint.name,
            checkpoint.config,
            targets=targets,
            schemes=scheme or schemes,
            output=Path(folder),
            coreml=CoremlOptions(),
            lengths=given,
            by_default=chosen,
        )
    ]
    outcomes = export_checkpoint(
        checkpoint, plans, cache=kept, on_stage=lambda name, stage: print(f"{name}: {stage}", flush=True)
    )
    sys.exit(0 if all(outcome.ok for outcome in outcomes) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
