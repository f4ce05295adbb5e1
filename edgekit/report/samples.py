"""Raw samples as CSV."""

import csv
import io

from edgekit.measurement import Samples

COLUMNS = ("series", "index", "value", "step", "round", "seconds", "temperature_c")


def samples_csv(samples: Samples) -> str:
    """A line for each sample, as measured: `step` and `round` of warm inferences, time and temperature of a curve."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for series, values in samples.model_dump().items():
        if not isinstance(values, tuple) or series in ("steps", "rounds"):
            continue
        for index, value in enumerate(values):
            if series == "curve":
                seconds, median_ms, celsius = value
                writer.writerow([series, index, median_ms, "", "", seconds, celsius])
            else:
                warm = series in ("latency_ms", "transfer_ms")
                step, turn = (_at(samples.steps, index), _at(samples.rounds, index)) if warm else ("", "")
                writer.writerow([series, index, value, step, turn, "", ""])
    return text.getvalue()


def _at(values: tuple[int, ...], index: int) -> int | str:
    return values[index] if index < len(values) else ""
