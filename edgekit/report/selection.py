"""Which runs a report or a comparison is about."""

from collections.abc import Sequence

from edgekit.bundle import MANIFEST, Bundle, file_sha256
from edgekit.errors import ResultsError
from edgekit.results import Results, Run


def runs_by_name(results: Results, names: Sequence[str]) -> list[Run]:
    """The runs that ids, sessions or labels name, each once; `last` is the newest session, `all` is everything.

    Raises ResultsError for a name of nothing.
    """
    chosen = {run.measurement.id: run for name in names for run in _named(results, name)}
    return list(chosen.values())


def _named(results: Results, name: str) -> list[Run]:
    if name in ("all", "last"):
        newest = results.last_session()  # an error where nothing was measured
        return results.find(session=newest if name == "last" else None)
    return results.find(label=name) or results.find(session=name) or [results.get(name)]


def runs_of_bundles(results: Results, bundles: Sequence[Bundle]) -> tuple[list[Run], list[str]]:
    """The newest run of each bundle on each device, accelerator and number of threads, and what is missing.

    A run of other bytes under the same name is not this bundle's: it is said, not shown. Raises ResultsError where
    none was measured.
    """
    found: list[Run] = []
    remarks = []
    for bundle in bundles:
        runs = results.find(bundle_sha256=file_sha256(bundle.path / MANIFEST))
        newest: dict[tuple[str, str, str, int], Run] = {}
        for run in runs:
            made = run.measurement
            newest.setdefault((made.device.address, made.accelerator, made.runtime, made.settings.num_threads), run)
        found += newest.values()
        if not runs:
            changed = results.find(bundle=bundle.manifest.name, limit=1)
            why = "was exported again since it was measured" if changed else "was not measured on any device"
            remarks.append(f"{bundle.path} {why}: `edgekit bench {bundle.path}`")
    if not found:
        others = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
        raise ResultsError(f"{remarks[0]} measures it{others}; results are in {results.name}")
    return found, remarks
