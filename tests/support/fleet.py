"""A fleet in one process: dask workers as threads, and trials that a table of truths answers instead of a network."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet_files import mesh_file
from toolkit.comparison.json_codec import encode
from toolkit.comparison.paths import between
from toolkit.comparison.record_file import Record, line, read
from toolkit.comparison.records import Results, Trial
from toolkit.fleet import agent, run
from toolkit.fleet.agent import Missing, TrialOrder
from toolkit.fleet.deploy import local_workers
from toolkit.fleet.mesh import Mesh, read_mesh

ANSWERS: dict[tuple[str, str], list[str]] = {}
"""Pair -> what its next trials meet instead of a network: a reason why the receiver is missing, or "" for a result."""
BUSY: set[str] = set()
COLLISIONS: list[str] = []
_LOCK = threading.Lock()


class NoReceiver:
    """Stands for `ReceiverProcess`."""

    port = 1
    is_alive = True

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def remove_at_end(self, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


def invented(order: TrialOrder) -> str | Missing:
    """A trial without a network; it notes when one of its hosts is in another one."""
    hosts = {order.sender, order.receiver}
    with _LOCK:
        COLLISIONS.extend(BUSY & hosts)
        BUSY.update(hosts)
        answers = ANSWERS.get((order.sender, order.receiver), [])
        reason = answers.pop(0) if answers else ""
    threading.Event().wait(0.005)
    with _LOCK:
        BUSY.difference_update(hosts)
    if reason:
        return Missing(order.receiver, reason)
    trial = Trial(
        block=order.spec.block,
        position=order.position,
        transport=order.spec.setting.label,
        path=between(order.sender, order.receiver).label,
        payload_bytes=order.spec.payload_bytes,
        verified=True,
        seconds=1.0,
        goodput_bps=1e6 * (1 + order.position % 3),
    )
    return json.dumps(encode(trial))


@contextmanager
def invented_fleet(monkeypatch: pytest.MonkeyPatch, answers: Mapping[tuple[str, str], list[str]]) -> Iterator[None]:
    """Let trials meet `answers` while the block runs."""
    monkeypatch.setattr(agent, "ReceiverProcess", NoReceiver)
    monkeypatch.setattr(run, "measure", invented)
    monkeypatch.setattr(run, "_LOOK_S", 0.05)
    ANSWERS.clear()
    ANSWERS.update({pair: list(each) for pair, each in answers.items()})
    COLLISIONS.clear()
    BUSY.clear()
    yield


def mesh_of(folder: Path, text: str) -> Mesh:
    """The mesh of a file with this text."""
    return read_mesh(mesh_file(folder, text))


def run_mesh(mesh: Mesh, path: Path, client: Any, stop_after: int | None = None) -> Results:
    """Run a mesh, or the rest of one that `path` holds, and read what it has written."""
    done = read(path) if path.exists() else None
    count = 0

    def write(record: Record) -> None:
        nonlocal count
        with path.open("a") as file:
            file.write(line(record) + "\n")
        count += isinstance(record, Trial)
        if stop_after is not None and count >= stop_after:
            raise KeyboardInterrupt

    run.FleetRun(client, mesh, write, done).run()
    return read(path)


@contextmanager
def workers_of(mesh: Mesh, *absent: str) -> Iterator[Any]:
    """A client of workers for all hosts but those that are absent, as threads."""
    hosts = {name: host for name, host in mesh.hosts.items() if name not in absent}
    with local_workers(hosts, in_process=True) as client:
        yield client
