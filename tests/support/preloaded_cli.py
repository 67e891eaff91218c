"""Imports whatever the commands and their processes import, once, in a process that others are forked from."""

import mmap
from contextlib import suppress
from importlib import import_module

from toolkit.cli.app import COMMANDS, invoke
from toolkit.comparison import workspace
from toolkit.errors import UsageError
from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse
from toolkit.transports.registry import transport

workspace.WARM_BYTES = mmap.PAGESIZE  # nobody judges the speed of these trials
for module in {target.partition(":")[0] for target, _ in COMMANDS.values()}:
    import_module(module)
for name in ("tcp", "udp"):
    transport(name)
for name in (
    "toolkit.rudp.congestion.bbr",
    "toolkit.comparison.emulated_testbed",
    "toolkit.comparison.peers.iperf3",
    "toolkit.comparison.peers.quic",
    "toolkit.comparison.worker",
    "toolkit.emulator.link_process",
    "toolkit.emulator.start",
):
    import_module(name)
for method in Method:
    rehearse(method)  # cryptography loads its parts at their first use
with suppress(UsageError):
    invoke(["tcp-send", "--rate", "invalid", "file", "host"])  # typer imports its converters at the first parse
