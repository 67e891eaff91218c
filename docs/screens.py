"""Draws what users see: runs nettool in a terminal of 80 x 24, and writes docs/screens.md with its pictures.

Run `python docs/screens.py` (extra `site`) on a machine with TUN devices and namespaces. Every picture is the screen of
a real command, at the moment that SCREENS names. Nothing is sent except on loopback and emulated links.
"""

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyte
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

HERE: Final = Path(__file__).resolve().parent
PICTURES: Final = HERE / "pictures" / "screens"
COLUMNS, LINES = 80, 24
_LIMIT_S: Final = 600.0
_FILE_BYTES: Final = 48 << 20
_CTRL_C: Final = "\x03"


@dataclass(frozen=True)
class Screen:
    """A picture.

    name:     of its file
    text:     the sentence beside it
    command:  what is typed
    receiver: a command that runs meanwhile, until it says that it listens
    until:    pattern on the screen at which the picture is taken; None: when the command has ended
    keys:     what is typed when `until` is there; the picture is then taken at the end
    """

    name: str
    text: str
    command: str
    receiver: str | None = None
    until: str | None = None
    keys: str | None = None


_RECEIVER: Final = "nettool recv --dir incoming"
_FAR: Final = "--far 'nettool recv -q --dir incoming --bind 0.0.0.0 --open --once'"
SCREENS: Final = (
    Screen("recv", "A receiver says where it can be reached, and what to type at the other end.",
           "nettool recv --dir incoming --bind 0.0.0.0", until="nettool send"),
    Screen("send", "A sender shows the current file, the whole, the rate and the time that is left.",
           "nettool send -r photos film.mkv 127.0.0.1 --rate 40Mbit", _RECEIVER, until=r" [3-9]\d%"),
    Screen("sent", "At the end it says what was sent, and how fast.",
           "nettool tcp-send -v film.mkv 127.0.0.1", _RECEIVER),
    Screen("outage", "During an outage the bar says for how long nothing has arrived.",
           f"nettool link -q --rate 40Mbit --rtt 20ms --at '6s blackout 9s' {_FAR} -- nettool send --open film.mkv far",
           until="stalled [3-9]"),
    Screen("watch", "`--watch` draws what the transfer does.",
           f"nettool link -q --rate 40Mbit --rtt 30ms --loss 0.2% --queue 200kB --at '7s rate 20Mbit' {_FAR}"
           " -- nettool send --watch --open film.mkv far", until=r" [7-9]\d% "),
    Screen("refused", "A refusal says what to do.", "nettool send film.mkv 127.0.0.1:9001"),
    Screen("interrupted", "Ctrl-C ends a transfer at once; the next one goes on from there.",
           "nettool send film.mkv 127.0.0.1 --rate 40Mbit", _RECEIVER, until=r" [3-9]\d%", keys=_CTRL_C),
    Screen("trace", "Every system call of a transfer, as a textbook has them.",
           "nettool tcp-send --trace-calls --simple note.txt 127.0.0.1", _RECEIVER),
    Screen("ping", "Latency with percentiles, over either transport.",
           "nettool link -q --rtt 40ms --jitter 2ms --loss 1% --far 'nettool echo -q --bind 0.0.0.0'"
           " -- nettool ping --raw-udp --count 50 --interval 20ms far"),
    Screen("learn", "A lesson of the course, with its experiment.", "nettool learn 4"),
    Screen("compare", "A comparison ends in a verdict.",
           "nettool bench link --rate 50Mbit --rtt 20ms --loss 1% --size 2MiB --transports udp-bbr,tcp-cubic"
           " --output records.jsonl"),
)  # fmt: skip


class Terminal:
    """A command in a pseudo-terminal of its own, and the screen that it has drawn."""

    def __init__(self, command: str, folder: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self.screen)
        self._stream.feed(f"$ {command}\r\n".encode())
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = {"XDG_CACHE_HOME": str(folder / "cache"), "NETTOOL_CONFIG": "", "LANG": "C.UTF-8"}
        unset = {"COLUMNS", "LINES", "NO_COLOR"}
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**{name: value for name, value in os.environ.items() if name not in unset}, **home, "PATH": path}
            | {"TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def show(self, until: str | None) -> None:
        """Draw until the screen has the pattern, or the command has ended. Raises TimeoutError."""
        deadline_s = time.monotonic() + _LIMIT_S
        while until is None or not re.search(until, "\n".join(self.screen.display)):
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no {until!r} in {_LIMIT_S:g} s:\n" + "\n".join(self.screen.display))
            try:
                self._stream.feed(os.read(self._master, 1 << 16))
            except OSError:  # EIO: every process has closed the terminal
                return

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._master, keys.encode())

    def close(self) -> None:
        """End the command, and everything that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(command: str, folder: Path) -> Iterator[Terminal]:
    """Run a command in a terminal while the block runs."""
    running = Terminal(command, folder)
    try:
        yield running
    finally:
        running.close()


def picture(screen: pyte.Screen, title: str) -> str:
    """Return the screen as an SVG image."""
    lines = [_line(screen.buffer[row]) for row in range(LINES)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    with console.file:
        console.print(Text("\n").join(lines), soft_wrap=True)
    svg = console.export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # they would be loaded from another host


def _line(cells: Any) -> Text:
    text = Text()
    for column in range(COLUMNS):
        cell = cells[column]
        text.append(
            cell.data, Style(color=_color(cell.fg), bgcolor=_color(cell.bg), bold=cell.bold, reverse=cell.reverse)
        )
    text.rstrip()
    return text


def _color(name: str) -> Color | None:
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return Color.parse(f"#{name}")
    name = {"brown": "yellow", "brightbrown": "bright_yellow"}.get(name, name)
    return Color.parse(re.sub("^bright(?!_)", "bright_", name))


def take(screen: Screen, folder: Path) -> str:
    """Run what a picture shows, and return the picture."""
    with ExitStack() as stack:
        if screen.receiver:
            stack.enter_context(terminal(screen.receiver, folder)).show("listening on")
        shown = stack.enter_context(terminal(screen.command, folder))
        shown.show(screen.until)
        if screen.keys:
            shown.type(screen.keys)
            shown.show(None)
        return picture(shown.screen, shlex.split(screen.command)[0])


def prepare(folder: Path) -> None:
    """Write the files that the commands send."""
    (folder / "photos").mkdir()
    (folder / "note.txt").write_text("Hello, socket.\n")
    for number in range(1, 7):
        (folder / "photos" / f"photo-{number}.jpg").write_bytes(os.urandom(1 << 20))
    (folder / "film.mkv").write_bytes(os.urandom(_FILE_BYTES))


def page() -> str:
    """Return docs/screens.md."""
    parts = ["# What it looks like\n\nScreens of real commands, in a terminal of 80 columns (`docs/screens.py`).\n"]
    for screen in SCREENS:
        if (PICTURES / f"{screen.name}.svg").exists():
            parts.append(f"{screen.text}\n\n![{screen.text}](pictures/screens/{screen.name}.svg)\n")
    return "\n".join(parts)


def main() -> None:
    wanted = sys.argv[1:] or [screen.name for screen in SCREENS]
    PICTURES.mkdir(parents=True, exist_ok=True)
    for screen in SCREENS:
        if screen.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="nettool-screens-") as name:
            prepare(Path(name))
            (PICTURES / f"{screen.name}.svg").write_text(take(screen, Path(name)), "utf-8")
        print(screen.name)
    (HERE / "screens.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
