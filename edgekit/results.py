"""The results store: every measurement with its raw samples, in SQLite or, for a team, in PostgreSQL.

EDGEKIT_DB              where it is: a path, or postgresql://user@host/database; else a file in the user's data folder

edgekit_schema          the version of what follows
edgekit_sessions        one for each `edgekit bench`: its plan, and whether all of it was measured
edgekit_runs            one for each measurement: what it is found by, and its JSON without the samples
edgekit_samples         the raw samples, unrounded: one row for each run and series ("latency_ms", "cold_start_ms", ...)
"""

import datetime
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from pydantic import ValidationError

from edgekit import results_database as database
from edgekit.errors import ResultsError
from edgekit.measurement import Measurement
from edgekit.results_database import runs, samples, sessions

VARIABLE = "EDGEKIT_DB"
_SERIES = "samples"
_MOST_VALUES = 1000


@dataclass(frozen=True, kw_only=True)
class Run:
    """A measurement as it is kept: with its id, the session that made it, and the label that the user gave it.

    `cell` is the part of the session's plan that it fulfils.
    """

    measurement: Measurement
    session: str = ""
    label: str = ""
    cell: str = ""


def results_location() -> str:
    """A path or URL: `EDGEKIT_DB`, else `results.sqlite` in the user's data folder (XDG_DATA_HOME on Linux)."""
    from platformdirs import user_data_path

    return os.environ.get(VARIABLE) or str(user_data_path("edgekit", appauthor=False) / "results.sqlite")


