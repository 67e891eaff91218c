"""Questions to the user, at the terminal from which the command was started.

As with ssh, that works even if stdin is a pipe or a file that is sent, and stderr a log. A command in the background
asks nothing: the system would stop it. `getpass` would do the rest, but hides what is typed; of a code, which is used
once, the user may as well see the words.

Read: tty(4), termios(3) for what happens to background processes.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from toolkit.cli.output import stderr_is_terminal

CONTROLLING_TERMINAL: Final = "/dev/tty"


class Terminal:
    """Shows text and reads lines. Owns neither of its streams."""

    def __init__(self, keyboard: TextIO, screen: TextIO) -> None:
        self._keyboard = keyboard
        self._screen = screen

    def show(self, text: str) -> None:
        """Show text as it is."""
        self._screen.write(text)
        self._screen.flush()

    def ask(self, question: str) -> str | None:
        """Show the question and return the line that the user types; None for the end of input."""
        self.show(question)
        try:
            line = self._keyboard.readline()
        except KeyboardInterrupt:
            self.show("\n")  # the shell's next prompt begins a line
            raise
        if not line.endswith("\n"):
            self.show("\n")
            return None
        return line.strip()


@contextmanager
def user_terminal() -> Iterator[Terminal | None]:
    """The terminal of the user for the block; None if there is none, or if this process runs in its background."""
    try:
        descriptor = os.open(CONTROLLING_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # none, as after setsid(2); stdin may be a terminal nevertheless
        is_terminal = sys.stdin is not None and sys.stdin.isatty() and stderr_is_terminal()
        yield Terminal(sys.stdin, sys.stderr) if is_terminal else None
        return
    with io.TextIOWrapper(io.FileIO(descriptor, "r+"), errors="replace", write_through=True) as stream:
        yield Terminal(stream, stream) if os.tcgetpgrp(descriptor) == os.getpgrp() else None
