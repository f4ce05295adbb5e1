"""Which architectures of Hugging Face go to which target in which scheme, and what stands in the way of the others.

python benchmarks/hf_zoo.py             all rows, into the README (some twenty minutes); goes on where it was stopped
python benchmarks/hf_zoo.py bert vit    these rows anew
python benchmarks/hf_zoo.py --check     one row again, compared with the saved one (what CI runs)

Models are small, with a small tokenizer, and trained for seconds, so that they are sure of their labels. How well a
scheme keeps a real model's answers benchmarks/minilm.py shows.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import hf_zoo_training
import tables

from edgekit.report.markdown import markdown_table

sys.path.insert(0, str(tables.ROOT))
from tests.hub_models import save_tokenizer

COMMAND = "python benchmarks/hf_zoo.py"
CHECKED = "distilbert"
#: of texts, in tokens: one, as the tokenizer's own longest; benchmarks/peers.py measures several
LENGTH = "24"
#: texts of the proof: all that edgekit carries for a model whose data it doesn't know
TEXTS = "64"
#: target → schemes; Core ML's quantizer has no int8 activations on Linux
CELLS = {
    "tflite": ("none", "fp16", "int8-dynamic", "int8"),
    "onnx": ("none", "fp16", "int8-dynamic", "int8"),
    "coreml": ("none", "fp16", "int8-weight"),
}
_TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "initializer_range": 0.1,
}
_DISTIL = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 128,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 32,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
}
_MOBILE = {"embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 2}
_VIT = {name: value for name, value in _TEXT.items() if name != "max_position_embeddings"}
#: name → title, transformers' configuration, its options
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BERT", "BertConfig", _TEXT),
    "roberta": ("RoBERTa", "RobertaConfig", _TEXT),
    "distilbert": ("DistilBERT", "DistilBertConfig", _DISTIL),
    "electra": ("ELECTRA", "ElectraConfig", _TEXT | {"embedding_size": 32}),
    "albert": ("ALBERT", "AlbertConfig", _TEXT | {"embedding_size": 32}),
    "mobilebert": ("MobileBERT", "MobileBertConfig", _TEXT | _MOBILE),
    "deberta-v2": ("DeBERTa-v2", "DebertaV2Config", _TEXT | _DEBERTA),
    "mpnet": ("MPNet", "MPNetConfig", _TEXT),
    "camembert": ("CamemBERT", "CamembertConfig", _TEXT),
    "xlm-roberta": ("XLM-R", "XLMRobertaConfig", _TEXT),
    "vit": ("ViT", "ViTConfig", _VIT | {"image_size": 32, "patch_size": 8}),
}


def main() -> None:
    """Measure what is not saved yet, save after each model, and print."""
    if "--check" in sys.argv:
        check_one_row()
        return
    rows = saved_rows()
    for name in sys.argv[1:] or [name for name in MODELS if name not in {row["model"] for row in rows}]:
        made = measure(name)
        rows = [row for row in rows if row["model"] != name] + made
        rows.sort(key=lambda row: list(MODELS).index(row["model"]))
        tables.save_result("hf_zoo", COMMAND, rows)
        put_table(rows)
        print(" | ".join(as_cells(name, rows)), flush=True)


def saved_rows() -> list[dict[str, Any]]:
    """What an earlier run kept."""
    path = tables.RESULTS / "hf_zoo.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def measure(name: str, cells: dict[str, tuple[str, ...]] | None = None) -> list[dict[str, Any]]:
    """Export one model to every target and scheme; a row for each."""
    folder = make_model(name)
    task = "image-classification" if name == "vit" else "text-classification"
    output = tables.WORK / f"hf-zoo-{name}"
    shutil.rmtree(output, ignore_errors=True)
    rows = []
    for target, schemes in (cells or CELLS).items():
        options = ("--target", target, "--quantize", ",".join(schemes), "--eval-samples", TEXTS)
        options += () if name == "vit" else ("--sequence-length", LENGTH)
        outcomes = tables.edgekit("export", f"hf:{folder}", "--task", task, *options, "-o", output)
        rows += [row_of(name, outcome) for outcome in outcomes]
    return rows


def row_of(name: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """What the table says of one cell."""
    parity = (outcome["manifest"] or {}).get("parity", {})
    why = outcome["error"].split(" (log:")[0] if outcome["error"] else parity.get("note", "")
    if not outcome["ok"] and not why:
        why = f"|Δ| {parity['max_abs_difference']:.1e} is over the tolerance {parity['tolerance']:.1e}"
    return {
        "model": name,
        "target": outcome["target"],
        "scheme": outcome["scheme"],
        "ok": outcome["ok"],
        "why": "" if outcome["ok"] else why,
        "max_abs_difference": parity.get("max_abs_difference"),
        "max_abs_reference": parity.get("max_abs_reference"),
        "labels_changed": parity.get("labels_changed"),
        "steps": parity.get("steps"),
    }


def make_model(name: str) -> Path:
    """A folder with the model and its tokenizer, the same weights and ids every time."""
    import torch
    import transformers

    folder = tables.WORK / "hf-zoo" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _, config_name, options = MODELS[name]
    labels = {0: "no", 1: "yes", 2: "perhaps"}
    torch.manual_seed(0)
    if name == "vit":
        settings = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        config = transformers.ViTConfig(id2label=labels, **options)
        model = transformers.ViTForImageClassification(config)
        hf_zoo_training.train(model, *hf_zoo_training.image_inputs(config.image_size))
        model.save_pretrained(folder)
        return folder
    vocabulary = save_tokenizer(folder)
    config = getattr(transformers, config_name)(vocab_size=vocabulary, id2label=labels, pad_token_id=0, **options)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    hf_zoo_training.train(model, *hf_zoo_training.text_inputs(folder, int(LENGTH)))
    model.save_pretrained(folder)
    return folder


def as_cells(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A model's rows as one line of the README."""
    found = {(row["target"], row["scheme"]): row for row in rows if row["model"] == name}
    return [MODELS[name][0], *(cell(found.get((target, s))) for target, schemes in CELLS.items() for s in schemes)]


