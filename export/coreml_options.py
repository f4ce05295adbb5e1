"""What the user may decide about a Core ML package: the oldest system, sequence lengths, functions, and who made it."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgekit.export.lengths import length_signatures, refuse_lengths
from edgekit.program import Signature

DeploymentTarget = Literal["iOS15", "iOS16", "iOS17", "iOS18"]
DEPLOYMENT_TARGETS: tuple[DeploymentTarget, ...] = ("iOS15", "iOS16", "iOS17", "iOS18")

_PALETTE = "palettes came with it (constexpr_lut_to_dense)"
#: scheme → the first system that reads it, and why (coremltools, mil/ops/defs/iOS16 and iOS18)
_FIRST_SYSTEM: dict[str, tuple[DeploymentTarget, str]] = {
    "int8-weight": ("iOS16", "quantized weights came with it (constexpr_affine_dequantize)"),
    "int4-weight": ("iOS18", "weights in blocks came with it (constexpr_blockwise_shift_scale)"),
    **{f"palette{bits}": ("iOS16", _PALETTE) for bits in (4, 6, 8)},
}


class CoremlOptions(BaseModel):
    """Options of the target coreml.

    `minimum_deployment_target` is coremltools' name of the oldest iOS that must read the package (None: iOS17, or what
    other options need). Several `sequence_lengths`, in tokens, become enumerated shapes of the inputs, or, with
    `multifunction`, one function each over one copy of the weights. `task`, `name`, `labels` and `source_sha256`
    describe the model in the package's metadata; the pipeline fills them in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_deployment_target: DeploymentTarget | None = None
    sequence_lengths: tuple[int, ...] = Field(default=(), description="ascending, each once")
    multifunction: bool = False
    author: str = ""
    license: str = ""
    task: str = ""
    name: str = ""
    labels: tuple[str, ...] = ()
    source_sha256: str = ""

    @model_validator(mode="after")
    def _sort_lengths(self) -> Self:
        if any(length < 1 for length in self.sequence_lengths):
            raise ValueError(f"sequence lengths start at 1, not {min(self.sequence_lengths)}")
        object.__setattr__(self, "sequence_lengths", tuple(sorted(set(self.sequence_lengths))))
        return self

    @property
    def target(self) -> DeploymentTarget:
        """The deployment target that is converted for."""
        return self.minimum_deployment_target or ("iOS18" if len(self.sequence_lengths) > 1 else "iOS17")

    @property
    def asked(self) -> dict[str, object]:
        """What the user asked for, by field; empty where all is default."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"task", "name", "labels", "source_sha256"})

    def flags(self) -> list[str]:
        """What the user asked for, as flags of the command line."""
        names = {"sequence_lengths": "sequence-length"}
        return [f"--{names.get(field, field.replace('_', '-'))}" for field in self.asked]

    def recorded(self) -> dict[str, object]:
        """What the manifest says: the deployment target that it became, and what was asked for."""
        return self.asked | {"minimum_deployment_target": self.target}

    def refusal(self, scheme: str, longest: int) -> str | None:
        """Why a model of `longest` tokens can't be exported in `scheme` with these options; None where it can."""
        lengths = self.sequence_lengths
        if self.multifunction and len(lengths) < 2:
            return "--multifunction makes a function for each length: give two or more with --sequence-length"
        return refuse_lengths(lengths, longest) or self._too_old(scheme)

    def _too_old(self, scheme: str) -> str | None:
        needs = {scheme: _FIRST_SYSTEM[scheme]} if scheme in _FIRST_SYSTEM else {}
        if self.multifunction:
            needs["--multifunction"] = ("iOS18", "packages of several functions came with it")
        elif len(self.sequence_lengths) > 1:
            only = "before it only one input of a package may have enumerated shapes, and ids and mask are two"
            needs["more than one --sequence-length"] = ("iOS18", only)
        for what, (first, why) in needs.items():
            asked = self.minimum_deployment_target
            if asked and DEPLOYMENT_TARGETS.index(asked) < DEPLOYMENT_TARGETS.index(first):
                return f"{what} needs {first}: {why}; --minimum-deployment-target {asked} was asked for"
        return None

    def signatures(self, signature: Signature) -> tuple[Signature, ...]:
        """The signatures of the package: `signature`, and one `length_N` for each shorter length that is a function."""
        return length_signatures(signature, self.sequence_lengths if self.multifunction else ())


DEFAULTS = CoremlOptions()
