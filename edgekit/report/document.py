"""The report as data: the one JSON document behind every number and sentence that any format shows.

Its schema is published as `report.schema.json` beside this file, and by `edgekit report --schema`.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgekit.measurement import Measurement
from edgekit.report.beside_cpu import BesideCpu
from edgekit.report.quantization import QuantizationPart
from edgekit.statistics import Summary


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReportedWriting(_Record):
    """Texts at one length of the context: their times, in ms, and what follows from the medians.

    `prefill_per_second` is the tokens of the prompt over the time to the first token, which includes choosing it.
    """

    context_length: int
    cache_bytes: int
    first_token: Summary
    decode: Summary
    prefill_per_second: float
    decode_per_second: float


class ReportedRun(_Record):
    """A measurement with what was computed from its raw samples; None where it has none of that kind.

    `latency`, `cold_start`, `load` and `first_inference` summarize `measurement.samples.*_ms`; `per_second` is one over
    the mean latency; `memory_bytes` is the peak above what the runtime took before the file was loaded. `writing` is of
    a model that writes, one for each length of the context.
    """

    measurement: Measurement
    session: str = ""
    label: str = ""
    latency: Summary | None
    cold_start: Summary | None
    load: Summary | None
    first_inference: Summary | None
    per_second: float | None
    memory_bytes: int | None
    writing: tuple[ReportedWriting, ...] = ()


class DevicesPart(_Record):
    """The measurements on devices; `findings` are sentences computed from them, `remarks` what the reader must know.

    `beside_cpu` has those on accelerators that have the same file on the CPU in the same session.
    """

    runs: tuple[ReportedRun, ...]
    beside_cpu: tuple[BesideCpu, ...] = ()
    findings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Report(_Record):
    """A report; each part is None where nothing of its kind was asked for."""

    report_schema: Literal[1] = 1
    edgekit: str
    created: str
    title: str
    quantization: QuantizationPart | None = None
    devices: DevicesPart | None = None


def report_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def report_schema_text() -> str:
    """`report_schema` as the published file has it."""
    return json.dumps(report_schema(), indent=1, ensure_ascii=False) + "\n"
