"""Checkpoints: what is written comes back, and each way to break one gives one clear line."""

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgekit.checkpoint import Checkpoint, content_sha256, load_checkpoint, save_checkpoint
from edgekit.errors import CheckpointError, OutputError
from edgekit.model.sizes import named_config
from edgekit.model.weights import initial_weights
from edgekit.text.datasets import DataRecord
from edgekit.text.processor import train_processor

RECORD = DataRecord(source="ui-strings", version="Django 5.2.19", sha256="0" * 64, labels=("de", "en"))


def make_checkpoint(**changes: object) -> Checkpoint:
    processor = train_processor("byte", (), 259, max_length=16)
    config = named_config("nano", vocab_size=259, num_labels=2, max_length=16, hidden_size=8, num_heads=2, ffn_size=8)
    checkpoint = Checkpoint(
        path=Path("x"),
        name="x",
        framework="tensorflow",
        config=config,
        weights=initial_weights(config, 0),
        processor=processor,
        labels=("de", "en"),
        data=RECORD,
        metrics={"accuracy": 0.5},
    )
    return dataclasses.replace(checkpoint, **changes)  # type: ignore[arg-type]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(make_checkpoint(), tmp_path / "model")
    return tmp_path / "model"


def change_weights(folder: Path, **tensors: object) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor is None:
            del weights[name]
        else:
            weights[name] = np.asarray(tensor)
    save_file(weights, folder / "model.safetensors")


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(saved: Path) -> None:
    first, again = make_checkpoint(), load_checkpoint(saved)
    assert again.config == first.config
    assert again.labels == first.labels
    assert (again.framework, again.name, again.metrics) == ("tensorflow", "model", {"accuracy": 0.5})
    assert again.data == RECORD
    assert again.processor.encode(["aé"]) == first.processor.encode(["aé"])
    for name, tensor in first.weights.items():
        np.testing.assert_array_equal(again.weights[name], tensor)


def test_data_and_metrics_may_be_absent(tmp_path: Path) -> None:
    save_checkpoint(make_checkpoint(data=None, metrics=None), tmp_path / "m")
    loaded = load_checkpoint(tmp_path / "m")
    assert loaded.data is None
    assert loaded.metrics is None


def test_existing_folder_is_kept_unless_forced(saved: Path) -> None:
    before = content_sha256(saved)
    with pytest.raises(OutputError, match="--force"):
        save_checkpoint(make_checkpoint(labels=("fr", "it")), saved)
    assert content_sha256(saved) == before
    save_checkpoint(make_checkpoint(labels=("fr", "it")), saved, force=True)
    assert load_checkpoint(saved).labels == ("fr", "it")


def test_bad_weights_are_not_written(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    checkpoint.weights["classifier.bias"][0] = np.nan
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        save_checkpoint(checkpoint, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_content_hash_is_of_what_answers(saved: Path) -> None:
    before = content_sha256(saved)
    (saved / "metrics.json").write_text("{}")
    assert content_sha256(saved) == before
    (saved / "labels.json").write_text('["en", "de"]')
    assert content_sha256(saved) != before


def test_missing_folder_and_files(saved: Path) -> None:
    assert "there is no checkpoint" in refusal(saved / "nowhere")
    for name in ("labels.json", "tokenizer.json", "model.safetensors", "config.json"):
        (saved / name).unlink()
        assert name in refusal(saved)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"classifier.bias": None}, ["classifier.bias", "lack"]),
        ({"extra.bias": np.zeros(2, np.float32)}, ["extra.bias"]),
        ({"classifier.bias": np.zeros(3, np.float32)}, ["classifier.bias", "[3]", "[2]"]),
        ({"classifier.bias": np.array([0, np.nan], np.float32)}, ["classifier.bias", "NaN"]),
        ({"classifier.bias": np.zeros(2, np.float64)}, ["classifier.bias", "float64"]),
    ],
)
def test_bad_tensors(saved: Path, tensors: dict[str, object], words: list[str]) -> None:
    change_weights(saved, **tensors)
    message = refusal(saved)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("size", [0, 5, 200, -7])
def test_truncated_weights(saved: Path, size: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "truncated or not safetensors" in refusal(saved)


def test_bfloat16_weights_are_refused(saved: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (saved / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    assert "model.safetensors" in refusal(saved)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path) -> None:
    weights = saved / "model.safetensors"
    for protocol in (2, 3, 4, 5):
        weights.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
        assert "pickle" in refusal(saved)
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    assert "pickle" in refusal(saved)
    weights.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 64)
    assert "HDF5" in refusal(saved)
    weights.unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "pytorch_model.bin" in refusal(saved)
    for suffix in ("pt", "pth", "ckpt", "pkl", "h5"):
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(pickle.dumps(Bomb()))
        assert "can run code" in refusal(path)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("config.json", "{", "invalid"),
        ("config.json", "[]", "invalid"),
        ("config.json", '{"framework": "jax", "model": {}}', "framework"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer.json", "\xff", "not a tokenizer"),
        ("labels.json", '["de", "en", "fr"]', "3 different labels"),
        ("labels.json", '["de", "de"]', "1 different labels"),
        ("labels.json", '{"de": 0}', "list of strings"),
        ("labels.json", "de", "not JSON"),
        ("data.json", "{}", "source"),
        ("metrics.json", "[1", "not JSON"),
        ("metrics.json", "[1]", "not a JSON object"),
    ],
)
def test_broken_files(saved: Path, name: str, text: str, word: str) -> None:
    (saved / name).write_text(text, encoding="latin-1")
    message = refusal(saved)
    assert name in message
    assert word in message


@pytest.mark.parametrize("field", ["vocab_size", "max_length"])
def test_config_must_fit_the_tokenizer(saved: Path, field: str) -> None:
    header = json.loads((saved / "config.json").read_text())
    header["model"][field] -= 1
    (saved / "config.json").write_text(json.dumps(header))
    table = "embed.tokens.weight" if field == "vocab_size" else "embed.positions.weight"
    weights = load_file(saved / "model.safetensors")
    change_weights(saved, **{table: weights[table][:-1]})
    assert "tokenizer.json" in refusal(saved)
