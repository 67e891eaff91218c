"""The options of sending, receiving and comparing; each is worded here once. Link options are in `link_options`."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from toolkit.api.target import DEFAULT_PORT
from toolkit.channel import DEFAULT_CONNECT_TIMEOUT_S
from toolkit.cli.command import flag, number, option
from toolkit.cli.help import GENERAL

DEFAULT_BIND = "127.0.0.1"
STREAM_NAME = "stdin"
DEFAULT_IDLE_TIMEOUT = "30s"
DEFAULT_MAX_STREAMS = 16
DEFAULT_RETRY = "5s"
DEFAULT_RECEIVER_RETRY = "10s"
"""Longer than a sender tries: the receiver may notice the loss first."""
DEFAULT_CONNECT_TIMEOUT = f"{DEFAULT_CONNECT_TIMEOUT_S:g}s"

# Headings in the help texts.
FILES = "Files"
CONNECTION = "Connection"
RECORDS = "Records"


class OffloadChoice(StrEnum):
    """The values of --offload."""

    AUTO = "auto"
    OFF = "off"


class DigestChoice(StrEnum):
    """The values of --digest: those of `toolkit.transfer.digest.ALGORITHMS`, repeated to keep --help fast."""

    XXH3 = "xxh3-128"
    BLAKE3 = "blake3"


Json = Annotated[bool, flag("--json", text="Print results as JSON on stdout, and nothing else there.", panel=GENERAL)]
Verbose = Annotated[
    bool,
    flag("--verbose", "-v", text="List every file with its digest, and what the path did.", panel=GENERAL),
]
Quiet = Annotated[bool, flag("--quiet", "-q", text="Print errors only.", panel=GENERAL)]
Watch = Annotated[
    bool, flag("--watch", text="Draw goodput, round trip, window and packets sent again as charts.", panel=GENERAL)
]
Scheduler = Annotated[
    str | None,
    option("--scheduler", metavar="ADDRESS", text="Use the workers of this dask scheduler, tcp://HOST:PORT."),
]

Bind = Annotated[
    str,
    option(
        "--bind",
        metavar="ADDRESS",
        text="Address to listen on; 0.0.0.0 is every IPv4 address of this machine, :: also every IPv6 address.",
        panel=CONNECTION,
    ),
]
Port = Annotated[
    int,
    number(
        "--port",
        low=0,
        high=65535,
        metavar="PORT",
        text="Port to listen on; 0 picks a free one and prints it.",
        panel=CONNECTION,
    ),
]
IdleTimeout = Annotated[
    str,
    option(
        "--idle-timeout",
        metavar="TIME",
        text="Silence after which the peer is considered gone, for example 30s.",
        panel=CONNECTION,
    ),
]
Offload = Annotated[
    OffloadChoice,
    typer.Option(
        help="UDP batching: auto uses what the kernel offers, off sends each packet by itself.",
        rich_help_panel=CONNECTION,
    ),
]
Qlog = Annotated[
    str | None,
    option(
        "--qlog",
        metavar="FILE",
        text="Write a qlog of the connection, for qvis; a receiver numbers the later ones.",
        panel=CONNECTION,
    ),
]
PreserveWords = Annotated[
    str | None,
    option(
        "--preserve",
        metavar="LIST",
        text="Keep modes,owners,xattrs,setid, or some of them, if both ends say so.",
        panel=FILES,
    ),
]
Streams = Annotated[int, number("--streams", low=1, text="Number of parallel connections.", panel=CONNECTION)]
ForgetPath = Annotated[
    bool,
    flag(
        "--forget-path",
        text="Start slowly: do not use or keep the rate of earlier sessions with this host.",
        panel=CONNECTION,
    ),
]


@dataclass(frozen=True, slots=True)
class SendArguments:
    """What `send`, `tcp-send` and `udp-send` accept."""

    items: Annotated[
        list[str],
        typer.Argument(metavar="FILE... HOST[:PORT]", help="Files to send (- is standard input), then the receiver."),
    ]
    recursive: Annotated[
        bool, flag("--recursive", "-r", text="Send directories with everything in them.", panel=FILES)
    ] = False
    name: Annotated[
        str, option("--name", metavar="NAME", text="File name for standard input at the receiver.", panel=FILES)
    ] = STREAM_NAME
    digest: Annotated[
        DigestChoice,
        typer.Option(
            help="Digest that verifies each file: xxh3-128 is fast, blake3 is cryptographic.", rich_help_panel=FILES
        ),
    ] = DigestChoice.XXH3
    cc: Annotated[
        str | None,
        option("--cc", metavar="NAME", text="Congestion control, for example cubic or bbr.", panel=CONNECTION),
    ] = None
    rate: Annotated[
        str | None,
        option("--rate", metavar="RATE", text="Highest sending rate, for example 100Mbit or 12MB/s.", panel=CONNECTION),
    ] = None
    connect_timeout: Annotated[
        str,
        option(
            "--connect-timeout",
            metavar="TIME",
            text="How long to try to reach the receiver, for example 5s.",
            panel=CONNECTION,
        ),
    ] = DEFAULT_CONNECT_TIMEOUT
    retry: Annotated[
        str,
        option(
            "--retry",
            metavar="TIME",
            text="How long to try to reconnect after the connection is lost, for example 10min; 0s: not at all.",
            panel=CONNECTION,
        ),
    ] = DEFAULT_RETRY
    idle_timeout: IdleTimeout = DEFAULT_IDLE_TIMEOUT
    json: Json = False
    verbose: Verbose = False
    watch: Watch = False
    quiet: Quiet = False


@dataclass(frozen=True, slots=True)
class ReceiveArguments:
    """What `recv`, `tcp-recv` and `udp-recv` accept."""

    directory: Annotated[
        Path | None,
        option(
            "--dir",
            metavar="DIR",
            text="Directory for received files; created if missing. Required with --bind beyond loopback.",
            default="the current one",
            panel=FILES,
        ),
    ] = None
    to_stdout: Annotated[
        bool,
        flag(
            "--stdout", text="Write one file to standard output, once it is verified, and exit; no --dir.", panel=FILES
        ),
    ] = False
    overwrite: Annotated[bool, flag("--overwrite", text="Replace existing files.", panel=FILES)] = False
    dotfiles: Annotated[
        bool, flag("--dotfiles", text="Accept names that begin with a dot, such as .bashrc.", panel=FILES)
    ] = False
    preserve_modes: Annotated[
        bool, flag("--preserve-modes", text="Keep files executable; the umask still applies.", panel=FILES)
    ] = False
    preserve: PreserveWords = None
    fsync: Annotated[
        bool, flag("--fsync", text="Force each file to disk before reporting it as received.", panel=FILES)
    ] = False
    once: Annotated[
        bool,
        flag("--once", text="Exit after one session, with code 0 only if every file is verified.", panel=CONNECTION),
    ] = False
    retry: Annotated[
        str | None,
        option(
            "--retry",
            metavar="TIME",
            text="How long --once waits for a sender that has lost its connection to come back; 0s: not at all.",
            default=DEFAULT_RECEIVER_RETRY,
            panel=CONNECTION,
        ),
    ] = None
    bind: Bind = DEFAULT_BIND
    port: Port = DEFAULT_PORT
    idle_timeout: IdleTimeout = DEFAULT_IDLE_TIMEOUT
    json: Json = False
    verbose: Verbose = False
    watch: Watch = False
    quiet: Quiet = False


@dataclass(frozen=True, slots=True)
class LimitArguments:
    """What `recv`, `tcp-recv` and `udp-recv` accept to limit senders."""

    PANEL: ClassVar[str] = "Limits"

    max_bytes: Annotated[
        str | None,
        option(
            "--max-bytes", metavar="SIZE", text="Maximum bytes per session, including holes.", default="the free space"
        ),
    ] = None
    max_files: Annotated[int, number("--max-files", low=1, text="Maximum files and directories per session.")] = (
        1_000_000
    )
    max_time: Annotated[
        str, option("--max-time", metavar="TIME", text="Maximum duration of a session, for example 30min.")
    ] = "168h"
    stall_timeout: Annotated[
        str, option("--stall-timeout", metavar="TIME", text="Time without progress that ends a session.")
    ] = "10min"
    max_sessions: Annotated[int, number("--max-sessions", low=1, text="Maximum concurrent sessions.")] = 32
    max_sessions_per_host: Annotated[
        int, number("--max-sessions-per-host", low=1, text="Maximum concurrent sessions of one other machine.")
    ] = 16


MaxStreams = Annotated[
    int,
    number("--max-streams", low=1, high=64, text="Maximum TCP connections per session.", panel=LimitArguments.PANEL),
]


@dataclass(frozen=True, slots=True)
class CampaignArguments:
    """What every `bench` command accepts."""

    PANEL: ClassVar[str] = "Campaign"

    size: Annotated[
        str | None, option("--size", metavar="SIZE[,...]", text="File sizes, for example 64KiB,256MiB.")
    ] = None
    time: Annotated[
        str | None,
        option("--time", metavar="TIME", text="Measure what arrives in this time, for example 5s, instead of files."),
    ] = None
    transports: Annotated[
        str | None,
        option(
            "--transports",
            metavar="NAME[,...]",
            text="Transports, for example tcp-bbr,udp-bbr,quic. A link compares cubic and bbr over both by default.",
            default="tcp,udp",
        ),
    ] = None
    cc: Annotated[
        str | None,
        option("--cc", metavar="NAME", text="Congestion control of the transport 'tcp'.", default="cubic"),
    ] = None
    repeat: Annotated[
        int | None, number("--repeat", low=1, text="Number of blocks, instead of a budget; each runs every transport.")
    ] = None
    budget: Annotated[
        str | None,
        option(
            "--budget",
            metavar="TIME",
            text="Time for a pilot of eight blocks or more, and further ones where intervals are wide.",
            default="6min",
        ),
    ] = None
    seed: Annotated[int | None, number("--seed", low=0, text="Seed of every random choice.", default="1")] = None
    limit: Annotated[
        str | None,
        option("--limit", metavar="TIME", text="Time after which a transfer counts as failed.", default="5min"),
    ] = None
    margin: Annotated[
        str | None,
        option("--margin", metavar="PERCENT", text="Largest difference that counts as negligible.", default="5%"),
    ] = None
    patience: Annotated[
        str | None,
        option(
            "--patience",
            metavar="TIME",
            text="Total time for waits, before trials, until other work leaves the processors free, and for repeats of "
            "timed trials that the hypervisor disturbed.",
            default="0s",
        ),
    ] = None
    no_control: Annotated[
        bool, flag("--no-control", text="Skip the A/A control, a second run of the baseline in each block.")
    ] = False
    dry_run: Annotated[bool, flag("--dry-run", text="Print the plan and its expected duration, then exit.")] = False
    output: Annotated[
        Path | None,
        option(
            "--output",
            metavar="FILE",
            text="File for the records.",
            default="a new file in results/",
            panel=RECORDS,
        ),
    ] = None
    folder: Annotated[
        Path | None,
        option("--dir", metavar="DIR", text="Directory for the transferred files.", default="memory", panel=RECORDS),
    ] = None
    watch: Annotated[
        bool,
        flag("--watch", text="Draw goodput, round trip, window and packets sent again of each trial.", panel=GENERAL),
    ] = False
    json: Json = False
    quiet: Quiet = False


ResumeCampaign = Annotated[
    Path | None,
    option(
        "--resume",
        metavar="FILE",
        text="Continue the interrupted campaign in this file, with its own settings.",
        panel=RECORDS,
    ),
]


@dataclass(frozen=True, slots=True)
class LocalCampaignArguments:
    """What a campaign on one machine accepts in addition."""

    scenario: Annotated[
        Path | None,
        option(
            "--scenario",
            metavar="FILE",
            text="TOML file with the other settings (docs/method.md); options override it.",
            panel=CampaignArguments.PANEL,
        ),
    ] = None
    resume: ResumeCampaign = None


Competitor = Annotated[
    str | None,
    option(
        "--competitor",
        metavar="NAME",
        text="Background flow that runs beside each transfer, for example tcp-cubic.",
        panel=CampaignArguments.PANEL,
    ),
]
