"""Measured times on disk: one SQLite file that several processes may use at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from orchestrator.cost.environment import Environment

# Bump when keys or units change: older tables are then set aside, not misread.
TABLE_VERSION = 4
_BUSY_TIMEOUT_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS costs (
    key TEXT NOT NULL,
    backend TEXT NOT NULL,
    target TEXT NOT NULL,
    cpu TEXT NOT NULL,
    threads INTEGER NOT NULL,
    versions TEXT NOT NULL,
    median_ns REAL NOT NULL CHECK (median_ns >= 0),
    spread_ns REAL NOT NULL CHECK (spread_ns >= 0),
    runs INTEGER NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (key, backend, target, cpu, threads, versions)
);
CREATE TABLE IF NOT EXISTS program_factors (
    digest TEXT NOT NULL,
    backend TEXT NOT NULL,
    target TEXT NOT NULL,
    cpu TEXT NOT NULL,
    threads INTEGER NOT NULL,
    versions TEXT NOT NULL,
    factor REAL NOT NULL CHECK (factor > 0),
    call_ns REAL NOT NULL CHECK (call_ns >= 0),
    PRIMARY KEY (digest, backend, target, cpu, threads, versions)
);
CREATE TABLE IF NOT EXISTS plans (
    digest TEXT NOT NULL,
    target TEXT NOT NULL,
    cpu TEXT NOT NULL,
    threads INTEGER NOT NULL,
    versions TEXT NOT NULL,
    plan TEXT NOT NULL,
    PRIMARY KEY (digest, target, cpu, threads, versions)
);
"""


# The fields of an Environment, in their order.
_IN_ENVIRONMENT = "target = ? AND cpu = ? AND threads = ? AND versions = ?"


class CostTableError(RuntimeError):
    """The cost table cannot be used; says what to do."""


@dataclass(frozen=True)
class Measurement:
    """The time of one atom: median and half the interquartile range, in nanoseconds.

    runs: how many were timed; 0 if the backend cannot run the atom after all, so that it is not
    tried again and again. label: for people; of a failure, the reason.
    """

    median_ns: float
    spread_ns: float
    runs: int
    label: str = ""

    @property
    def failed(self) -> bool:
        """Whether there is no time."""
        return self.runs == 0


@dataclass(frozen=True)
class ProgramFactor:
    """What a whole program took on a backend over its ops alone.

    factor: of the times of ops. call_ns: what each delegate call took more.
    """

    factor: float
    call_ns: float


def default_path() -> Path:
    """Where the table lies unless the user says otherwise: in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    # Another version's table stays where it is, for that version.
    return Path(base) / "executorch-orchestrator" / f"costs-v{TABLE_VERSION}.sqlite"


class CostTable:
    """Costs by (key, backend, environment). Every call is a transaction of its own, so a process
    that is killed loses at most the measurement it was making.

    Raises (from any call):
        CostTableError: the file is no cost table, is damaged or belongs to another version.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else default_path()
        self._prepare()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        connection.execute("PRAGMA journal_mode=WAL")
        return connection

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection, connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version not in (0, TABLE_VERSION):
                    raise CostTableError(
                        f"{self.path} is a cost table of version {version}, this program reads "
                        f"{TABLE_VERSION}; {self._way_out()}"
                    )
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {TABLE_VERSION}")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _way_out(self) -> str:
        return "move the file away or name another one, and measure again"

    def _failure(self, error: sqlite3.Error) -> CostTableError:
        return CostTableError(f"cost table {self.path}: {error}; {self._way_out()}")

    def _read(self, sql: str, arguments: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(self._connect()) as connection:
                return connection.execute(sql, tuple(arguments)).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _write(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Writes all rows or none."""
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def put(
        self,
        environment: Environment,
        backend: str,
        measurements: Mapping[str, Measurement],
    ) -> None:
        """Stores measurements by key, over older ones, all or none."""
        self._write(
            "INSERT OR REPLACE INTO costs VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                (key, backend, *astuple(environment), *astuple(measured))
                for key, measured in measurements.items()
            ),
        )

    def get(
        self, environment: Environment, backend: str, keys: Iterable[str]
    ) -> dict[str, Measurement]:
        """The measurements that there are for these keys."""
        wanted = set(keys)
        rows = self._read(
            "SELECT key, median_ns, spread_ns, runs, label FROM costs WHERE backend = ? "
            f"AND {_IN_ENVIRONMENT}",
            (backend, *astuple(environment)),
        )
        return {row[0]: Measurement(*row[1:]) for row in rows if row[0] in wanted}

    def put_factor(
        self, environment: Environment, backend: str, digest: str, factor: ProgramFactor
    ) -> None:
        """Stores what a program (by its digest) took over its ops alone, over an older factor."""
        row = (digest, backend, *astuple(environment), *astuple(factor))
        self._write("INSERT OR REPLACE INTO program_factors VALUES (?,?,?,?,?,?,?,?)", [row])

    def factors(self, environment: Environment, backend: str) -> list[ProgramFactor]:
        """The factors of all programs."""
        rows = self._read(
            f"SELECT factor, call_ns FROM program_factors WHERE backend = ? AND {_IN_ENVIRONMENT}",
            (backend, *astuple(environment)),
        )
        return [ProgramFactor(*row) for row in rows]

    def environments(self, backend: str | None = None) -> list[Environment]:
        """Every environment that has measurements, or those of one backend."""
        rows = self._read(
            "SELECT DISTINCT target, cpu, threads, versions FROM costs "
            "WHERE ? IS NULL OR backend = ? ORDER BY 1, 2, 3, 4",
            (backend, backend),
        )
        return [Environment(*row) for row in rows]

    def put_plan(self, environment: Environment, digest: str, plan: str) -> None:
        """Stores a plan (JSON) for the program with this digest, over an older one."""
        row = (digest, *astuple(environment), plan)
        self._write("INSERT OR REPLACE INTO plans VALUES (?,?,?,?,?,?)", [row])

    def get_plan(self, environment: Environment, digest: str) -> str | None:
        """The plan that was stored for a program, or None."""
        rows = self._read(
            f"SELECT plan FROM plans WHERE digest = ? AND {_IN_ENVIRONMENT}",
            (digest, *astuple(environment)),
        )
        return str(rows[0][0]) if rows else None
