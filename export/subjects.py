"""What is exported, as the pipeline sees it: where its sources are, and what goes into a bundle beside the target file.

A checkpoint knows its signature, texts and labels beforehand. A foreign source (Hugging Face, a factory, a file) is
opened once by a worker, which finds them out: `prepare.py`.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from edgekit import bundle as bundles
from edgekit.cache import Cache
from edgekit.checkpoint import Checkpoint
from edgekit.export.plan import PlannedExport
from edgekit.export.prepare import CALIBRATION, Texts, read_prepared
from edgekit.export.prepare_writer import SHAPE, PreparedWriter
from edgekit.export.quantize.calibration import Calibration, CalibrationRecord
from edgekit.export.targets import TARGETS
from edgekit.export.writer_forms import target_signatures
from edgekit.model.rewrites import rewrite_signature
from edgekit.program import FRAMEWORKS, Framework, Signature, SourceRef, Task
from edgekit.proof.held_out_texts import TEXTS, WrittenSamples, choose_cache_texts, choose_texts
from edgekit.proof.prove import Samples, choose_samples
from edgekit.proof.tokens import write_tokens
from edgekit.sources.checkpoint import checkpoint_source, encoder_signature
from edgekit.sources.writers import check_writer, writer_signatures

#: texts that show the range of a cache, for int8
CACHE_CALIBRATION = "cache-calibration.npz"
UNLABELLED = "not measured: edgekit has no labelled data for this model"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the reference job left for all bundles: golden steps, the signature that they are of (None: several),
    labels, and what is known of the texts (`population` held-out examples that they were drawn from, `note` where
    there is no accuracy).
    """

    golden: Path
    signature: Signature | None
    labels: tuple[str, ...]
    origin: str
    population: int
    note: str
    calibration: CalibrationRecord | None = None
    text_ends: bundles.TextEnds | None = None
    text_rules: bundles.TextRules | None = None


def planned_signature(own: Signature, plan: PlannedExport) -> Signature:
    """The source's signature as the plan's route, which names its method, and rewrites make it."""
    method = "forward" if plan.route == "torch" else "call"
    return rewrite_signature(own.model_copy(update={"method": method}), plan.rewrites)


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
    def sources(self) -> Mapping[Framework, SourceRef]:
        """How a worker finds it, by the framework to build it in."""

    def signatures(self, plan: PlannedExport, reference: Reference | None) -> tuple[Signature, ...] | None:
        """Those of the plan's file; None where they are known only when the `reference` job has run."""

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write what the reference job reads; returns the job's fields, all but `result`."""

    def read(self, scratch: Path) -> Reference:
        """What the finished reference job found."""

    def place(self, scratch: Path, folder: Path) -> None:
        """Put tokenizer, golden ids and labels into a bundle."""


def _sources(checkpoint: Checkpoint) -> Mapping[Framework, SourceRef]:
    path, task = checkpoint.path, checkpoint.config.task
    return {framework: checkpoint_source(path, framework, task) for framework in FRAMEWORKS}


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
        self.sources = _sources(checkpoint)
        self._signature = encoder_signature(checkpoint, checkpoint.framework)
        self._eval_samples = eval_samples

    @cached_property
    def _samples(self) -> Samples:
        """Read when the reference is next: conversions need not wait for seconds of reading data."""
        return choose_samples(self.checkpoint, self._eval_samples, cache=self._cache)

    def signatures(self, plan: PlannedExport, reference: Reference | None) -> tuple[Signature, ...] | None:
        """Those of the plan's file."""
        return plan.signatures(planned_signature(self._signature, plan))

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
            signature=self._signature,
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


