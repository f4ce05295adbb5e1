"""An .mlpackage on disk: its manifest, its specification and its blob files, read without macOS."""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.mil.blobs import BlobFiles
from edgekit.mil.failures import MilError

MANIFEST = "Manifest.json"
#: coremltools 9.0 imports these where they are installed: 6 s and 700 MB for libraries that nothing here needs
_UNNEEDED = ("sklearn", "tensorflow", "torch")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that holds an ML program: its specification (Model.proto) and its weights."""

    path: Path
    specification: Any
    blobs: BlobFiles


def hide_frameworks() -> None:
    """Keep coremltools from importing frameworks: for processes that evaluate and do nothing else."""
    for name in _UNNEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # an import of it raises ImportError


def package_paths(path: Path) -> dict[str, Path]:
    """The package by no name; of a folder of packages, which stand for functions of one, each by its own."""
    found = {} if (path / MANIFEST).exists() else {each.stem: each for each in sorted(path.glob("*.mlpackage"))}
    return found or {"": path}


def open_package(path: Path) -> Package:
    """Read a package's manifest and specification.

    Raises MilError("load-failed"): no package, a manifest that is broken or names files outside, a specification that
    is truncated or holds something else than an ML program; MilError("runtime-missing") without coremltools.
    """
    model = _model_file(path)
    logging.getLogger("coremltools").setLevel(logging.ERROR)  # it warns of its missing macOS library on every import
    try:
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MilError("runtime-missing", f"coremltools can't be imported: {error}") from error
    try:
        specification = Model_pb2.Model.FromString(model.read_bytes())
    except OSError as error:
        raise MilError("load-failed", f"can't read {model}: {error.strerror}") from error
    except DecodeError as error:
        raise MilError("load-failed", f"{model} is truncated or not a Core ML specification") from error
    kind = specification.WhichOneof("Type")
    if kind != "mlProgram":
        held = f"a model of type {kind}" if kind else "no model"
        raise MilError("load-failed", f"{path} holds no ML program but {held}: convert it with convert_to='mlprogram'")
    return Package(path=path, specification=specification, blobs=BlobFiles(model.parent))


def _model_file(path: Path) -> Path:
    """The specification that the manifest names as the root; every path in the manifest must stay inside."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise MilError("load-failed", f"{path} is no Core ML package: it has no {MANIFEST}")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        entries = {key: str(entry["path"]) for key, entry in content["itemInfoEntries"].items()}
        root = entries[content["rootModelIdentifier"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MilError("load-failed", f"{manifest} is broken: it does not say which file is the model") from error
    for relative in entries.values():
        _check_inside(path, relative)
    model = path / "Data" / root
    if not model.is_file():
        raise MilError("load-failed", f"can't read {model}: No such file or directory")
    return model


def _check_inside(path: Path, relative: str) -> None:
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
        raise MilError("load-failed", f"{path}: its manifest names a file outside the package: {relative!r}")
    step = path / "Data"
    for part in ("", *pure.parts):
        step = step / part
        if step.is_symlink():
            raise MilError("load-failed", f"{path}: {relative} is or goes through a symbolic link")
