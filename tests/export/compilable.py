"""A bundle of the tiny checkpoint's own files, sealed around what other tests have converted already."""

import shutil
from pathlib import Path

from edgekit.bundle import GOLDEN, LABELS, TOKENIZER, Accuracy, Bundle, Parity, open_bundle, seal_bundle, write_labels
from edgekit.export.targets import TARGETS
from edgekit.sources.checkpoint import checkpoint_source, encoder_signature
from tests.export.routes import LENGTH, Routes


def write_bundle(folder: Path, routes: Routes, file: Path, scheme: str = "none", target: str = "tflite") -> Bundle:
    """`tiny.TARGET-SCHEME.edgekit` in `folder`, whose golden data are the source module's own outputs."""
    checkpoint = routes.checkpoint
    name = f"tiny.{target}-{scheme}"
    path = folder / f"{name}.edgekit"
    path.mkdir(parents=True)
    shutil.copyfile(file, path / file.name)
    routes.golden("torch")
    shutil.copyfile(routes.folder / "golden-torch" / "golden.npz", path / GOLDEN)
    write_labels(path / LABELS, checkpoint.labels)
    checkpoint.processor.save(path / TOKENIZER)
    seal_bundle(
        path,
        name=name,
        task="classify",
        target=target,
        via="torch",
        scheme=scheme,
        scheme_details={},
        model=file.name,
        runtime=TARGETS[target].runtime,
        signatures=(encoder_signature(checkpoint, "torch"),),
        source=checkpoint_source(checkpoint.path, "torch"),
        tools={},
        parity=Parity(verdict="within-tolerance", steps=LENGTH, max_abs_difference=0.0),
        accuracy=Accuracy(accuracy=None, note="not measured: random weights"),
        golden_texts="made by hand",
    )
    return open_bundle(path)