class Results:
    """The results store, open; a context manager. Two processes may write to one store at the same time.

    Raises ResultsError: it is damaged, not one of edgekit's, of a newer edgekit, full, or can't be reached.
    """

    def __init__(self, location: str | Path | None = None) -> None:
        self._engine = database.open_database(str(location or results_location()))
        self.name = database.shown(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def add(self, measurement: Measurement, *, session: str = "", label: str = "", cell: str = "") -> Measurement:
        """Keep a measurement, whole or not at all; returns it with its id (a new one where it has none).

        Raises ResultsError where another measurement has that id; the same one again changes nothing.
        """
        if measurement.id and (known := self._known(measurement)):
            return known
        kept = measurement.model_copy(update={"id": measurement.id or secrets.token_hex(4)})
        row, series = _row(Run(measurement=kept, session=session, label=label, cell=cell)), _series(kept)
        row["sha256"] = _sha256(row["document"], series)
        with self._write() as connection:
            connection.execute(runs.insert().values(row))
            if series:
                numbers = [{"run": kept.id, "series": name, "numbers": text} for name, text in series.items()]
                connection.execute(samples.insert(), numbers)
        return kept

    def get(self, run_id: str) -> Run:
        """The run with this id, or whose id alone begins so; raises ResultsError that names what is there."""
        found = self.find(id_prefix=run_id, limit=2)
        exact = [run for run in found if run.measurement.id == run_id]
        if len(exact or found) != 1:
            what = f"several runs have ids that begin with {run_id!r}" if found else f"no run {run_id!r}"
            raise ResultsError(f"{what} in {self.name}: `edgekit runs` lists them")
        return (exact or found)[0]

    def find(self, *, id_prefix: str = "", limit: int | None = None, **equal: str | Sequence[str] | None) -> list[Run]:
        """Runs, newest first.

        `equal` names columns of `edgekit_runs` (session, label, bundle, bundle_sha256, target, scheme, device,
        accelerator, verdict) and the value, or the values, that they must have; None: any.
        """
        query = sa.select(runs).order_by(runs.c.time.desc(), runs.c.id).limit(limit)
        if id_prefix:
            query = query.where(runs.c.id.startswith(id_prefix, autoescape=True))
        for column, value in equal.items():
            if value is not None:
                query = query.where(runs.c[column].in_([value] if isinstance(value, str) else list(value)))
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
            series = _read_series(connection, [row["id"] for row in rows])
        return [self._run(row, series.get(row["id"], {})) for row in rows]

    def start_session(self, plan: str, *, resume: bool = False) -> str:
        """The id of a new session, or with `resume` of the newest one of the same plan that was not finished.

        Raises ResultsError where there is none to resume.
        """
        if not resume:
            session = secrets.token_hex(4)
            with self._write() as connection:
                time = datetime.datetime.now(datetime.UTC).isoformat()
                connection.execute(sessions.insert().values(id=session, time=time, plan=plan, finished=False))
            return session
        query = sa.select(sessions.c.id).where(sessions.c.plan == plan, sessions.c.finished.is_(False))
        with self._read() as connection:
            found = connection.execute(query.order_by(sessions.c.time.desc()).limit(1)).scalar()
        if found is None:
            raise ResultsError(
                "nothing to resume: no unfinished bench of these bundles, devices and settings "
                f"is in {self.name} (a bundle that was exported again is another); run it without --resume"
            )
        return str(found)

    def finish_session(self, session: str) -> None:
        """Mark a session as measured to its end."""
        with self._write() as connection:
            connection.execute(sessions.update().where(sessions.c.id == session).values(finished=True))

    def last_session(self) -> str:
        """The session of the newest run; raises ResultsError where nothing was measured yet."""
        newest = self.find(limit=1)
        if not newest:
            raise ResultsError(f"nothing was measured yet in {self.name}: `edgekit bench` measures")
        return newest[0].session

    def _known(self, measurement: Measurement) -> Measurement | None:
        known = [run.measurement for run in self.find(id_prefix=measurement.id) if run.measurement.id == measurement.id]
        if known and known[0] != measurement:
            raise ResultsError(f"another measurement with the id {measurement.id} is in {self.name}: it was kept")
        return known[0] if known else None

    def _run(self, row: Any, series: dict[str, str]) -> Run:
        if _sha256(row["document"], series) != row["sha256"]:
            raise ResultsError(f"the run {row['id']} in {self.name} was changed or damaged since it was kept (sha256)")
        document = json.loads(row["document"])
        document[_SERIES].update({name: json.loads(numbers) for name, numbers in series.items()})
        try:
            measurement = Measurement.model_validate(document)
        except ValidationError as error:
            reason = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
            raise ResultsError(f"the run {row['id']} in {self.name} can't be read: {reason}") from error
        return Run(measurement=measurement, session=row["session"], label=row["label"], cell=row["cell"])

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with database.explained(self.name), database.writing(self._engine) as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with database.explained(self.name), self._engine.connect() as connection:
            yield connection


def save_beside(measurement: Measurement) -> Path:
    """Write a measurement that the store would not take as JSON, for `edgekit runs import`; returns where it is.

    It goes to the working folder, or where that can't be written, to the temporary one. Raises ResultsError where
    neither takes it.
    """
    name = f"edgekit-run-{measurement.id or secrets.token_hex(4)}.json"
    refusals = []
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(measurement.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            refusals.append(f"{folder}: {error.strerror}")
            (folder / name).unlink(missing_ok=True)
        else:
            return folder / name
    raise ResultsError(f"the measurement could not be written as {name} either ({'; '.join(refusals)})")


def _row(run: Run) -> dict[str, Any]:
    """The row of `edgekit_runs`: the measurement without its series, and what it is found by."""
    measurement = run.measurement
    document = measurement.model_dump(mode="json")
    document[_SERIES] = {name: value for name, value in document[_SERIES].items() if not isinstance(value, list)}
    same = ("id", "time", "bundle", "bundle_sha256", "model_sha256", "target", "scheme", "runtime", "runtime_version")
    also = ("tool", "fingerprint", "accelerator", "verdict")
    return {
        **{name: getattr(measurement, name) for name in (*same, *also)},
        "device": measurement.device.address,
        "session": run.session,
        "cell": run.cell,
        "label": run.label,
        "document": json.dumps(document, ensure_ascii=False),
    }


def _series(measurement: Measurement) -> dict[str, str]:
    """Every series of samples that has any, as JSON."""
    lists = measurement.samples.model_dump(mode="json").items()
    return {name: json.dumps(value) for name, value in lists if isinstance(value, list) and value}


def _sha256(document: str, series: Mapping[str, str]) -> str:
    """The hash that shows whether a kept run is still what was measured; SQLite itself would not notice."""
    return hashlib.sha256(json.dumps([document, sorted(series.items())]).encode()).hexdigest()


def _read_series(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Run id → series → numbers; asked for in parts, because a statement takes a limited number of values."""
    found: dict[str, dict[str, str]] = {}
    for start in range(0, len(ids), _MOST_VALUES):
        query = sa.select(samples).where(samples.c.run.in_(ids[start : start + _MOST_VALUES]))
        for row in connection.execute(query):
            found.setdefault(row.run, {})[row.series] = row.numbers
    return found