def cell(row: dict[str, Any] | None) -> str:
    """|Δ| relative to max(1, max |PyTorch|), or that it failed; the reason is below the table."""
    if row is None:
        return "not tried"
    if not row["ok"]:
        return "**failed**"
    return f"{row['max_abs_difference'] / max(1.0, row['max_abs_reference']):.0e}"


def put_table(rows: list[dict[str, Any]]) -> None:
    """The table and the reasons, into the README."""
    headers = ["model", *(f"{target} {scheme}" for target, schemes in CELLS.items() for scheme in schemes)]
    names = [name for name in MODELS if any(row["model"] == name for row in rows)]
    failed = [f"{MODELS[r['model']][0]}, {r['target']} {r['scheme']}: {r['why']}" for r in rows if not r["ok"]]
    missing = [title for name, (title, _, _) in MODELS.items() if name not in names]
    note = (
        f"Made by `{COMMAND}`: max |Δ| of the logits in units of max(1, max |PyTorch|), on {TEXTS} texts. The models "
        "are small, of random weights that were then trained for seconds to tell how long a text is, or how bright an "
        "image: without that they are undecided, and which labels change in int8 is chance. "
        "Core ML files were evaluated on Linux by edgekit, not on Apple hardware. "
        + (f"Failed: {'; '.join(failed)}." if failed else "None failed.")
        + (f" Not measured yet: {', '.join(missing)}." if missing else "")
    )
    tables.put_in_readme("hf_zoo", markdown_table(headers, [as_cells(name, rows) for name in names]), note)


def check_one_row() -> None:
    """Export one model to ONNX again and compare with the saved rows."""
    saved = [row for row in saved_rows() if (row["model"], row["target"]) == (CHECKED, "onnx")]
    now = measure(CHECKED, {"onnx": ("none", "fp16")})
    for row in now:
        was = next(each for each in saved if each["scheme"] == row["scheme"])
        if (row["ok"], row["labels_changed"], row["steps"]) != (was["ok"], was["labels_changed"], was["steps"]):
            raise SystemExit(f"a saved row of benchmarks/results/hf_zoo.json no longer holds: {row} was {was}")
    print(f"{CHECKED} to onnx: as saved")


if __name__ == "__main__":
    main()
