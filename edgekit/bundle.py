"""The Bundle: what export writes. A target file with its processor, labels, golden data, and a manifest of proof.

NAME.edgekit/
  manifest.json     what it is, where it came from, what was measured; the sha256 of every other file
  manifest.sha256   of manifest.json, as `sha256sum -c manifest.sha256` reads it
  model.tflite      or model.onnx, model.mlpackage/, savedmodel/, model.pt2
  golden.npz  export.log
  README.md         how to call it from Python, Kotlin, Swift and C++
  tokenizer.json  tokens.json  labels.json  preprocessor_config.json     where the model has them
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from edgekit.errors import BundleError
from edgekit.program import Framework, Signature, SourceRef, Task

SUFFIX = ".edgekit"
MANIFEST, MANIFEST_SUM, GOLDEN, LABELS, TOKENIZER, LOG = (
    "manifest.json",
    "manifest.sha256",
    "golden.npz",
    "labels.json",
    "tokenizer.json",
    "export.log",
)
TOKENS, PREPROCESSOR, README = "tokens.json", "preprocessor_config.json", "README.md"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of a bundle."""

    sha256: str
    size_bytes: int


class Parity(_Record):
    """How far the outputs of the exported file are from the reference, over the golden steps.

    `tolerance` is absolute: the scheme's relative tolerance times max(1, max |reference|). `labels_changed_tolerance`
    is the share of changed labels, in [0, 1], that the scheme may reach; of `labels`, where a step has several (None:
    one each). `cosine` is the mean over steps of outputs that are no scores of labels, such as embeddings. `evaluated`
    says so where the file was not run by a runtime of its own.
    """

    verdict: Literal["within-tolerance", "failed", "not-run"]
    steps: int
    max_abs_difference: float | None = None
    tolerance: float | None = None
    max_abs_reference: float | None = None
    labels_changed: int | None = None
    labels_changed_tolerance: float = 1.0
    labels: int | None = None
    cosine: float | None = None
    cosine_tolerance: float | None = None
    non_finite_outputs: int | None = None
    note: str = ""
    evaluated: str = ""


class Accuracy(_Record):
    """Share of labels right, in [0, 1], on a stratified sample of held-out data; the interval is Wilson's at 95 %.

    `accuracy` is None where it was not measured, and `note` then says why.
    """

    accuracy: float | None
    low: float | None = None
    high: float | None = None
    reference_accuracy: float | None = None
    samples: int = 0
    population: int = 0
    note: str = ""


class TextScores(_Record):
    """How well held-out texts are foretold, and translated.

    `bits_per_byte` is the loss of all tokens and the texts' ends over the texts' UTF-8 bytes. `chrf` is sacrebleu's, 0
    to 100; `placeholder_accuracy` the share of the `with_placeholders` source texts whose translation has exactly their
    placeholders. None, and perhaps a `note`, where there is nothing to translate or no placeholder.
    """

    bits_per_byte: float
    chrf: float | None = None
    chrf_signature: str = ""
    placeholder_accuracy: float | None = None
    with_placeholders: int = 0
    note: str = ""


class WrittenTexts(_Record):
    """What a file writes, greedily, beside what its source wrote after the same `prompts`, and how good that is.

    Of the source's `tokens`, its `[EOS]` among them, `tokens_equal` stand at the same place of the file's text;
    `texts_equal` are the same to their end, and `first_difference` tells where the first other one departs. Scores are
    of `samples` texts of `population` held-out ones, and None where there are none: `note` says why.
    """

    prompts: int
    texts_equal: int
    tokens: int
    tokens_equal: int
    first_difference: str = ""
    scores: TextScores | None = None
    reference_scores: TextScores | None = None
    samples: int = 0
    population: int = 0
    note: str = ""


class TextEnds(_Record):
    """How texts of another's model that writes begin and end, in token ids, as its configuration has them.

    `begin_ids` is what a translation begins with, or an empty text to go on from, where the tokenizer puts nothing
    before it; empty where the model does not say. Any of `stop_ids` ends a text.
    """

    begin_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]


