"""Which cores a run may use."""

import os

from .failures import RunError


def pin(cores: tuple[int, ...]) -> None:
    """Keep this process and the threads that it starts to these cores (none: leave it to the system).

    Raises RunError("refused") where the system has no such cores, or can't pin at all (macOS).
    """
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise RunError("refused", "this system can't pin a process to cores")
    allowed = os.sched_getaffinity(0)
    missing = sorted(set(cores) - allowed)
    if missing:
        names = ", ".join(map(str, missing))
        raise RunError("refused", f"there is no core {names} to pin to: it has {', '.join(map(str, sorted(allowed)))}")
    os.sched_setaffinity(0, set(cores))
