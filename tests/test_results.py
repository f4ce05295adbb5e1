"""The results store: nothing lost, nothing rounded, two writers, and clear errors for what is broken."""

import contextlib
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit import results_database
from edgekit.errors import ResultsError
from edgekit.measurement import Measurement, Samples
from edgekit.results import Results, results_location
from tests.conftest import lacking
from tests.measurements import fallen_back, measurement, sustained


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def test_what_is_kept_is_what_was_measured(path: Path) -> None:
    with Results(path) as results:
        kept = [results.add(made, session="s", label="main") for made in (measurement(), fallen_back(), sustained())]
    assert len({made.id for made in kept}) == 3
    with Results(path) as results:
        for made in kept:
            run = results.get(made.id)
            assert run.measurement == made
            assert (run.session, run.label) == ("s", "main")


floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latency=st.lists(floats), curve=st.lists(st.tuples(floats, floats, floats | st.none())), bundle=st.text(max_size=20)
)
def test_every_sample_comes_back_to_the_last_bit(
    path: Path, latency: list[float], curve: list[tuple[float, float, float | None]], bundle: str
) -> None:
    made = measurement(bundle=bundle.replace("\0", ""), samples=Samples(latency_ms=tuple(latency), curve=tuple(curve)))
    with Results(path) as results:
        assert results.get(results.add(made).id).measurement.samples == made.samples


def test_raw_samples_can_be_read_with_nothing_but_sqlite(path: Path) -> None:
    with Results(path) as results:
        made = results.add(measurement(count=5))
    with sqlite3.connect(path) as connection:
        query = "SELECT value FROM edgekit_samples, json_each(numbers) WHERE run = ? AND series = 'latency_ms'"
        assert tuple(row[0] for row in connection.execute(query, [made.id])) == made.samples.latency_ms


def test_find_filters_and_gives_the_newest_first(path: Path) -> None:
    with Results(path) as results:
        for day in (3, 1, 2):
            results.add(measurement(time=f"2026-01-0{day}T00:00:00+00:00"), label=f"day {day}")
        results.add(fallen_back(time="2026-01-09T00:00:00+00:00"))
        assert [run.label for run in results.find(accelerator="cpu")] == ["day 3", "day 2", "day 1"]
        assert [run.label for run in results.find(label=["day 1", "day 3"], limit=1)] == ["day 3"]
        assert [run.measurement.verdict for run in results.find(limit=1)] == ["fell-back"]
        assert results.find(bundle="another") == []


def test_ids_may_be_shortened_as_long_as_they_are_clear(path: Path) -> None:
    with Results(path) as results:
        for run_id in ("abcd", "abce", "abcdef"):
            results.add(measurement(id=run_id))
        assert results.get("abce").measurement.id == "abce"
        assert results.get("abcd").measurement.id == "abcd"  # exact, though another begins so
        with pytest.raises(ResultsError, match="several runs have ids that begin with 'abc'"):
            results.get("abc")
        with pytest.raises(ResultsError, match="no run '%'"):
            results.get("%")


def test_the_same_measurement_twice_is_one_and_another_with_its_id_is_refused(path: Path) -> None:
    with Results(path) as results:
        made = results.add(measurement())
        assert results.add(made) == made
        assert len(results.find()) == 1
        with pytest.raises(ResultsError, match="another measurement with the id"):
            results.add(made.model_copy(update={"accuracy": 0.1}))
        assert results.get(made.id).measurement == made


def test_sessions_are_resumed_by_their_plan(path: Path) -> None:
    with Results(path) as results:
        first = results.start_session("plan")
        assert results.start_session("plan", resume=True) == first
        with pytest.raises(ResultsError, match="nothing to resume"):
            results.start_session("another plan", resume=True)
        results.finish_session(first)
        with pytest.raises(ResultsError, match="nothing to resume"):
            results.start_session("plan", resume=True)


WRITE_TWENTY = """
import sys
from edgekit.results import Results
from tests.measurements import measurement
for index in range(20):
    with Results(sys.argv[1]) as results:
        results.add(measurement(count=300, bundle=f"{sys.argv[2]} {index}"))
"""


def test_processes_that_write_at_the_same_time_lose_nothing(path: Path) -> None:
    """Both also make the database: there is none when they start."""
    command = [sys.executable, "-c", WRITE_TWENTY, str(path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    for writer in writers:
        _, stderr = writer.communicate(timeout=120)
        assert writer.returncode == 0, stderr
    with Results(path) as results:
        kept = [run.measurement for run in results.find()]
    assert {made.bundle for made in kept} == {f"{name} {index}" for name in "abc" for index in range(20)}
    assert all(len(made.samples.latency_ms) == 300 for made in kept)


def test_a_file_of_another_kind_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"these are my notes, not a database\n" * 200)
    with pytest.raises(ResultsError, match="not an SQLite database, or it is damaged; move it away"):
        Results(path)
    assert path.read_bytes().startswith(b"these are my notes")


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id)")
    with pytest.raises(ResultsError, match="a database of another program"):
        Results(path)


def test_a_damaged_database_is_one_clear_error_and_never_wrong_numbers(path: Path) -> None:
    with Results(path) as results:
        kept = {made.id: made for made in (results.add(measurement(seed=seed)) for seed in range(5))}
    whole = path.read_bytes()
    noise = random.Random(1)
    for _ in range(40):
        broken, start = bytearray(whole), noise.randrange(0, len(whole) - 512)
        broken[start : start + 512] = noise.randbytes(512)
        path.write_bytes(broken)
        with contextlib.suppress(ResultsError), Results(path) as results:
            assert all(run.measurement == kept[run.measurement.id] for run in results.find())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE edgekit_samples SET numbers = replace(numbers, '3.', '2.') WHERE series = 'latency_ms'",
        "DELETE FROM edgekit_samples WHERE series = 'steps'",
        "UPDATE edgekit_runs SET document = replace(document, 'XNNPACK', 'GPU')",
    ],
)
def test_a_run_that_was_changed_by_hand_is_named(path: Path, change: str) -> None:
    with Results(path) as results:
        made = results.add(measurement())
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    with Results(path) as results, pytest.raises(ResultsError, match=f"run {made.id} .* changed or damaged"):
        results.get(made.id)


