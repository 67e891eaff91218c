"""Connections to dask.distributed. It is an extra and slow to import, so that happens here, and only when it is used.

dask's own log is switched off, here and in workers that are started from here: what concerns the user is reported in
one line, by whoever waits for a result. DASK_LOGGING__DISTRIBUTED switches it on again.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

from toolkit import __version__
from toolkit.errors import UnreachableError, UsageError, printable

CONNECT_S = 10.0
WORKERS_S = 60.0
"""How long to wait for the first worker of a scheduler."""
LOCAL_OPTIONS = {
    "memory_limit": 0,
    "dashboard_address": None,
    "preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],  # Ctrl-C is for whoever started them
}
"""Options of worker processes on this machine."""
_NO_LOG = "critical"
_SCHEDULER = re.compile(r"(tcp|tls)://\S+:\d+")


def distributed() -> Any:
    """The module. Raises UsageError if it is not installed."""
    if find_spec("distributed") is None:
        raise UsageError("this needs dask.distributed, which is not installed: pip install 'nettool[fleet]'")
    is_logged = os.environ.get("DASK_LOGGING__DISTRIBUTED", _NO_LOG) != _NO_LOG  # a parent may have set it, below
    for name in ("DISTRIBUTED", "TORNADO", "ASYNCIO"):
        os.environ.setdefault(f"DASK_LOGGING__{name}", _NO_LOG)
    import distributed as module

    if not is_logged:
        for name in ("distributed.client", "tornado.application"):  # dask sets them apart, and no variable names them
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return module


def check_scheduler(address: str) -> str:
    """The address of a scheduler. Raises UsageError if it is none."""
    if not _SCHEDULER.fullmatch(address):
        raise UsageError(
            f"'{printable(address, 60)}' is no scheduler: write tcp://HOST:PORT, as dask-scheduler prints it"
        )
    return address


@contextmanager
def client_of(scheduler: str) -> Iterator[Any]:
    """A client of a scheduler that runs already. Raises UnreachableError."""
    module = distributed()
    try:
        client = module.Client(scheduler, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnreachableError(
            f"no dask scheduler answers at {printable(scheduler, 60)} ({_first_line(error)}); start one: dask scheduler"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


@contextmanager
def client_of_local(workers: int) -> Iterator[Any]:
    """A client of a scheduler with so many worker processes, one thread each, that run on this machine meanwhile."""
    module = distributed()
    with scratch_folder():
        any_port = {"dashboard_address": ":0"}  # the usual one may be taken, for example by another grid
        cluster = module.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, scheduler_kwargs=any_port, **LOCAL_OPTIONS
        )
        try:
            with module.Client(cluster) as client:
                yield client
        finally:
            cluster.close(timeout=CONNECT_S)


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Let dask write its own files in a folder that is removed at the end."""
    from dask import config

    with (
        TemporaryDirectory(prefix="nettool-fleet-", ignore_cleanup_errors=True) as folder,
        config.set({"temporary-directory": folder}),
    ):
        yield


def check_versions(client: Any) -> None:
    """Raise UsageError, which names the worker, if any cannot import nettool or has another version of it.

    `eval` exists everywhere. A worker that lacks nettool cannot load a function of nettool, and ends.
    """
    for address, answer in client.run(eval, "__import__('toolkit').__version__", on_error="return").items():
        if isinstance(answer, ImportError | AttributeError):
            raise UsageError(f"the worker at {address} has no nettool: install {__version__} there")
        if isinstance(answer, str) and answer != __version__:
            found = printable(answer, 40)
            raise UsageError(
                f"the worker at {address} has nettool {found}, and this machine {__version__}: install the same"
            )


def _first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0], 100)
