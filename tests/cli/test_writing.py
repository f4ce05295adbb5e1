"""`edgekit generate` and `edgekit translate`: texts as they come, from real files in real runtimes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.bundle import find_bundles, open_bundle
from edgekit.model.decoder_pytorch import Decoder, EncoderDecoder, build_model, cached_step
from edgekit.model.greedy import greedy_ids
from edgekit.text.processor import BOS_ID, EOS_ID, pad_ids
from tests.cli.conftest import Edgekit
from tests.devices.writers import CONTEXT, write_onnx_bundle, write_tflite_bundle, writer_checkpoint
from tests.rigs.adb_phone import AdbPhone
from tests.rigs.machine import PYTHON
from tests.rigs.ssh_board import SshBoard

import numpy as np  # isort: skip

TEXT = "Save"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of both tasks, and bundles: of the decoder in both formats, of the translator in TFLite."""
    folder = tmp_path_factory.mktemp("writers")
    writer, translator = writer_checkpoint(folder, "generate"), writer_checkpoint(folder, "translate")
    write_onnx_bundle(folder, writer)
    write_tflite_bundle(folder, writer)
    write_tflite_bundle(folder, translator)
    return folder


def expected(folder: Path, task: str, text: str, tokens: int) -> str:
    """What the model itself writes, by its own greedy decoding."""
    from edgekit.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / task)
    model = build_model(checkpoint.config, checkpoint.weights)
    assert isinstance(model, Decoder | EncoderDecoder)
    (ids,) = checkpoint.processor.encode([text])
    source = pad_ids([ids], CONTEXT) if task == "translate" else None
    prompt = np.array([[BOS_ID] if source else ids], np.int32)
    (found,) = greedy_ids(cached_step(model, 1, source), prompt, max_length=CONTEXT, stop_id=EOS_ID)
    return checkpoint.processor.decode(found[:tokens])


@pytest.mark.parametrize("name", ["generate", "generate.onnx-none.edgekit", "generate.tflite-none.edgekit"])
def test_greedy_text_is_the_models_whatever_runs_it(name: str, folder: Path, edgekit: Edgekit) -> None:
    shown = edgekit("generate", folder / name, TEXT, "--max-new-tokens", "12")
    assert shown.code == 0, shown.err
    assert shown.out == expected(folder, "generate", TEXT, 12) + "\n"
    assert "12 tokens, " in shown.err
    assert "tokens/s" in shown.err
    assert "the text ended at --max-new-tokens 12" in shown.err


@pytest.mark.parametrize("name", ["translate", "translate.tflite-none.edgekit"])
def test_translations_are_the_models_own(name: str, folder: Path, edgekit: Edgekit) -> None:
    shown = edgekit("translate", folder / name, "Save", "Delete it", "--max-new-tokens", "9", "--json")
    assert shown.code == 0, shown.err
    texts = shown.json()
    assert [each["prompt"] for each in texts] == ["Save", "Delete it"]
    for each in texts:
        assert each["text"] == expected(folder, "translate", each["prompt"], 9)
        assert each["ended"] == "length"
        assert len(each["ids"]) == 9
        assert 0 < each["first_token_ms"] < each["total_ms"]
    assert texts[0]["text"] != texts[1]["text"]


@pytest.mark.slow
def test_a_text_that_ends_in_half_a_character_comes_whole_before_the_next(folder: Path, edgekit: Edgekit) -> None:
    texts = ("a", "open it", "close the door now")
    shown = edgekit("translate", folder / "translate.tflite-none.edgekit", *texts)
    wanted = [expected(folder, "translate", text, 64) for text in texts]
    assert any(text.endswith("\ufffd") for text in wanted[:-1])
    assert shown.out == "".join(f"{text}\n" for text in wanted)


def test_a_translator_in_a_folder_of_onnx_graphs(folder: Path, edgekit: Edgekit) -> None:
    from edgekit.checkpoint import load_checkpoint

    bundle = write_onnx_bundle(folder, load_checkpoint(folder / "translate"))
    for options in ((), ("--num-beams", "3")):
        by_onnx, by_tflite = (
            edgekit("translate", path, "Save", "--max-new-tokens", "9", "--json", *options)
            for path in (bundle.path, folder / "translate.tflite-none.edgekit")
        )
        assert by_onnx.json()[0]["ids"] == by_tflite.json()[0]["ids"]


def test_beams_and_chance(folder: Path, edgekit: Edgekit) -> None:
    def ids(*options: str) -> list[int]:
        shown = edgekit(
            "generate", folder / "generate.onnx-none.edgekit", TEXT, "--json", "--max-new-tokens", "10", *options
        )
        assert shown.code == 0, shown.err
        found: list[int] = shown.json()[0]["ids"]
        return found

    first = ids("--temperature", "2", "--seed", "3")
    assert ids("--temperature", "2", "--seed", "3") == first
    assert ids("--temperature", "2", "--seed", "4") != first
    assert ids("--top-k", "1") == ids()  # chance among one is none
    assert ids("--num-beams", "4") != ids()
    refused = edgekit("generate", folder / "generate", TEXT, "--num-beams", "2", "--top-k", "5")
    assert refused.code == 2


