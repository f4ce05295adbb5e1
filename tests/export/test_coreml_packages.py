"""Core ML packages with the options of `CoremlOptions`: written, described, and right at every length."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import __version__
from edgekit.bundle import open_bundle
from edgekit.checkpoint import Checkpoint
from edgekit.errors import RefusedError
from edgekit.export.coreml_options import DEPLOYMENT_TARGETS, CoremlOptions, DeploymentTarget
from edgekit.export.describe import FileDescription, describe_file
from edgekit.export.jobs import Evidence
from edgekit.mil.evaluator import load_evaluator
from edgekit.program import Framework, Program
from edgekit.proof.golden import read_golden
from edgekit.sources.checkpoint import build_program
from tests.export.routes import LENGTH
from tests.tiny import tiny_checkpoint

LENGTHS = (3, 8, LENGTH)
TWO: tuple[Framework, ...] = ("torch", "tensorflow")


@dataclasses.dataclass(frozen=True)
class Made:
    """One package and what was told of it."""

    path: Path
    evidence: Evidence | None

    @functools.cached_property
    def description(self) -> FileDescription:
        return describe_file(self.path)

    @functools.cached_property
    def spec(self) -> Any:
        import coremltools

        path = self.path / "Data/com.apple.CoreML/model.mlmodel"
        return coremltools.proto.Model_pb2.Model.FromString(path.read_bytes())


class Packages:
    """Converts in this process, which workers have tests for; each package once."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        self.checkpoint, self.folder = checkpoint, folder
        self._made: dict[str, Made] = {}

    @functools.cache  # noqa: B019  (lives as long as the module's tests)
    def program(self, framework: Framework) -> Program:
        return build_program(self.checkpoint, framework, length=LENGTH)

    def make(self, framework: Framework = "torch", scheme: str = "none", again: str = "", **options: Any) -> Made:
        from edgekit.export.to_coreml import convert

        key = f"{framework}-{scheme}-{options}{again}"
        if key not in self._made:
            asked = CoremlOptions(name="tiny", labels=("en", "la"), source_sha256="5a" * 32, **options)
            program = self.program(framework)
            program = dataclasses.replace(program, signatures=asked.signatures(program.signatures[0]))
            path = self.folder / f"{len(self._made)}.mlpackage"
            self._made[key] = Made(path, convert(program, path, scheme=scheme, options=asked))
        return self._made[key]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("packages")  # large enough for the quantizers, which leave 512 elements alone
    return Packages(tiny_checkpoint(folder, hidden_size=32, ffn_size=64, embedding_size=24), folder)


