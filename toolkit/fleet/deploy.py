"""Starts the workers of a fleet by dask's own means: on this machine, to try it, or over SSH.

Only imported where dask is installed. Each worker is one process with one thread, named like its host, with the
resource `host:NAME` that trials ask for. A nanny starts it again when it dies. The scheduler runs in this process.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, cast
from urllib.request import urlopen

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.deploy import ssh

from toolkit import __version__
from toolkit.errors import UnreachableError, UsageError, printable
from toolkit.fleet.dask_client import CONNECT_S, LOCAL_OPTIONS, WORKERS_S, scratch_folder
from toolkit.fleet.mesh import FleetHost

_SSH_S = 15.0
_DASHBOARD_S = 3.0


@contextmanager
def local_workers(hosts: Mapping[str, FleetHost], *, in_process: bool = False) -> Iterator[Any]:
    """A client of workers on this machine, one for each host. in_process: as threads, for tests."""
    options: dict[str, Any] = {**LOCAL_OPTIONS, **({"preload": []} if in_process else {})}
    kind = Worker if in_process else Nanny
    workers = {name: {"cls": kind, "options": {**options, **_worker_options(name)}} for name in hosts}
    with scratch_folder(), _cluster(workers, "127.0.0.1") as client:
        yield client


@contextmanager
def ssh_workers(hosts: Mapping[str, FleetHost]) -> Iterator[Any]:
    """A client of workers that are started over SSH, with the keys and the settings of the user's own ssh.

    Raises UnreachableError without hosts, and UsageError without asyncssh.
    """
    workers = {}
    for name, host in hosts.items():
        user, _, address = host.ssh.rpartition("@")
        connection = {"username": user} if user else {}
        workers[name] = {
            "cls": ssh.Worker,
            "options": {
                "address": address,
                "connect_options": connection,
                "kwargs": _worker_options(name),
                "remote_python": host.python,
            },
        }
    # dask learns from its worker's log that the worker has started, and workers take their settings from here.
    logging = {**dask.config.get("logging", {}), "distributed.worker": "info"}
    with dask.config.set(logging=logging), _cluster(workers, None) as client:
        yield client


def ssh_failures(hosts: Mapping[str, FleetHost]) -> dict[str, str]:
    """The hosts that ssh does not reach, or that lack this nettool: name -> reason. Raises UsageError without asyncssh.

    Workers start together, so that one that cannot would keep all others from it.
    """
    if find_spec("asyncssh") is None:
        raise UsageError("workers over SSH need asyncssh, which is not installed: pip install 'nettool[fleet]'")
    import asyncssh

    async def attempt(host: FleetHost) -> str:
        user, _, address = host.ssh.rpartition("@")
        try:
            options = {"username": user} if user else {}
            connection = await asyncio.wait_for(asyncssh.connect(address, **options), _SSH_S)
            try:
                return await asyncio.wait_for(_lack(connection, host), _SSH_S)
            finally:
                connection.close()
        except TimeoutError:
            return f"ssh to {host.ssh} does not answer within {_SSH_S:.0f} s"
        except asyncssh.PermissionDenied:
            return f"ssh to {host.ssh} is denied: add your key there, with ssh-copy-id {host.ssh}"
        except asyncssh.HostKeyNotVerifiable:
            return f"ssh does not know the key of {host.ssh}: connect once by hand, with ssh {host.ssh}"
        except (OSError, asyncssh.Error) as error:
            return f"ssh to {host.ssh} fails: {printable(str(error), 100)}"

    async def attempt_all() -> list[str]:
        return await asyncio.gather(*(attempt(host) for host in hosts.values()))

    reasons = zip(hosts, asyncio.run(attempt_all()), strict=True)
    return {name: reason for name, reason in reasons if reason}


async def _lack(connection: Any, host: FleetHost) -> str:
    """Why a worker would not start on a host; empty if it would."""
    python = host.python or sys.executable  # as dask chooses it
    answer = await connection.run(f'{python} -c "import distributed, toolkit; print(toolkit.__version__)"')
    if answer.exit_status != 0:
        said = printable((str(answer.stderr).strip().splitlines() or ["no reason given"])[-1], 100)
        return f"{python} there has no nettool[fleet] ({said}): install it, or give the host's 'python' in the mesh"
    version = printable(str(answer.stdout).strip(), 40)
    return (
        "" if version == __version__ else f"it has nettool {version}, and this machine {__version__}: install the same"
    )


def dashboard_of(client: Any) -> str | None:
    """The address of dask's dashboard; None if nothing is there.

    The scheduler names one even without bokeh, or if it was started with --no-dashboard.
    """
    with suppress(Exception):  # it is built from configuration and services, either of which may be missing
        link = str(client.dashboard_link)
        with urlopen(link, timeout=_DASHBOARD_S):
            return link
    return None


def _worker_options(name: str) -> dict[str, Any]:
    # A worker that finds no scheduler ends by itself, even if this process was killed while the worker started.
    return {"name": name, "nthreads": 1, "resources": {f"host:{name}": 1}, "death_timeout": WORKERS_S}


@contextmanager
def _cluster(workers: Mapping[str, Any], host: str | None) -> Iterator[Any]:
    scheduler = {"cls": Scheduler, "options": {"host": host, "port": 0, "dashboard_address": ":0"}}
    try:
        # An interrupt while the workers start leaves a cluster that dask's own handler at the exit cannot close.
        cluster: Any = cast(Any, SpecCluster)(
            workers=workers, scheduler=scheduler, silence_logs=False, shutdown_on_close=False
        )
    except Exception as error:  # whatever dask or a worker's machine says
        raise UnreachableError(f"the workers do not start: {printable(str(error), 200)}") from None
    try:
        with cast(Any, Client)(cluster) as client:
            yield client
    finally:
        cluster.close(timeout=CONNECT_S)
