"""Writes texts with a bundle on a device: the runner's loop is there, the tokens come back as they are chosen."""

import tempfile
from pathlib import Path
from typing import Any

from edgekit.bundle import Bundle, check_files
from edgekit.devices.accelerators import plan_run
from edgekit.devices.device import Device
from edgekit.devices.runner_session import RUNNER, model_name
from edgekit.proof.replay import OnEvent
from edgekit.proof.runner_events import Event, check_run, job_text, parse_event
from edgekit.proof.writing import RunWriter


def run_there(device: Device, bundle: Bundle, *, num_threads: int = 1, timeout_s: float = 900) -> RunWriter:
    """Bring the file and the runner to a device that was entered, and return what runs jobs there.

    Raises RefusedError where the device has no runtime for the file, or no Python; DeviceError, BundleError.
    """
    check_files(bundle)
    plan = plan_run(bundle.manifest, device.facts(), accelerator="cpu")
    start = device.push(RUNNER, "runner") + "/start.py"
    model = device.push(bundle.model_path, model_name(bundle))

    def run(fields: dict[str, Any], on_event: OnEvent) -> list[Event]:
        events: list[Event] = []

        def take(line: str) -> None:
            if event := parse_event(line):
                events.append(event)
                on_event(event)

        with tempfile.TemporaryDirectory(prefix="edgekit-job-") as folder:
            job = Path(folder) / "job.json"
            job.write_text(
                job_text(
                    operation="generate",
                    runtime=plan.runtime,
                    model=model,
                    num_threads=num_threads,
                    die_with_parent=True,
                    generation=fields,
                )
            )
            there = device.push(job, "job.json")
        done = device.run([plan.python, start, there], timeout_s=timeout_s, on_line=take)
        check_run(f"{bundle.manifest.model} on {device.address}", done, events)
        return events

    return run
