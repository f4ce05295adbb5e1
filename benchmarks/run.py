"""`make bench`: every benchmark, one after the other; each can be run by itself."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "language_id",
    "frameworks",
    "routes",
    "schemes",
    "lengths",
    "qat",
    "translation",
    "coreml_zoo",
    "minilm",
    "hf_zoo",
    "startup",
    "fidelity",
    "accelerators",
    "peers",
    "export_speed",
    "generation",
)


def main() -> None:
    """Run all (or those named); say at the end which failed."""
    failed = []
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n== {name} ==", flush=True)
        if subprocess.run([sys.executable, Path(__file__).parent / f"{name}.py"], check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
