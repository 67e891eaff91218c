"""The options that the command line has for parameters of the API.

An error names a parameter as programs write it, in backticks, also one that a peer has sent. A user of the command line
reads the option in its place.
"""

import re
from collections.abc import Mapping
from typing import Final

OPTIONS: Final[Mapping[str, str]] = {
    "bind": "--bind",
    "budget": "--budget",
    "code": "--code",
    "competitor": "--competitor",
    "congestion_control": "--cc",
    "control": "--no-control",
    "delay_back": "--delay-back",
    "dotfiles": "--dotfiles",
    "exclude": "--exclude",
    "folder": "--dir",
    "into": "--dir",
    "is_reverse": "--reverse",
    "jitter": "--jitter",
    "jitter_reorders": "--jitter-reorders",
    "key": "--key",
    "limit": "--limit",
    "margin": "--margin",
    "max_bytes": "--max-bytes",
    "max_files": "--max-files",
    "max_seconds": "--max-time",
    "max_streams": "--max-streams",
    "output": "--output",
    "overwrite": "--overwrite",
    "patience": "--patience",
    "plaintext": "--plaintext",
    "port": "--port",
    "preserve": "--preserve",
    "qlog": "--qlog",
    "rate": "--rate",
    "rate_bps": "--rate",
    "repeats": "--repeat",
    "resume": "--resume",
    "rtt": "--rtt",
    "seed": "--seed",
    "sizes": "--size",
    "stall_seconds": "--stall-timeout",
    "streams": "--streams",
    "time": "--time",
    "transports": "--transports",
    "update": "--update",
    "wait": "--wait",
}
_PARAMETER: Final = re.compile(r"`([a-z_]+)`")


def with_options(text: str) -> str:
    """Return the text of an error with options in place of parameters in backticks; other backticks stay."""
    return _PARAMETER.sub(lambda match: OPTIONS.get(match[1], match[0]), text)
