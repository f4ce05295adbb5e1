"""What the on-device runner is told and what it says: one place, for runs on this host and on devices."""

import json
import signal
from collections.abc import Sequence
from typing import Any

from edgekit.errors import RunnerError
from edgekit.processes import CompletedRun

SCHEMA = 1
Event = dict[str, Any]
#: what runtimes print when nothing is wrong
_CHATTER = ("INFO:", "VERBOSE:", "WARNING:", "I0000 ", "└")


def job_text(**fields: Any) -> str:
    """A job as the runner reads it; `fields` are those of `runner.job.RunnerJob`."""
    return json.dumps({"schema": SCHEMA, **fields})


def parse_event(line: str) -> Event | None:
    """The event in a line; None for what is none: a runtime may print, and a link may cut a line short."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and event.get("schema") == SCHEMA and "event" in event else None


def find_event(events: Sequence[Event], name: str) -> Event:
    """The last event of that name; empty where there is none."""
    return next((event for event in reversed(events) if event["event"] == name), {})


def check_run(name: str, run: CompletedRun, events: Sequence[Event]) -> None:
    """Raise RunnerError, one clear line about the file `name`, unless the runner ended well and said so."""
    if run.returncode == 0 and find_event(events, "done"):
        return
    error = find_event(events, "error")
    if error:
        message = f"{name} could not be run ({error.get('kind')}): {error.get('message')}"
    else:
        lines = [line for line in run.stderr.splitlines() if line.strip() and not line.startswith(_CHATTER)]
        last = lines[-1] if lines else ""
        message = f"{name} could not be run: the runtime {_how_it_ended(run.returncode)}{': ' + last if last else ''}"
    raise RunnerError(message, returncode=run.returncode)


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}" if returncode else "ended before it was done"
    try:
        name = f" ({signal.Signals(-returncode).name})"
    except ValueError:
        name = ""
    return f"died of signal {-returncode}{name}"
