"""The reverse direction of `nettool bench remote`: the side that has accepted the session sends, the other receives.

The connecting side asks for content with its first message, a JSON object. From then on the session is that of
docs/protocol.md with the roles exchanged: neither the session nor the channel knows who has connected. So this
direction needs no second port, and works from behind a NAT; only how to send, which a connecting side chooses by its
options, travels in the question.
"""

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

from toolkit.channel import Channel
from toolkit.comparison.discard import receive_and_discard
from toolkit.comparison.endpoint_result import Samples
from toolkit.comparison.json_codec import FieldError, decode
from toolkit.comparison.sampler import MAX_SAMPLES, Sampler
from toolkit.comparison.timed import SLICE_BYTES, STREAM_NAME, TimedStream
from toolkit.errors import NettoolError, ProtocolError, RefusedError, TransferError
from toolkit.transfer import SendOptions, TransferResult
from toolkit.transfer.messages import ErrorMessage, ErrorReason
from toolkit.transfer.sender import SendSession
from toolkit.units import format_size

SEND = "send"
_MAX_ELAPSED_S = 60.0
_MAX_RATE_BPS = 1e13
_MAX_FIGURE = 1 << 60


@runtime_checkable
class SendingChannel(Channel, Protocol):
    """A channel of nettool's own transports: also the side that has accepted it can choose how it sends."""

    def choose_sending(self, congestion_control: str | None, rate_bps: float | None, backlog_bytes: int | None) -> None:
        """Send as a channel that was connected with these TransportOptions does. Call this before any content is sent.

        Raises UsageError for what this transport or system does not support.
        """


@dataclass(frozen=True, slots=True)
class ContentOrder:
    """Content that the other side shall make up from `seed` and send.

    elapsed_s:  how long ago the asking side's clock started
    time_s:     how long to send, since then; None for `size_bytes`
    size_bytes: how much to send; None for `time_s`
    congestion_control, rate_bps, backlog_bytes: see TransportOptions
    slice_bytes: see `toolkit.comparison.timed.Portions`
    """

    elapsed_s: float
    time_s: float | None
    size_bytes: int | None
    seed: int
    congestion_control: str | None
    rate_bps: float | None
    backlog_bytes: int | None
    slice_bytes: int

    def encode(self) -> bytes:
        """The question."""
        return json.dumps({"ask": SEND, **asdict(self)}).encode()

    @classmethod
    def decode_untrusted(cls, question: Mapping[str, object]) -> "ContentOrder":
        """Raises ProtocolError."""
        try:
            order = decode(cls, question)
        except FieldError as error:
            raise ProtocolError(f"the peer asked for content in an invalid way: {error}") from None
        are_sound = (
            0 <= order.elapsed_s <= _MAX_ELAPSED_S,
            (order.time_s is None) != (order.size_bytes is None),
            order.time_s is None or 0 < order.time_s < _MAX_FIGURE,
            order.size_bytes is None or 0 < order.size_bytes < _MAX_FIGURE,
            0 <= order.seed < _MAX_FIGURE,
            order.rate_bps is None or 0 < order.rate_bps <= _MAX_RATE_BPS,
            order.backlog_bytes is None or 0 < order.backlog_bytes < 1 << 31,
            0 < order.slice_bytes <= SLICE_BYTES,
        )
        if not all(are_sound):
            raise ProtocolError("the peer asked for content in an invalid way: a figure is out of range")
        return order


def receive_asked(channel: Channel, order: ContentOrder, cancel: threading.Event | None = None) -> TransferResult:
    """Ask for content, receive it, and keep nothing. Raises as `toolkit.transfer.receive` does."""
    channel.send_message(order.encode())
    return receive_and_discard(channel, cancel=cancel)


def send_asked(
    channel: SendingChannel, order: ContentOrder, max_bytes: int, max_seconds: float, closing: threading.Event
) -> tuple[TransferResult, Samples]:
    """Send what the peer has asked for, and sample meanwhile; times are those since the peer's clock started.

    A transfer ends with an error beyond `max_bytes` or `max_seconds`, and when `closing` is set. Raises NettoolError.
    """
    started_s = time.monotonic() - order.elapsed_s
    try:
        if (order.size_bytes or 1) > max_bytes:
            raise RefusedError(f"this machine sends at most {format_size(max_bytes)} (its `max_bytes`)")
        channel.choose_sending(order.congestion_control, order.rate_bps, order.backlog_bytes)
    except NettoolError as error:
        channel.send_message(ErrorMessage(ErrorReason.FAILED, str(error)).encode())
        raise
    make = partial(
        TimedStream,
        seed=order.seed,
        until_s=math.inf if order.time_s is None else started_s + order.time_s,
        slice_bytes=order.slice_bytes,
        end_bytes=max_bytes if order.size_bytes is None else order.size_bytes,
    )
    cancel = _Cancel(closing)
    timer = threading.Timer(max_seconds, cancel.set)
    timer.daemon = True
    timer.start()
    sampler = Sampler(started_s, channel.statistics)
    try:
        with sampler:
            done = SendSession(
                channel, ["-"], SendOptions(stream_name=STREAM_NAME, open_stream=make), None, cancel
            ).run()
    finally:
        timer.cancel()
    if order.time_s is not None and done.size_bytes >= max_bytes:
        raise TransferError(f"the content was cut off at {format_size(max_bytes)}, the other machine's `max_bytes`")
    # The sampler sees for how long the main thread waits for a processor, and this is another one.
    return done, replace(sampler.series(), waiting_s=[])


def series_untrusted(value: object) -> Samples:
    """The other machine's samples. Raises ProtocolError."""
    try:
        series = decode(Samples, value)
    except FieldError as error:
        raise ProtocolError(f"the other machine reported invalid samples: {error}") from None
    columns = [list(column) for column in asdict(series).values()]
    count = len(series.t_s)
    are_sound = (
        0 < count <= MAX_SAMPLES,
        all(len(column) == count for column in columns[:-1]),
        len(series.waiting_s) in (0, count),
        all(abs(figure) < _MAX_FIGURE for column in columns for figure in column),
        list(series.t_s) == sorted(series.t_s),
    )
    if not all(are_sound):
        raise ProtocolError("the other machine reported invalid samples")
    return series


class _Cancel(threading.Event):
    """Set when it is set itself, or when another event is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """See threading.Event."""
        return self._other.is_set() or super().is_set()