def test_texts_that_are_too_long_or_empty(folder: Path, edgekit: Edgekit) -> None:
    for name in ("generate", "generate.onnx-none.edgekit", "generate.tflite-none.edgekit"):
        long = edgekit("generate", folder / name, "x" * 40)
        assert long.code == 1
        assert f"the prompt has 41 tokens, the model reads {CONTEXT} at most; --on-long-prompt slide" in long.err
        slid = edgekit("generate", folder / name, "x" * 40, "--on-long-prompt", "slide", "--max-new-tokens", "5")
        assert slid.code == 0, slid.err
        assert "the text forgot the oldest tokens" in slid.err
        empty = edgekit("generate", folder / name, "", "--max-new-tokens", "3", "--json")
        assert len(empty.json()[0]["ids"]) == 3
        full = edgekit("generate", folder / name, "x" * 20, "--max-new-tokens", "9")
        assert full.code == 0
        assert "the text ended where the context is full" in full.err
    nothing = edgekit("translate", folder / "translate.tflite-none.edgekit", "Save", " ")
    assert (nothing.code, nothing.out) == (1, "")
    assert "there is no text to translate" in nothing.err
    long = edgekit("translate", folder / "translate.tflite-none.edgekit", "x" * 40)
    assert f"the source text has 41 tokens, the model reads {CONTEXT} at most: shorten it" in long.err
    wrong = edgekit("generate", folder / "generate", TEXT, "--on-long-prompt", "cut")
    assert (wrong.code, "'cut' is none of refuse, slide" in wrong.err) == (2, True)


def test_models_of_other_tasks_name_their_verb(folder: Path, edgekit: Edgekit) -> None:
    for verb, name, way in (
        ("translate", "generate.onnx-none.edgekit", "edgekit generate"),
        ("generate", "translate", "edgekit translate"),
    ):
        shown = edgekit(verb, folder / name, TEXT)
        assert (shown.code, way in shown.err) == (1, True)


def test_a_prompt_on_standard_input(folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "edgekit", "generate", str(folder / "generate.onnx-none.edgekit"), "-"]
    shown = subprocess.run(
        [*command, "--max-new-tokens", "12"], input=TEXT.encode() + b"\n", capture_output=True, check=True
    )
    assert shown.stdout.decode() == expected(folder, "generate", TEXT, 12) + "\n"
    broken = subprocess.run(command, input=b"\xff", capture_output=True, check=False)
    assert broken.returncode == 1
    assert b"not UTF-8" in broken.stderr


def test_ctrl_c_in_the_middle_keeps_what_was_written_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    endless = ("--on-long-prompt", "slide", "--max-new-tokens", "100000000", "--temperature", "1")
    command = [sys.executable, "-P", "-m", "edgekit", "generate", str(folder / "generate.onnx-none.edgekit"), TEXT]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as running:
        assert running.stdout
        first = os.read(running.stdout.fileno(), 1)  # as soon as there is a character, it is shown
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert b"Interrupted: what was written stays." in said
    assert b"Traceback" not in said
    (first + rest).decode()  # no half character
    assert (first + rest).endswith(b"\n")
    deadline = time.monotonic() + 10
    while _jobs_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _jobs_in(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir() if "edgekit" in path.name] == []


def _jobs_in(folder: Path) -> list[str]:
    """Processes whose arguments name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:  # it has ended
            continue
        if str(folder).encode() in arguments:
            found.append(path.parent.name)
    return found


def test_a_board_writes_the_same(folder: Path, edgekit: Edgekit, ssh_board: SshBoard) -> None:
    bundle = folder / "generate.onnx-none.edgekit"
    shown = edgekit("generate", bundle, TEXT, "--max-new-tokens", "12", "--device", ssh_board.name)
    assert shown.code == 0, shown.err
    assert shown.out == expected(folder, "generate", TEXT, 12) + "\n"
    refused = edgekit("generate", bundle, "x" * 40, "--device", ssh_board.name)
    assert refused.code == 1
    assert "the model reads 24 at most" in refused.err


def test_a_phone_with_python_writes_the_same(
    folder: Path, edgekit: Edgekit, adb_phone: AdbPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = tmp_path / "devices.toml"
    devices.write_text(f'[phone]\naddress = "{adb_phone.address}"\npython = "{PYTHON}"\n')
    monkeypatch.setenv("EDGEKIT_DEVICES", str(devices))
    bundle = folder / "generate.onnx-none.edgekit"
    shown = edgekit("generate", bundle, TEXT, "--max-new-tokens", "12", "--device", "phone")
    assert shown.code == 0, shown.err
    assert shown.out == expected(folder, "generate", TEXT, 12) + "\n"
    refused = edgekit("generate", bundle, "x" * 40, "--device", "phone")
    assert refused.code == 1
    assert "the model reads 24 at most" in refused.err


@pytest.mark.slow
def test_a_translator_reads_short_texts_by_signatures_of_their_length(folder: Path, edgekit: Edgekit) -> None:
    options = ("--target", "tflite", "--via", "torch,tensorflow", "--sequence-length", "6,12", "--eval-samples", "4")
    made = edgekit("export", folder / "translate", *options)
    assert made.code == 0, made.err
    texts = ("a", "open it", "close the door now")
    for bundle in find_bundles(Path("bundles")):
        written = open_bundle(bundle).manifest.written
        assert written is not None
        assert written.tokens_equal == written.tokens
        names = [each.name for each in open_bundle(bundle).manifest.signatures]
        assert names == ["encode_6", "encode_12", "encode", "decode"]
        shown = edgekit("translate", bundle, *texts)
        assert shown.out == "".join(expected(folder, "translate", text, 64) + "\n" for text in texts)
    refused = edgekit("export", folder / "translate", "--target", "coreml", "--sequence-length", "6")
    assert "leave coreml out" in refused.err
    refused = edgekit("export", folder / "translate", "--target", "tflite", "--sequence-length", str(CONTEXT + 1))
    assert f"--sequence-length {CONTEXT + 1} is over the model's {CONTEXT} tokens" in refused.err