class TextRules(_Record):
    """What the generation settings of another's model forbid, force and weigh, by transformers' names.

    `begun`: how many of the ids that a text begins with count as written; `num_beams` and what follows are defaults.
    `not_followed` are settings that the model has and edgekit does not follow.
    """

    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_length: int = 0
    min_new_tokens: int = 0
    forced_eos_token_id: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    begun: int = 0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    not_followed: tuple[str, ...] = ()


#: fields of `TextRules` that a user can override
OVERRIDABLE = ("repetition_penalty", "num_beams", "length_penalty")


class LeftOperator(_Record):
    """Operators of one kind that a compiler left to the CPU: how many, the outputs of some of them, and why."""

    operator: str
    count: int
    where: tuple[str, ...] = ()
    reason: str = ""


class PartitionReport(_Record):
    """What a compiler said of a file: how many of its operators it took, in how many partitions, and what it left."""

    operators: int
    operators_taken: int
    partitions: int
    left: tuple[LeftOperator, ...] = ()


class CompiledFor(_Record):
    """What a file was compiled for, and by what.

    `device` is one device's name (SM8650, CPU, ethos-u85-256): such a file runs on no other, whatever a driver says.
    `device_number` is the compiler's own number of it, where it has one; `source_sha256` the hash of the file that was
    compiled; `ran_on` what stood in for the device in the proof, "" where it was not run.
    """

    compiler: str
    compiler_version: str
    accelerator: Literal["npu"]
    device: str
    device_number: int | None = None
    source_sha256: str
    report: PartitionReport
    ran_on: str = ""


