"""Bundles: sealed, opened, checked byte for byte, and never led outside themselves."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import (
    MANIFEST,
    MANIFEST_SUM,
    Accuracy,
    Bundle,
    Parity,
    check_files,
    find_bundles,
    open_bundle,
    seal_bundle,
)
from edgekit.errors import BundleError
from edgekit.program import Signature, SourceRef, TensorSpec


def fields(**changes: Any) -> dict[str, Any]:
    signature = Signature(
        name="serving_default",
        method="forward",
        inputs=(TensorSpec(name="ids", dtype="int32", shape=(1, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 2)),),
    )
    source = SourceRef(kind="checkpoint", path="checkpoints/x", framework="torch", task="classify", sha256="0" * 64)
    made: dict[str, Any] = {
        "name": "x.tflite-none",
        "task": "classify",
        "target": "tflite",
        "via": "torch",
        "scheme": "none",
        "scheme_details": {},
        "model": "model.tflite",
        "runtime": "litert",
        "signatures": (signature,),
        "source": source,
        "tools": {},
        "parity": Parity(verdict="within-tolerance", steps=1),
        "accuracy": Accuracy(accuracy=None, note="not measured: a test"),
        "golden_texts": "a test",
    }
    return made | changes


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "x.tflite-none.edgekit"
    (folder / "part").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(bytes(range(256)))
    (folder / "part" / "labels.json").write_text('["a", "b"]')
    seal_bundle(folder, **fields())
    return open_bundle(folder)


def reseal(folder: Path, change: dict[str, Any]) -> None:
    """Write a manifest that is consistent with its own sum, as a hostile one would be."""
    manifest = json.loads((folder / MANIFEST).read_text()) | change
    raw = json.dumps(manifest)
    (folder / MANIFEST).write_text(raw)
    (folder / MANIFEST_SUM).write_text(f"{hashlib.sha256(raw.encode()).hexdigest()}  {MANIFEST}\n")


def small_bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"model")
    seal_bundle(folder, **fields())
    return folder


def test_a_sealed_bundle_opens_and_checks(bundle: Bundle) -> None:
    check_files(bundle)
    assert bundle.manifest.files.keys() == {"model.tflite", "part/labels.json"}
    assert bundle.model_size_bytes == 256
    assert find_bundles(bundle.path.parent) == [bundle.path]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_flipped_bit_is_found(bundle: Bundle, data: st.DataObject) -> None:
    files = sorted(p for p in bundle.path.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files))
    original = file.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    flipped = bytearray(original)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(flipped)
    try:
        with pytest.raises(BundleError):
            check_files(open_bundle(bundle.path))
    finally:
        file.write_bytes(original)


def test_missing_and_extra_files_are_named(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "x.edgekit")
    (folder / "stray").write_text("x")
    with pytest.raises(BundleError, match="stray is not in the manifest"):
        check_files(open_bundle(folder))
    (folder / "stray").unlink()
    opened = open_bundle(folder)
    (folder / "model.tflite").unlink()
    with pytest.raises(BundleError, match=r"model\.tflite is missing"):
        check_files(opened)
    with pytest.raises(BundleError, match=r"model\.tflite is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../secret", "a\\..\\secret", "C:secret", ""])
@pytest.mark.parametrize("field", ["files", "model"])
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str, field: str) -> None:
    folder = small_bundle(tmp_path / "x.edgekit")
    change = {"model": path} if field == "model" else {"files": {path: {"sha256": "0" * 64, "size_bytes": 1}}}
    reseal(folder, change)
    with pytest.raises(BundleError, match="not a path inside the bundle"):
        open_bundle(folder)


def test_links_are_refused(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "x.edgekit")
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "model.tflite").read_bytes())
    (folder / "model.tflite").unlink()
    (folder / "model.tflite").symlink_to(secret)
    with pytest.raises(BundleError, match="symbolic link"):
        open_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"edgekit": 2}', b"\xff\xfe"])
def test_broken_manifests_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    folder = small_bundle(tmp_path / "x.edgekit")
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="broken"):
        open_bundle(folder)


def test_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgekit export"):
        find_bundles(tmp_path)
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(tmp_path)