def test_a_newer_database_is_refused_with_what_to_do(path: Path) -> None:
    Results(path).__exit__()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE edgekit_schema SET version = 99")
    with pytest.raises(ResultsError, match=r"newer edgekit .schema 99, this one knows 1.: update edgekit"):
        Results(path)


def test_an_older_database_is_migrated_once_and_keeps_its_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Results(path) as results:
        made = results.add(measurement())
    step = ("ALTER TABLE edgekit_runs ADD COLUMN note TEXT DEFAULT ''", "UPDATE edgekit_runs SET note = 'migrated'")
    monkeypatch.setattr(results_database, "MIGRATIONS", (step,))
    for _ in range(2):
        with Results(path) as results:
            assert results.get(made.id).measurement == made
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT note FROM edgekit_runs").fetchall() == [("migrated",)]
        assert connection.execute("SELECT version FROM edgekit_schema").fetchall() == [(2,)]


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Results(path) as results:
        made = results.add(measurement())
    monkeypatch.setattr(results_database, "MIGRATIONS", (("DROP TABLE edgekit_samples", "no such statement"),))
    with pytest.raises(ResultsError, match="syntax error"):
        Results(path)
    monkeypatch.undo()
    with Results(path) as results:
        assert results.get(made.id).measurement == made


KEEP_UNTIL_FULL = """
import sys
from edgekit.errors import ResultsError
from edgekit.results import Results
from tests.measurements import measurement
kept = []
with Results(sys.argv[1] + "/results.sqlite") as results:
    try:
        while len(kept) < 100: kept.append(results.add(measurement(count=2000, seed=len(kept))))
    except ResultsError as error: print(error)
with Results(sys.argv[1] + "/results.sqlite") as results:
    print(len(kept), [results.get(made.id).measurement == made for made in kept].count(True), len(results.find()))
"""


def test_a_full_disk_is_said_and_what_was_kept_before_stays(tmp_path: Path) -> None:
    isolate = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = 'mount -t tmpfs -o size=400k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    run = subprocess.run(
        [*isolate, "sh", "-c", command, "sh", str(tmp_path), sys.executable, KEEP_UNTIL_FULL],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if run.returncode and "unshare" in run.stderr:
        lacking(f"mount namespaces: {run.stderr.strip()}")
    message, counts = run.stdout.splitlines()
    assert "the disk is full; put that right, or name another place in EDGEKIT_DB" in message
    kept, equal, found = map(int, counts.split())
    assert 0 < kept == equal == found


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="name another place in EDGEKIT_DB"):
        Results(tmp_path / "file" / "results.sqlite")
    with pytest.raises(ResultsError, match="can't be opened"):
        Results(tmp_path)


def test_where_results_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_DB", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert results_location() == str(tmp_path / "data" / "edgekit" / "results.sqlite")
    monkeypatch.setenv("EDGEKIT_DB", str(tmp_path / "mine.sqlite"))
    with Results() as results:
        results.add(measurement())
    assert (tmp_path / "mine.sqlite").is_file()


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("mysql://host/results", "to postgresql://"),
        ("postgresql://user@host:port/x", "not a URL"),
        ("postgresql://me:secret@127.0.0.1:9/x", "the server can't be reached"),
    ],
)
def test_other_locations_are_refused_without_their_password(location: str, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as refused:
        Results(location)
    assert "secret" not in str(refused.value)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A real server, of this test alone; it refuses to run as root, so there it is `nobody`'s."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [Path(shutil.which("postgres") or "none")]
    binaries = found[-1].parent
    if not found[-1].exists() or not (binaries / "initdb").exists():
        lacking("PostgreSQL")
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="edgekit-pg-", dir="/tmp") as folder:  # its socket's path must be short
        if as_user:
            os.chown(folder, 65534, 65534)
        run = [*as_user, str(binaries / "initdb"), "-D", f"{folder}/data", "-U", "team", "-A", "trust", "-N"]
        subprocess.run(run, check=True, capture_output=True, cwd=folder, timeout=120)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = ["-D", f"{folder}/data", "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with subprocess.Popen([*as_user, str(binaries / "postgres"), *options], stderr=subprocess.DEVNULL) as server:
            try:
                url = f"postgresql://team@127.0.0.1:{port}/postgres"
                _wait_until_ready(url)
                yield url
            finally:
                server.terminate()


def _wait_until_ready(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            return Results(url).__exit__()
        except ResultsError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_postgresql_keeps_the_same(postgresql: str) -> None:
    with Results(postgresql) as results:
        made: list[Measurement] = [results.add(each, label="team") for each in (measurement(), sustained())]
        assert [results.get(each.id).measurement for each in made] == made
        assert {run.measurement.id for run in results.find(label="team")} == {each.id for each in made}
        session = results.start_session("plan")
        assert results.start_session("plan", resume=True) == session
        results.finish_session(session)
    with pytest.raises(ResultsError, match='database "nowhere" does not exist'):
        Results(postgresql.replace("/postgres", "/nowhere"))


def test_processes_write_to_postgresql_at_the_same_time(postgresql: str) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_TWENTY, postgresql, name]) for name in "xy"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    with Results(postgresql) as results:
        wanted = [f"{name} {index}" for name in "xy" for index in range(20)]
        assert len(results.find(bundle=wanted)) == 40
