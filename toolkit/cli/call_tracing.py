"""`--trace-calls`, `--simple` and `--trace-file`: the options that make system calls visible."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from toolkit import __version__
from toolkit.channel import Channel
from toolkit.cli.command import flag, option
from toolkit.cli.output import JSON_SCHEMA, print_status, stderr_columns
from toolkit.errors import TransferError, UsageError, printable_path
from toolkit.output_files import check_output, open_output

if TYPE_CHECKING:
    from toolkit.tracing.call import Call, CallTrace
    from toolkit.tracing.channel import Describe

_OPTION, _MARK = "--trace-file", b'"kind": "calls"'


@dataclass(frozen=True, slots=True)
class TraceArguments:
    """What every command that sends or receives accepts."""

    PANEL: ClassVar[str] = "Learning"

    trace_calls: Annotated[
        bool, flag("--trace-calls", text="Show every socket and file call as it happens, and what it means.")
    ] = False
    simple: Annotated[
        bool,
        flag("--simple", text="Make the calls of a textbook: one datagram in each, read and send in turn."),
    ] = False
    trace_file: Annotated[
        Path | None,
        option(_OPTION, metavar="FILE", text="Write every call to FILE, as JSON lines."),
    ] = None

    @property
    def is_on(self) -> bool:
        """Whether calls are shown or written."""
        return self.trace_calls or self.trace_file is not None

    def check(self, sources: Iterable[str]) -> None:
        """Raise UsageError for a file that nettool did not write, and for one that the command sends."""
        if self.trace_file is not None:
            check_output(self.trace_file, _OPTION, _MARK, inputs=sources)

    @contextmanager
    def running(self, command_name: str, describe: "Describe | None" = None) -> Iterator["Explain"]:
        """Trace the calls of the block, and yield what each channel of the block must pass through.

        describe: says what a message of the channel is about, if it is none of a file session

        Raises UsageError for options that contradict each other, and for a file that cannot be written.
        """
        if not self.is_on:
            if self.simple:
                raise UsageError("--simple is for watching: add --trace-calls or --trace-file FILE")
            yield lambda channel: channel
            return
        # They import the transports, which no help text needs.
        from toolkit.tracing.call import CallTrace
        from toolkit.tracing.channel import ExplainedChannel
        from toolkit.tracing.interpose import interposed
        from toolkit.tracing.meaning import describe_message

        with ExitStack() as stack:
            shows: list[Callable[[Call], object]] = []
            trace = CallTrace(lambda call: [show(call) for show in shows])
            if self.trace_file is not None:
                shows.append(stack.enter_context(_writing(self.trace_file, command_name)))
            if self.trace_calls:
                shows.append(stack.enter_context(_printing(trace)))
            stack.callback(trace.end)
            stack.enter_context(interposed(trace, self.simple))
            yield lambda channel: ExplainedChannel(channel, trace, describe or describe_message)


Explain = Callable[[Channel], Channel]


@contextmanager
def _writing(path: Path, command_name: str) -> Iterator[Callable[["Call"], object]]:
    """Yield what writes a call to a file. Raises TransferError at the end if it could not be written."""
    from toolkit.comparison.json_codec import encode  # only a file needs it, and every sender imports this module

    head = {"schema": JSON_SCHEMA, "kind": "calls", "version": __version__, "command": command_name, "pid": os.getpid()}
    lines = _LineFile(path)
    try:
        lines.write(head)
        yield lambda call: lines.write(encode(call))
    finally:
        lines.close()
    if lines.failure is not None:
        reason = (lines.failure.strerror or "").lower()
        raise TransferError(
            f"cannot write the calls to {printable_path(path)}: {reason}; all else has succeeded: choose another"
            f" file with {_OPTION}"
        )


class _LineFile:
    """JSON objects in a file. A full disk must not look like a failed call of the transfer: it is kept in `failure`."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError."""
        self.failure: OSError | None = None
        self._file = open_output(path, _OPTION, _MARK)

    def write(self, fields: object) -> None:
        """Write a line; nothing after the first failure."""
        if self.failure is None:
            try:
                self._file.write(json.dumps(fields).encode() + b"\n")
            except OSError as error:
                self.failure = error

    def close(self) -> None:
        """Write what is left in memory."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = self.failure or error


@contextmanager
def _printing(trace: "CallTrace") -> Iterator[Callable[["Call"], object]]:
    from toolkit.tracing.listing import Condenser, lines_of, summary

    origin_s, columns = time.monotonic(), stderr_columns()
    condenser = Condenser(lambda call: print_status("\n".join(lines_of(call, origin_s, columns))))
    try:
        yield condenser.add
    finally:
        condenser.end(time.monotonic())
        if text := summary(trace.not_shown):
            print_status(f"not shown: {text}")