class WriterSubject:
    """A checkpoint of a model that writes, tried on `eval_samples` of its held-out texts (None: all of them).

    `prefill_lengths` are those of its files' signatures for several tokens at once, ascending (none: the default). With
    `int8_cache`, texts to calibrate one with are there, too.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        eval_samples: int | None = TEXTS,
        prefill_lengths: Sequence[int] = (),
        int8_cache: bool = False,
        cache: Cache | None = None,
    ) -> None:
        check_writer(checkpoint, "this subject")
        self._eval_samples, self._cache = eval_samples, cache
        self.checkpoint, self._prefill_lengths = checkpoint, tuple(prefill_lengths)
        self.name, self.framework, self.labels = checkpoint.name, checkpoint.framework, checkpoint.labels
        self.task: Task = checkpoint.config.task
        self.sources = _sources(checkpoint)
        self._int8_cache = int8_cache

    @cached_property
    def _samples(self) -> WrittenSamples:
        """Read when the reference is next: conversions need not wait for seconds of reading data."""
        return choose_texts(self.checkpoint, self._eval_samples, cache=self._cache)

    def signatures(self, plan: PlannedExport, reference: Reference | None) -> tuple[Signature, ...] | None:
        """Those of the plan's file."""
        config = self.checkpoint.config
        return target_signatures(plan, config, writer_signatures(config, self._prefill_lengths))

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write the prompts and the texts to score, and golden ids."""
        steps, output = scratch / "texts.npz", str(scratch / bundles.GOLDEN)
        self._samples.write(steps)
        if self._int8_cache:
            choose_cache_texts(self.checkpoint, cache=self._cache).write(scratch / CACHE_CALIBRATION)
        write_tokens(scratch / bundles.TOKENS, self.checkpoint.processor.encode, self._cache)
        signatures = writer_signatures(self.checkpoint.config, self._prefill_lengths)
        source = self.sources[self.framework]
        return {"op": "write", "source": source, "signatures": signatures, "steps": str(steps), "output": output}

    def read(self, scratch: Path) -> Reference:
        """The golden steps and texts that the job wrote, beside what was known before."""
        return Reference(
            golden=scratch / bundles.GOLDEN,
            signature=None,
            labels=self.labels,
            origin=self._samples.origin,
            population=self._samples.population,
            note=self._samples.note,
        )

    def place(self, scratch: Path, folder: Path) -> None:
        """Write tokenizer and golden ids."""
        self.checkpoint.processor.save(folder / bundles.TOKENIZER)
        shutil.copyfile(scratch / bundles.TOKENS, folder / bundles.TOKENS)


@dataclass(frozen=True, kw_only=True)
class ForeignSubject:
    """A source that is not edgekit's, run on `texts` where it takes texts."""

    name: str
    task: Task
    framework: Framework
    sources: Mapping[Framework, SourceRef]
    texts: Texts
    labels: tuple[str, ...] = ()  # known, as the signature, when the source has run

    def signatures(self, plan: PlannedExport, reference: Reference | None) -> tuple[Signature, ...] | None:
        """Those of the plan's file, when the source has run."""
        if reference is None or reference.signature is None:
            return None
        return plan.signatures(planned_signature(reference.signature, plan))

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


@dataclass(frozen=True, kw_only=True)
class HubWriterSubject:
    """A model of transformers that writes, tried on the beginnings of `texts`, or on their translation.

    `prefill_lengths` are those of its files' signatures for several tokens of a prompt, or of a source text, ascending
    (none: the default).
    """

    name: str
    task: Task
    framework: Framework
    sources: Mapping[Framework, SourceRef]
    texts: Texts
    labels: tuple[str, ...] = ()
    prefill_lengths: tuple[int, ...] = ()

    def signatures(self, plan: PlannedExport, reference: Reference | None) -> tuple[Signature, ...] | None:
        """Those of the plan's file, when the source has run."""
        if reference is None:
            return None
        found = self._found(reference.golden.parent)
        return target_signatures(plan, found, found.signatures)

    def ask(self, scratch: Path) -> dict[str, Any]:
        """Write the texts."""
        path, folder = scratch / "texts.json", scratch / "prepared"
        path.write_text(self.texts.model_dump_json(), encoding="utf-8")
        folder.mkdir()
        named = {"source": self.sources[self.framework], "lengths": self.prefill_lengths}
        return {"op": "write", "texts": str(path), "output": str(folder / bundles.GOLDEN)} | named

    def read(self, scratch: Path) -> Reference:
        """What the worker found when it ran the source."""
        folder = scratch / "prepared"
        found = self._found(folder)
        return Reference(
            golden=folder / bundles.GOLDEN,
            signature=None,
            labels=(),
            origin=found.origin,
            population=0,
            note=UNLABELLED,
            text_ends=found.text_ends,
            text_rules=found.text_rules,
        )

    def place(self, scratch: Path, folder: Path) -> None:
        """Copy tokenizer and golden ids, and the model's own configuration, which other runtimes read.

        It goes into a folder of ONNX graphs, which is then one of Optimum's; else beside the file.
        """
        for name in (bundles.TOKENIZER, bundles.TOKENS):
            shutil.copyfile(scratch / "prepared" / name, folder / name)
        source, graphs = Path(self.sources[self.framework].path), folder / TARGETS["onnx"].file
        for name in ("config.json", "generation_config.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, (graphs if graphs.is_dir() else folder) / name)

    def _found(self, folder: Path) -> PreparedWriter:
        return PreparedWriter.model_validate_json((folder / SHAPE).read_bytes())
