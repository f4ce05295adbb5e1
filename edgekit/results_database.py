"""The database under the results store: its tables, how it is opened, and what its errors mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from edgekit.errors import ResultsError
from edgekit.extras import require

metadata = sa.MetaData()
_schema = sa.Table("edgekit_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))
sessions = sa.Table(
    "edgekit_sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("finished", sa.Boolean, nullable=False),
)
runs = sa.Table(
    "edgekit_runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in ("time", "session", "cell", "label", "bundle", "bundle_sha256", "model_sha256", "target", "scheme")
    ),
    *(
        sa.Column(name, sa.Text, nullable=False)
        for name in ("device", "accelerator", "runtime", "runtime_version", "tool", "fingerprint", "verdict", "sha256")
    ),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("edgekit_runs_by_time", "time"),
)
samples = sa.Table(
    "edgekit_samples",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("edgekit_runs.id"), primary_key=True),
    sa.Column("series", sa.Text, primary_key=True),
    sa.Column("numbers", sa.Text, nullable=False),
)

#: each takes a database from one version to the next; a new database is made at the last version at once
MIGRATIONS: tuple[tuple[str, ...], ...] = ()
_BUSY_TIMEOUT_S = 60.0
_LOCK_KEY = 0x65646765  # "edge": PostgreSQL's advisory lock while the tables are made or migrated
_EXPLAINED = {
    "database or disk is full": "the disk is full",
    "no space left on device": "the disk is full",
    "disk i/o error": "the disk is full or broken",
    "readonly database": "it is read-only",
    "database is locked": f"another process has held it for {_BUSY_TIMEOUT_S:.0f} s",
    "unable to open database": "it can't be opened or made there",
    "not a database": "it is not an SQLite database, or it is damaged",
    "malformed": "it is damaged",
    "connection refused": "the server can't be reached",
    "could not translate host name": "there is no such host",
    "failed to resolve host": "there is no such host",
    "password authentication failed": "the server refused the user or the password",
}


def latest_version() -> int:
    """The version of the tables that this edgekit reads and writes."""
    return 1 + len(MIGRATIONS)


def open_database(location: str) -> sa.Engine:
    """Open, and where needed make or migrate, the database at a path or a postgresql:// URL.

    Raises ResultsError: not SQLite or PostgreSQL, damaged, somebody else's, newer, or out of reach.
    """
    url = _parse_location(location)
    name = url.render_as_string(hide_password=True) if url.host or url.get_backend_name() != "sqlite" else location
    with explained(name):
        if url.get_backend_name() == "sqlite":
            engine = _open_sqlite(url)
        else:
            engine = sa.create_engine(url, connect_args={"connect_timeout": 10})
        try:
            _prepare(engine, name)
        except BaseException:
            engine.dispose()
            raise
    return engine


def shown(engine: sa.Engine) -> str:
    """The place of a database as messages name it: a path, or a URL without its password."""
    url = engine.url
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes: all of it is kept, or nothing; other writers wait."""
    with engine.connect() as connection:
        connection.execution_options(edgekit_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the database's errors into a ResultsError that names the place and says what to do."""
    try:
        yield
    except SQLAlchemyError as error:
        text = str(getattr(error, "orig", None) or error).strip()
        reason = next((said for part, said in _EXPLAINED.items() if part in text.lower()), text.splitlines()[0])
        damaged = isinstance(error, DatabaseError) and "damaged" in reason
        advice = "move it away" if damaged else "put that right"
        raise ResultsError(f"the results in {name}: {reason}; {advice}, or name another place in EDGEKIT_DB") from error


def _parse_location(location: str) -> sa.URL:
    if "://" not in location:
        return sa.URL.create("sqlite+pysqlite", database=str(Path(location).expanduser().absolute()))
    scheme = location.partition("://")[0]
    if scheme not in ("postgresql", "postgres"):
        raise ResultsError(f"EDGEKIT_DB names {scheme}://: results go to a path (SQLite) or to postgresql://…")
    require("psycopg", "EDGEKIT_DB=postgresql://…")
    try:
        return sa.make_url(location).set(drivername="postgresql+psycopg")
    except (SQLAlchemyError, ValueError) as error:
        raise ResultsError("EDGEKIT_DB is not a URL: it should be postgresql://user@host:port/database") from error


def _open_sqlite(url: sa.URL) -> sa.Engine:
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{path.parent} can't be made ({error.strerror})"
        raise ResultsError(f"the results in {path}: {reason}; name another place in EDGEKIT_DB") from error
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", _take_over_transactions)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _take_over_transactions(connection: sqlite3.Connection, _: object) -> None:
    """Python 3.11's sqlite3 begins transactions late and not before DDL: SQLAlchemy's `_begin` does it instead."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """A writer takes its lock at once: one that had read first could not wait for another writer (SQLITE_BUSY)."""
    writes = connection.get_execution_options().get("edgekit_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare(engine: sa.Engine, name: str) -> None:
    with engine.connect() as connection:
        if _version(connection, name) == latest_version():
            return  # nothing to write: a store that may only be read can be read
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        version = _version(connection, name)  # again: another process may have been here first
        if version == 0:
            metadata.create_all(connection)
        else:
            for statement in (line for step in MIGRATIONS[version - 1 :] for line in step):
                connection.exec_driver_sql(statement)
        connection.execute(_schema.delete())
        connection.execute(_schema.insert().values(version=latest_version()))


def _version(connection: sa.Connection, name: str) -> int:
    """The version of the tables there; 0: there are none."""
    tables = sa.inspect(connection).get_table_names()
    if _schema.name not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise ResultsError(f"{name} is a database of another program: name another place in EDGEKIT_DB")
        return 0
    version = connection.execute(sa.select(sa.func.max(_schema.c.version))).scalar() or 0
    if version > latest_version():
        raise ResultsError(
            f"the results in {name} were written by a newer edgekit (schema {version}, this one knows "
            f"{latest_version()}): update edgekit, or name another place in EDGEKIT_DB"
        )
    return version