class Manifest(_Record):
    """What `manifest.json` holds.

    `scheme_details` tells what the scheme became in this target, as counted; `rewrites` are those of `export
    --rewrite`; `requires` what the file needs to run; `target_options` what was asked of this target alone (the oldest
    iOS, sequence lengths, …); `written` what a model that writes wrote; `text_ends` where its texts begin and end, and
    `text_rules` what its settings forbid and force, None for edgekit's own; `compiled` what device the file was
    compiled for, if it was. `proven_before` is the day of the proof, where the export took it from its cache: the same
    bytes, run on the same golden data by the same runtime on the same machine.
    """

    edgekit: Literal[1] = 1
    name: str
    task: Task
    target: str
    via: Framework
    scheme: str
    scheme_details: dict[str, Any]
    rewrites: tuple[str, ...] = ()
    requires: dict[str, str] = {}
    target_options: dict[str, Any] = {}
    model: str
    runtime: str
    signatures: tuple[Signature, ...]
    source: SourceRef
    tools: dict[str, str]
    parity: Parity
    accuracy: Accuracy
    proven_before: str = ""
    golden_texts: str
    written: WrittenTexts | None = None
    text_ends: TextEnds | None = None
    text_rules: TextRules | None = None
    compiled: CompiledFor | None = None
    files: dict[str, FileRecord]

    @property
    def lengths(self) -> dict[int, str]:
        """The sequence lengths that the file takes, in tokens, ascending, and the signature of each.

        Only the longest, where its first signature takes any length up to that.
        """
        found = {each.inputs[0].shape[1]: each.name for each in self.signatures}
        enumerated = dict.fromkeys(self.target_options.get("sequence_lengths", ()), self.signatures[0].name)
        return dict(sorted((enumerated | found).items()))

    def length_for(self, tokens: int) -> int:
        """The length to pad a text of so many tokens to: the smallest that fits, or, where none does, the longest."""
        lengths = list(self.lengths)
        if self.signatures[0].dynamic_length:
            return max(1, min(tokens, lengths[-1]))
        return next((length for length in lengths if length >= tokens), lengths[-1])

    @property
    def proven(self) -> bool:
        """Whether the file was run and its outputs were within tolerance."""
        return self.parity.verdict == "within-tolerance"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The target file (a folder for Core ML packages and SavedModels)."""
        return self.path / self.manifest.model

    @property
    def golden_path(self) -> Path:
        """The golden steps with their reference outputs."""
        return self.path / GOLDEN

    @property
    def model_size_bytes(self) -> int:
        """Size of the target file, or of all files of the target folder."""
        model = self.manifest.model
        return sum(r.size_bytes for n, r in self.manifest.files.items() if n == model or n.startswith(f"{model}/"))


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_bundle(folder: Path, **fields: Any) -> Manifest:
    """Hash every file in `folder` and write its manifest; the last step of building a bundle."""
    files = {
        relative: FileRecord(sha256=file_sha256(folder / relative), size_bytes=(folder / relative).stat().st_size)
        for relative in _files_in(folder)
    }
    manifest = Manifest(files=files, **fields)
    text = manifest.model_dump_json(indent=2) + "\n"
    (folder / MANIFEST).write_text(text)
    (folder / MANIFEST_SUM).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  {MANIFEST}\n")
    return manifest


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check that every path in it stays inside the bundle.

    Raises BundleError: no bundle there, a manifest that is broken or changed, a path that leads elsewhere.
    Files are not hashed here: see `check_files`.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    raw = manifest_path.read_bytes()
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{manifest_path} is broken: {where + ': ' if where else ''}{first['msg']}") from error
    _check_manifest_sum(path, raw)
    for relative in (manifest.model, *manifest.files):
        _check_inside(path, relative)
    if not (path / manifest.model).exists():
        raise BundleError(f"{path}: its file {manifest.model} is missing; export it again")
    return Bundle(path=path, manifest=manifest)


def check_files(bundle: Bundle) -> None:
    """Compare every file with the manifest, byte for byte.

    Raises BundleError that names the first file that is missing, changed, or not in the manifest.
    """
    recorded = bundle.manifest.files
    for relative, record in recorded.items():
        file = bundle.path / relative
        if not file.is_file():
            raise BundleError(f"{bundle.path}: {relative} is missing; export it again")
        if file.stat().st_size != record.size_bytes:
            size = file.stat().st_size
            raise BundleError(f"{bundle.path}: {relative} has {size} bytes, not {record.size_bytes} as written")
        if file_sha256(file) != record.sha256:
            raise BundleError(f"{bundle.path}: {relative} was changed since it was written (sha256 differs)")
    for relative in _files_in(bundle.path):
        if relative not in recorded and relative not in (MANIFEST, MANIFEST_SUM):
            raise BundleError(f"{bundle.path}: {relative} is not in the manifest; remove it, or export again")


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """Write the labels in the order of the logits."""
    path.write_text(json.dumps(list(labels), ensure_ascii=False, indent=1) + "\n")


def read_labels(bundle: Bundle) -> tuple[str, ...]:
    """The labels of a bundle, in the order of the logits; raises BundleError where they are broken."""
    try:
        return TypeAdapter(tuple[str, ...]).validate_json((bundle.path / LABELS).read_bytes())
    except (OSError, ValidationError) as error:
        raise BundleError(f"{bundle.path / LABELS} can't be read; export the bundle again") from error


def find_bundles(parent: Path) -> list[Path]:
    """All bundles in a folder, by name.

    Raises BundleError, with the command that makes one, where there is none.
    """
    found = sorted(p for p in parent.glob(f"*{SUFFIX}") if (p / MANIFEST).is_file())
    if not found:
        raise BundleError(f"no bundles in {parent}/: make one with `edgekit export --target tflite`")
    return found


def _files_in(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() or file.is_symlink():
            yield file.relative_to(folder).as_posix()


def _check_manifest_sum(path: Path, raw: bytes) -> None:
    expected = f"{hashlib.sha256(raw).hexdigest()}  {MANIFEST}\n".encode()
    sum_path = path / MANIFEST_SUM
    if not sum_path.is_file() or sum_path.read_bytes() != expected:
        raise BundleError(f"{path}: {MANIFEST} was changed since it was written ({MANIFEST_SUM} differs)")


def _check_inside(folder: Path, relative: str) -> None:
    """Refuse a path of a manifest that is absolute, climbs out, or goes through a link."""
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative or not pure.parts:
        raise BundleError(f"{folder}: the manifest names {relative!r}, which is not a path inside the bundle")
    step = folder
    for part in pure.parts:
        step = step / part
        if step.is_symlink():
            raise BundleError(f"{folder}: {relative} is or goes through a symbolic link; bundles hold plain files only")
