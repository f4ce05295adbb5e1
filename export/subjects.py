"""What is exported, as the pipeline sees it: where its sources are, and what goes into a bundle beside the target file.

A checkpoint knows its signature, texts and labels beforehand. A foreign source (Hugging Face, a factory, a file) is
opened once by a worker, which finds them out: `prepare.py`.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from edgekit import bundle as bundles
from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint
from edgekit.export.prepare import CALIBRATION, Texts, read_prepared
from edgekit.export.quantize.calibration import Calibration, CalibrationRecord
from edgekit.program import FRAMEWORKS, Framework, Signature, SourceRef, Task
from edgekit.proof.prove import Samples, choose_samples
from edgekit.proof.tokens import write_tokens
from edgekit.sources.checkpoint import checkpoint_source, encoder_signature

UNLABELLED = "not measured: edgekit has no labelled data for this model"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the reference job left for all bundles: golden steps, the signature that they are of, labels, and what is
    known of the texts (`population` held-out examples that they were drawn from, `note` where there is no accuracy).
    """

    golden: Path
    signature: Signature
    labels: tuple[str, ...]
    origin: str
    population: int
    note: str
    calibration: CalibrationRecord | None = None

    def signature_of(self, route: Framework) -> Signature:
        """The signature as a route has it."""
        return signature_of(self.signature, route)


def signature_of(signature: Signature, route: Framework) -> Signature:
    """A signature as a route has it: its method is named by the framework."""
    return signature.model_copy(update={"method": "forward" if route == "torch" else "call"})


class Subject(Protocol):
    """Something to export."""

    @property
    def name(self) -> str:
        """What its bundles are named after."""

    @property
    def task(self) -> Task:
        """What it is for."""

    @property
    def framework(self) -> Framework:
        """The framework that references are computed with."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels, where they are known before it has run."""

    @property
    def signature(self) -> Signature | None:
        """The signature, where it is known before it has run."""

    @property
    def sources(self) -> Mapping[Framework, SourceRef]:
        """How a worker finds it, by the framework to build it in."""

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write what the reference job reads; returns the job's fields, all but `result`."""

    def read(self, scratch: Path) -> Reference:
        """What the finished reference job found."""

    def place(self, scratch: Path, folder: Path) -> None:
        """Put tokenizer, golden ids and labels into a bundle."""


class CheckpointSubject:
    """A checkpoint, tried on `eval_samples` of its held-out data (None: all of it)."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        eval_samples: int | None = 500,
        calibration: Calibration | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.checkpoint, self.calibration, self._cache = checkpoint, calibration, cache
        self.name, self.framework, self.labels = checkpoint.name, checkpoint.framework, checkpoint.labels
        self.task: Task = checkpoint.config.task
        self.sources: Mapping[Framework, SourceRef] = {
            framework: checkpoint_source(checkpoint.path, framework) for framework in FRAMEWORKS
        }
        self.signature: Signature | None = encoder_signature(checkpoint, checkpoint.framework)
        self._eval_samples = eval_samples

    @cached_property
    def _samples(self) -> Samples:
        """Read when the reference is next: conversions need not wait for seconds of reading data."""
        return choose_samples(self.checkpoint, self._eval_samples, cache=self._cache)

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write the samples as steps, the calibration texts, and golden ids."""
        steps = scratch / "steps.npz"
        self._samples.write_steps(steps)
        write_tokens(scratch / bundles.TOKENS, self.checkpoint.processor.encode, self._cache)
        if self.calibration:
            self.calibration.write_steps(scratch / CALIBRATION)
        output = str(scratch / bundles.GOLDEN)
        return {"op": "reference", "source": self.sources[self.framework], "steps": str(steps), "output": output}

    def read(self, scratch: Path) -> Reference:
        """The golden steps that the job wrote, beside what was known before."""
        return Reference(
            golden=scratch / bundles.GOLDEN,
            signature=encoder_signature(self.checkpoint, self.framework),
            labels=self.labels,
            origin=self._samples.origin,
            population=self._samples.population,
            note=self._samples.note,
            calibration=self.calibration.record if self.calibration else None,
        )

    def place(self, scratch: Path, folder: Path) -> None:
        """Write tokenizer, golden ids and labels."""
        self.checkpoint.processor.save(folder / bundles.TOKENIZER)
        shutil.copyfile(scratch / bundles.TOKENS, folder / bundles.TOKENS)
        bundles.write_labels(folder / bundles.LABELS, self.labels)


@dataclass(frozen=True, kw_only=True)
class ForeignSubject:
    """A source that is not edgekit's, run on `texts` where it takes texts."""

    name: str
    task: Task
    framework: Framework
    sources: Mapping[Framework, SourceRef]
    texts: Texts
    labels: tuple[str, ...] = ()  # known, as the signature, when the source has run
    signature: Signature | None = None

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write the texts."""
        path = scratch / "texts.json"
        path.write_text(self.texts.model_dump_json(), encoding="utf-8")
        source, output = self.sources[self.framework], str(scratch / "prepared")
        return {"op": "prepare", "source": source, "texts": str(path), "output": output}

    def read(self, scratch: Path) -> Reference:
        """What the worker found when it ran the source."""
        folder = scratch / "prepared"
        found = read_prepared(folder)
        if (folder / CALIBRATION).is_file():
            shutil.copyfile(folder / CALIBRATION, scratch / CALIBRATION)
        return Reference(
            golden=folder / bundles.GOLDEN,
            signature=found.signatures[0],
            labels=found.labels,
            origin=found.origin,
            population=0,
            note=UNLABELLED,
            calibration=found.calibration,
        )

    def place(self, scratch: Path, folder: Path) -> None:
        """Copy what the worker wrote for every bundle."""
        for name in read_prepared(scratch / "prepared").files:
            shutil.copyfile(scratch / "prepared" / name, folder / name)
