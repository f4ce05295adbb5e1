"""Time by operator, from the profiles that runtimes write."""

import re
from collections.abc import Mapping
from typing import Any

from edgekit.measurement import OperatorTime

# [node type] [start] [first] [avg ms] [%] [cdf%] [mem KB] [times called] [Name]
_NUMBER = r"\s+([\d.eE+-]+)"
_LINE = re.compile(rf"^\s*(\S.*?){_NUMBER * 3}\s+[\d.]+%\s+[\d.]+%{_NUMBER}\s+(\d+)\s+(\S.*)$")


def read_profile(event: Mapping[str, Any]) -> tuple[OperatorTime, ...]:
    """The times in the runner's `profile` event."""
    if event.get("format") == "litert":
        return parse_summary(event["text"])
    nodes = event.get("nodes", ())
    return tuple(OperatorTime(name=name, kind=kind, count=1, ms=ms) for name, kind, _, ms in nodes)


def parse_summary(text: str) -> tuple[OperatorTime, ...]:
    """The nodes of the "Run Order" table that LiteRT and benchmark_model print, ms of each in one inference.

    Where the operators inside a delegate are listed ("Delegate/…"), the delegate's own line, their sum, is left out.
    """
    # benchmark_model profiles the preparation too, and lists what is inside a delegate in a table of its own
    runs = text.split("Profiling Info for Regular Benchmark Runs:")[-1]
    rows = [row for table in runs.split("Run Order")[1:] for row in _rows(table)]
    inside = any(row.kind.startswith("Delegate/") for row in rows)
    return tuple(row for row in rows if not (inside and re.match(r"TfLite\w*Delegate|DELEGATE", row.kind)))


def _rows(table: str) -> list[OperatorTime]:
    rows = []
    for line in table.splitlines():
        if "Summary by node type" in line or "Top by Computation Time" in line:
            break
        if found := _LINE.match(line):
            kind, _, _, average, _, _, name = found.groups()
            rows.append(OperatorTime(name=name.strip(), kind=kind, count=1, ms=float(average)))
    return rows
