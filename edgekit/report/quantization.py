"""What quantization cost and gained, as records: files beside each other, modules, and why.

Every sentence carries the numbers that it was made from. Shares are in [0, 1], changes of accuracy in percentage
points, sizes in bytes, durations in milliseconds.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from edgekit.bundle import Parity, WrittenTexts
from edgekit.measurement import Measurement
from edgekit.statistics import Summary


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AccuracyChange(_Record):
    """Accuracy of a file beside the source model's on the same texts; the interval is paired (Agresti & Min, 2005).

    `lost` texts only the source model labels right, `won` only the file.
    """

    accuracy: float
    reference_accuracy: float
    texts: int
    lost: int
    won: int
    change_points: float
    low_points: float
    high_points: float


class ChangedText(_Record):
    """A text that a file labels differently from the source model; margins are of the first label over the second."""

    text: str
    truth: str | None
    from_label: str
    to_label: str
    from_margin: float
    to_margin: float


class Sentence(_Record):
    """A sentence about `subject` and the numbers that it was made from."""

    subject: str
    text: str
    evidence: dict[str, Any]


class SchemeRow(_Record):
    """One bundle; what was not measured is None, and `note` says why.

    `parity` is of outputs on this machine now, or as the manifest has it where the file can't be run here. `latency` is
    of the raw samples in `measurement`. `written` is what a model that writes wrote when the file was proven; its
    latency is of one token.
    """

    bundle: str
    target: str
    via: str
    scheme: str
    size_bytes: int
    parity: Parity | None = None
    accuracy: AccuracyChange | None = None
    changed_texts: tuple[ChangedText, ...] = ()
    written: WrittenTexts | None = None
    latency: Summary | None = None
    measurement: Measurement | None = None
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether it was run and is what its scheme promises."""
        return self.parity is not None and self.parity.verdict == "within-tolerance"


class SchemeGroup(_Record):
    """Bundles of one model on one test set; those of others are in groups of their own.

    `front` names the bundles that no other beats in size, latency and accuracy at once; `advice` is by target.
    """

    model: str
    model_sha256: str
    texts: str
    rows: tuple[SchemeRow, ...]
    front: tuple[str, ...] = ()
    advice: tuple[Sentence, ...] = ()
    slow: tuple[Sentence, ...] = ()


class WeightRange(_Record):
    """Values of one weight matrix; channels are its outputs, `outlier_ratio` the largest channel over the median one.

    `tensor_noise` and `channel_noise` are the mean squared errors of int8 with one scale, and with one for each
    channel; `channels_fix` is the share of the first that the second takes away. `int8_error` (by channel) and
    `int4_error` (scales as in `int4_scales`) are root mean squares of what rounding changes, over those of the weights.
    """

    low: float
    high: float
    channels: int
    outlier_channel: int
    outlier_ratio: float
    tensor_noise: float
    channel_noise: float
    channels_fix: float
    int8_error: float
    int4_error: float
    int4_scales: str


class ActivationRange(_Record):
    """What went into a module on real text; `headroom` is 65504 over the largest value that float16 has to hold there.

    `largest` is that value: the largest square in a norm, the largest score in a softmax, the largest output elsewhere.
    """

    low: float
    high: float
    outlier_channel: int
    outlier_ratio: float
    largest: float
    headroom: float | None


class ModuleCost(_Record):
    """What quantizing one module alone costs; None where nothing differs or a value is NaN (`non_finite` counts)."""

    scheme: str
    kl: float | None
    snr_db: float | None
    drop_points: float | None
    labels_changed: int
    texts: int
    non_finite: int
    error: str = ""


class Module(_Record):
    """One module of the source model; `share_of_time` is that of an inference of the float32 file, where it is told."""

    name: str
    elements: int
    share_of_bytes: float
    share_of_time: float | None = None
    weight: WeightRange | None = None
    activation: ActivationRange | None = None
    costs: tuple[ModuleCost, ...] = ()


class ModulesPart(_Record):
    """A checkpoint by module; `why` explains each that has a share of a scheme's cost over `threshold`.

    `times` says what the shares of time are of, or why there are none.
    """

    model: str
    target: str
    texts: str
    schemes: tuple[str, ...]
    threshold: float
    modules: tuple[Module, ...]
    why: tuple[Sentence, ...] = ()
    headroom: tuple[Sentence, ...] = ()
    times: str = ""
    remarks: tuple[str, ...] = ()


class QuantizationPart(_Record):
    """Files beside each other, and a checkpoint by module; `remarks` are what the reader must know."""

    groups: tuple[SchemeGroup, ...] = ()
    modules: ModulesPart | None = None
    remarks: tuple[str, ...] = ()
