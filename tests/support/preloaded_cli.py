"""Imports whatever the commands import, once, in the server process that `forked_cli` forks from."""

from contextlib import suppress
from importlib import import_module

from toolkit.cli.app import COMMANDS, invoke
from toolkit.errors import UsageError
from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse
from toolkit.transports.registry import transport

for module in {target.partition(":")[0] for target, _ in COMMANDS.values()}:
    import_module(module)
for name in ("tcp", "udp"):
    transport(name)
import_module("toolkit.rudp.congestion.bbr")
import_module("toolkit.compare.emulated_testbed")
for method in Method:
    rehearse(method)  # cryptography loads its parts at their first use
with suppress(UsageError):
    invoke(["tcp-send", "--rate", "invalid", "file", "host"])  # typer imports its converters at the first parse