def logits(packages: Packages, framework: Framework, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    module = packages.program(framework).module
    if framework == "torch":
        import torch

        with torch.no_grad():
            return module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return np.asarray(module((ids, mask), training=False))


def differs(packages: Packages, framework: Framework, made: Made, length: int, function: str = "") -> float:
    """The largest difference of a logit at a length, relative to max(1, max |logit|); a third is padding."""
    ids = np.arange(4, 4 + length, dtype=np.int32)[None]
    mask = (np.arange(length) < max(1, 2 * length // 3)).astype(np.int32)[None]
    wanted = logits(packages, framework, ids * mask, mask)
    (produced,) = load_evaluator(made.path, precision="fp32").run({"ids": ids * mask, "mask": mask}, function).values()
    return float(np.abs(produced - wanted).max() / max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("target", DEPLOYMENT_TARGETS)
def test_each_deployment_target_has_its_own_specification(packages: Packages, target: DeploymentTarget) -> None:
    made = packages.make(minimum_deployment_target=target)
    number = DEPLOYMENT_TARGETS.index(target) + 6
    assert made.description.version == f"{number} (CoreML{number - 1})"
    assert differs(packages, "torch", made, LENGTH) <= 1e-5


@pytest.mark.parametrize("framework", TWO)
def test_enumerated_lengths(packages: Packages, framework: Framework) -> None:
    made = packages.make(framework, sequence_lengths=LENGTHS)
    (signature,) = made.description.signatures
    for port in signature.inputs:
        assert port.shape == (1, LENGTH)
        assert port.enumerated == tuple((1, length) for length in LENGTHS)
    assert made.description.version.startswith("9 ")
    for length in LENGTHS:
        assert differs(packages, framework, made, length) <= 1e-5


@pytest.mark.parametrize("framework", ["torch", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_a_function_for_each_length_over_one_copy_of_the_weights(packages: Packages, framework: Framework) -> None:
    made = packages.make(framework, sequence_lengths=LENGTHS, multifunction=True)
    single = packages.make(framework, minimum_deployment_target="iOS18")
    assert [(each.name, each.inputs[0].shape) for each in made.description.signatures] == [
        ("serving_default", (1, LENGTH)),
        ("length_8", (1, 8)),
        ("length_3", (1, 3)),
    ]
    assert made.spec.description.defaultFunctionName == "serving_default"
    stored, once = (sum(count.bytes for count in each.description.weights.values()) for each in (made, single))
    assert stored < 1.15 * once  # positions are cut to each length
    for length, function in zip(LENGTHS, ("length_3", "length_8", "serving_default"), strict=True):
        assert differs(packages, framework, made, length, function) <= 1e-5


@pytest.mark.parametrize(
    ("scheme", "dtype"),
    [
        ("int8-weight", "int8"),
        pytest.param("int4-weight", "int4", marks=pytest.mark.slow),
        pytest.param("palette4", "uint4", marks=pytest.mark.slow),
    ],
)
def test_functions_in_a_scheme_share_its_weights(packages: Packages, scheme: str, dtype: str) -> None:
    made = packages.make(scheme=scheme, sequence_lengths=(8, LENGTH), multifunction=True)
    assert made.evidence is not None
    assert made.evidence.quantized_elements > 0.9 * made.evidence.matrix_elements
    assert {each.dtype for each in made.evidence.largest} <= {"int8", "int4", "palette4"} & {dtype, scheme}
    assert made.description.weights[dtype].elements < 1.1 * made.evidence.matrix_elements
    assert made.spec.description.metadata.userDefined["edgekit.scheme"] == scheme
    assert differs(packages, "torch", made, 8, "length_8") < 1
    assert differs(packages, "torch", made, LENGTH, "serving_default") < 1


def test_what_xcode_shows(packages: Packages) -> None:
    description = packages.make(author="A. Maker", license="Apache-2.0").spec.description
    metadata = description.metadata
    assert (metadata.author, metadata.license) == ("A. Maker", "Apache-2.0")
    assert metadata.shortDescription == "tiny: finds one of 2 labels for a text of token ids."
    assert metadata.versionString == "5a5a5a5a5a5a"
    assert json.loads(metadata.userDefined["edgekit.labels"]) == ["en", "la"]
    assert metadata.userDefined["edgekit.version"] == __version__
    assert metadata.userDefined["edgekit.scheme"] == "none"
    assert metadata.userDefined["edgekit.source_sha256"] == "5a" * 32
    assert [port.name for port in description.output] == ["logits"]  # labels replace no output
    for port in (*description.input, *description.output):
        assert len(port.shortDescription) > 20


def test_functions_are_described_as_well(packages: Packages) -> None:
    description = packages.make(sequence_lengths=LENGTHS, multifunction=True).spec.description
    assert description.metadata.userDefined["edgekit.sequence_lengths"] == "3,8,12"
    for function in description.functions:
        assert all(len(port.shortDescription) > 20 for port in (*function.input, *function.output))


def test_a_compressed_package_says_its_scheme(packages: Packages, tmp_path: Path) -> None:
    from edgekit.export.quantize.for_coreml import compress
    from edgekit.export.quantize.mixture import Mixture

    source = packages.make(minimum_deployment_target="iOS16")
    compress(source.path, tmp_path / "model.mlpackage", Mixture(scheme="palette4"), None)
    metadata = Made(tmp_path / "model.mlpackage", None).spec.description.metadata
    assert metadata.userDefined["edgekit.scheme"] == "palette4"
    assert metadata.shortDescription == source.spec.description.metadata.shortDescription
    assert json.loads(metadata.userDefined["edgekit.labels"]) == ["en", "la"]


def test_the_bytes_are_the_same_every_time(packages: Packages) -> None:
    options = {"sequence_lengths": (8, LENGTH), "multifunction": True}
    first, second = (packages.make(again=again, **options).path for again in ("", "again"))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert len(files) == 3
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
        assert str(Path(__file__).parents[2]).encode() not in (first / file).read_bytes()
        assert b"site-packages" not in (first / file).read_bytes()


def test_a_trace_names_no_path_of_this_machine(tmp_path: Path) -> None:
    import torch

    from edgekit.export.coreml_torch import convert_torch_module

    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.GELU())
    convert_torch_module(module, {"x": torch.ones(1, 3)}, captures=("trace",)).save(str(tmp_path / "m.mlpackage"))
    for file in (tmp_path / "m.mlpackage").rglob("*"):
        assert file.is_dir() or b"site-packages" not in file.read_bytes()


def test_a_quantized_scheme_is_not_converted(packages: Packages) -> None:
    with pytest.raises(RefusedError, match="made of a float32 package"):
        packages.make(scheme="int8-weight")


@pytest.mark.slow
@pytest.mark.parametrize("multifunction", [False, True])
def test_the_command_from_options_to_bundle(multifunction: bool, tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, hidden_size=32, ffn_size=64, embedding_size=24, max_length=24)
    argv = ["export", "tiny", "--target", "coreml", "--sequence-length", "16,18,24", "--quantize", "none,fp16"]
    argv += ["--license", "MIT", "--json", *(["--multifunction"] if multifunction else [])]
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "edgekit", *argv], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert shown.returncode == 0, shown.stderr
    allowed = ("reference: ", "coreml-torch: ", "tiny.coreml-", "Next: ")  # nothing of the converter's
    assert [line for line in shown.stderr.splitlines() if line and not line.startswith(allowed)] == []
    for row in json.loads(shown.stdout):
        bundle = open_bundle(tmp_path / row["bundle"])
        assert bundle.manifest.target_options["sequence_lengths"] == [16, 18, 24]
        assert bundle.manifest.target_options["minimum_deployment_target"] == "iOS18"
        assert bundle.manifest.requires == {"coreml": "specification 9: iOS 18, macOS 15"}
        names = ["serving_default", "length_18", "length_16"] if multifunction else ["serving_default"]
        assert [signature.name for signature in bundle.manifest.signatures] == names
        metadata = Made(bundle.model_path, None).spec.description.metadata
        assert metadata.license == "MIT"
        assert json.loads(metadata.userDefined["edgekit.labels"]) == ["en", "la"]
        assert metadata.userDefined["edgekit.source_sha256"] == bundle.manifest.source.sha256
        shapes = {step.inputs["ids"].shape for step in read_golden(bundle.golden_path).steps}
        assert shapes == {(1, 16), (1, 18), (1, 24)}
