"""A model of Hugging Face that an installed package carries, found by what the package says it installed."""

from importlib import metadata
from pathlib import Path

_CONFIG, _WEIGHTS = "config.json", ".safetensors"


def packaged_model(name: str) -> Path | None:
    """The one folder of the installed distribution `name` that holds a configuration beside safetensors, or None.

    None of the package's code is run.
    """
    try:
        files = metadata.distribution(name).files or []
    except (metadata.PackageNotFoundError, ValueError):
        return None
    weights = {file.parent for file in files if file.suffix == _WEIGHTS}
    found = [Path(str(file.locate())).parent for file in files if file.name == _CONFIG and file.parent in weights]
    return found[0] if len(found) == 1 and found[0].is_dir() else None
