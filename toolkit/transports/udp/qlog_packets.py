"""Packets as qlog describes them: the `data` of packet_sent and packet_received events, as JSON.

DATA appears as QUIC's stream 0 and MESSAGE as stream 4; an ACK packet becomes an `ack` frame, with the windows as
`max_data` and `max_stream_data`, and so on. Tools made for QUIC then draw what they draw for QUIC. Some frames have
fields of this protocol's own, which qlog allows.

Read: draft-ietf-quic-qlog-quic-events-02, appendix A (headers and frames).
"""

import json
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from toolkit.errors import ProtocolError, printable
from toolkit.rudp import wire

DATA_STREAM: Final = 0
MESSAGE_STREAM: Final = 4

_STREAMS: Final = {wire.PacketType.DATA: DATA_STREAM, wire.PacketType.MESSAGE: MESSAGE_STREAM}
_PACKET_TYPES: Final = {
    wire.PacketType.INITIAL: "initial",
    wire.PacketType.RETRY: "retry",
    wire.PacketType.ACCEPT: "handshake",
    wire.PacketType.VERSION: "version_negotiation",
    wire.PacketType.REFUSE: "handshake",
    wire.PacketType.FINISH: "handshake",
}
"""The packets of the handshake; every other packet is a `1RTT` packet."""
_KINDS: Final = frozenset(wire.PacketType)

Frames = list[dict[str, object]]


def describe(data: memoryview, segment_bytes: int, tag_bytes: int = 0) -> Iterator[str]:
    """Return one JSON object per packet of a batch, each of which ends with a tag of `tag_bytes`.

    Any bytes are allowed: an invalid packet has no frames.
    """
    if data[0] in _STREAMS and segment_bytes > wire.HEADER_BYTES + tag_bytes:
        yield from _stream_packets(data, segment_bytes, _STREAMS[wire.PacketType(data[0])], tag_bytes)
        return
    for start in range(0, len(data), segment_bytes):
        yield json.dumps(_packet(data[start : start + segment_bytes], tag_bytes), separators=(",", ":"))


def _stream_packets(data: memoryview, segment_bytes: int, stream_id: int, tag_bytes: int) -> Iterator[str]:
    """Describe DATA and MESSAGE packets, which are nearly all packets."""
    count = len(data) // segment_bytes
    header = np.ndarray((count,), wire.DATA.dtype, data, 0, (segment_bytes,))
    payload_bytes = segment_bytes - wire.HEADER_BYTES - tag_bytes
    for number, position in zip(header["packet_number"].tolist(), header["offset"].tolist(), strict=True):
        yield (
            f'{{"header":{{"packet_type":"1RTT","packet_number":{number}}},"raw":{{"length":{segment_bytes}}},'
            f'"frames":[{{"frame_type":"stream","stream_id":{stream_id},"offset":{position},'
            f'"length":{payload_bytes}}}]}}'
        )
    rest = data[count * segment_bytes :]
    if rest:
        yield from describe(rest, len(rest), tag_bytes)


def _packet(packet: memoryview, tag_bytes: int) -> dict[str, object]:
    kind = packet[0]
    raw = {"length": len(packet)}
    if kind in _PACKET_TYPES:
        return {"header": {"packet_type": _PACKET_TYPES[wire.PacketType(kind)]}, "raw": raw}
    if kind not in _KINDS or len(packet) < wire.COMMON.size:
        return {"header": {"packet_type": "unknown", "packet_type_bytes": kind}, "raw": raw}
    *_, number = wire.COMMON.unpack_untrusted(packet)
    try:
        frames = _FRAMES[wire.PacketType(kind)](packet[: len(packet) - tag_bytes])
    except ProtocolError:
        frames = []
    return {"header": {"packet_type": "1RTT", "packet_number": number}, "raw": raw, "frames": frames}


def _ack_frames(packet: memoryview) -> Frames:
    ack = wire.decode_ack_untrusted(packet)
    ranges = [[start, end - 1] if end - start > 1 else [start] for start, end in ack.ranges]
    delay = {} if ack.delay_us == wire.UNKNOWN_DELAY_US else {"ack_delay": ack.delay_us / 1000}
    return [
        {
            "frame_type": "ack",
            **delay,
            "acked_ranges": ranges,
            "ect0": ack.ect_count,
            "ce": ack.ce_count,
            "socket_drops": ack.drop_count,
        },
        {"frame_type": "max_data", "maximum": ack.data_window},
        {"frame_type": "max_stream_data", "stream_id": MESSAGE_STREAM, "maximum": ack.message_window},
    ]


def _ping_frames(packet: memoryview) -> Frames:
    values = wire.PING_BODY.unpack_untrusted(packet, wire.COMMON.size)
    fields = dict(zip((field.name for field in wire.PING_BODY.fields), values, strict=True))
    return [{"frame_type": "ping", **fields}]


def _probe_frames(packet: memoryview) -> Frames:
    return [{"frame_type": "ping"}, {"frame_type": "padding", "payload_length": len(packet) - wire.COMMON.size}]


def _path_frames(packet: memoryview) -> Frames:
    *_, challenge = wire.PATH.unpack_untrusted(packet)
    name = "path_challenge" if packet[0] == wire.PacketType.PATH_CHALLENGE else "path_response"
    return [{"frame_type": name, "data": f"{challenge:016x}"}]


def _close_frames(packet: memoryview) -> Frames:
    code, reason = wire.decode_close_untrusted(packet)
    return [
        {
            "frame_type": "connection_close",
            "error_space": "application",
            "error_code": code,
            "reason": printable(reason),
        }
    ]


def _no_frames(packet: memoryview) -> Frames:
    raise ProtocolError(f"a packet of {len(packet)} bytes is too short for its type")


_FRAMES: Final[dict[wire.PacketType, Callable[[memoryview], Frames]]] = {
    wire.PacketType.DATA: _no_frames,
    wire.PacketType.MESSAGE: _no_frames,
    wire.PacketType.ACK: _ack_frames,
    wire.PacketType.PING: _ping_frames,
    wire.PacketType.PROBE: _probe_frames,
    wire.PacketType.PATH_CHALLENGE: _path_frames,
    wire.PacketType.PATH_RESPONSE: _path_frames,
    wire.PacketType.CLOSE: _close_frames,
}
