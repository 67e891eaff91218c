"""The field tables, told to people and to Wireshark: text made from the layouts of `wire.py`.

docs/protocol.md and docs/wireshark/nettool.lua hold these texts between marks, `docs/generate.py` puts them there, and
a test compares: neither can drift from what the code does.
"""

from typing import Final

from toolkit.rudp import connection, handshake, loss, mtu, path, receiver, rtt, sender, spaces, wire
from toolkit.rudp.wire import Layout, PacketType

BEGIN: Final = "generated from toolkit/rudp/wire.py by docs/generate.py: "
END: Final = "end of what is generated"

_TAILS: Final = {
    PacketType.INITIAL: "token, security field, zeros up to at least 1,200 bytes",
    PacketType.RETRY: "token",
    PacketType.ACCEPT: "security field",
    PacketType.DATA: "payload",
    PacketType.MESSAGE: "payload",
    PacketType.ACK: "`range_count` ranges (next table)",
    PacketType.PROBE: "zeros up to the size that is probed",
    PacketType.CLOSE: "reason",
}
_LIMITS: Final = (
    (wire.MIN_DATAGRAM_BYTES, "bytes of UDP payload that every path must carry; the least size of an INITIAL"),
    (wire.MAX_DATAGRAM_BYTES, "bytes of UDP payload at the most"),
    (wire.MAX_TOKEN_BYTES, "bytes of a token at the most"),
    (wire.MAX_SECURITY_BYTES, "bytes of a security field at the most"),
    (wire.MAX_REASON_BYTES, "bytes of a reason at the most"),
    (wire.TAG_BYTES, "bytes at the end of a protected packet that the engine leaves free for an authentication tag"),
    (wire.MAX_POSITION, "packet numbers lie below this, positions and windows not above"),
)
_MS: Final = 1_000_000
_CONSTANTS: Final = (
    (
        "first retransmission of INITIAL",
        f"{handshake.FIRST_RETRANSMISSION_NS // _MS} ms",
        "then twice as long each time",
    ),
    ("longest wait between INITIALs", f"{handshake.MAX_RETRANSMISSION_NS // _MS} ms", ""),
    ("RTT before the first sample", f"{rtt.INITIAL_RTT_NS // _MS} ms", "RFC 9002 section 6.2.2 has 333 ms"),
    ("timer granularity", f"{rtt.GRANULARITY_NS // _MS} ms", "RFC 9002 section 6.1.2"),
    ("packet threshold", f"{loss.PACKET_THRESHOLD}", "RFC 9002 section 6.1.1, to begin with"),
    ("packet threshold at the most", f"{loss.MAX_PACKET_THRESHOLD:,}", "on a path that reorders"),
    ("time threshold", f"{loss.TIME_THRESHOLD_EIGHTHS}/8 RTT", "RFC 9002 section 6.1.2, to begin with"),
    ("time threshold at the most", f"{loss.MAX_TIME_THRESHOLD_EIGHTHS}/8 RTT", "on a path that reorders"),
    (
        "probe timeout with back-off at the most",
        f"{loss.MAX_PTO_NS // _MS} ms",
        "unless one without back-off is longer",
    ),
    ("packets per probe timeout", f"{sender.PROBES_PER_TIMEOUT}", "RFC 9002 section 6.2.4"),
    ("persistent congestion", f"{loss.PERSISTENT_CONGESTION_PTOS} probe timeouts", "RFC 9002 section 7.6.1"),
    ("acknowledgements asked for", f"{sender.ACKS_PER_RTT} per RTT", ""),
    ("bytes between acknowledgements at the most", f"{sender.MAX_ACK_EVERY_BYTES:,}", ""),
    (
        "acknowledgement delay asked for",
        f"{sender.MIN_ACK_DELAY_NS // _MS} to {sender.MAX_ACK_DELAY_NS // _MS} ms",
        "a quarter of the smoothed RTT",
    ),
    (
        "acknowledgement before anything is asked for",
        f"{receiver.FIRST_ACK_EVERY_BYTES:,} bytes or {receiver.FIRST_MAX_ACK_DELAY_NS // _MS} ms",
        "",
    ),
    ("ranges that a receiver keeps", f"{receiver.MAX_HOLES:,}", "of packet numbers, and of positions"),
    ("least data window", f"{spaces.FIRST_DATA_WINDOW_BYTES:,} bytes", "may be sent before any window is known"),
    ("message window", f"{spaces.MESSAGE_WINDOW_BYTES:,} bytes", "beyond what the application has taken"),
    ("losses that make a probed size too large", f"{mtu.MAX_PROBES}", "RFC 8899 section 5.1.2"),
    (
        "rest after a search that found less",
        f"{mtu.PMTU_RAISE_TIMER_NS // (60_000 * _MS)} min",
        "RFC 8899 section 5.1.1",
    ),
    ("challenges per path", f"{path.MAX_CHALLENGES}", "a probe timeout apart, then twice as long each time"),
    ("keep-alives", f"{connection.KEEP_ALIVES_PER_IDLE_TIMEOUT} per idle timeout", ""),
    ("refusals before they are believed", f"{connection.REFUSAL_NS // _MS} ms", "of ICMP and nothing else"),
)


def constants() -> str:
    """A Markdown table of times and thresholds."""
    rows = ["| what | value | where from, or note |", "|---|---|---|"]
    return "\n".join(rows + [f"| {name} | {value} | {note} |" for name, value, note in _CONSTANTS])


def packet_types() -> str:
    """A Markdown table: every type's number, the size of its fixed fields, and what follows them."""
    rows = ["| type | name | fixed fields | then |", "|---|---|---|---|"]
    for kind, layout in wire.LAYOUTS.items():
        rows.append(f"| 0x{kind:02x} | {kind.name} | {layout.size} bytes | {_TAILS.get(kind, '')} |")
    return "\n".join(rows)


def fields(layout: Layout) -> str:
    """A Markdown table: where each field begins, how long it is, what it means."""
    rows = ["| offset | bytes | field | meaning |", "|---|---|---|---|"]
    offset = 0
    for field in layout.fields:
        size = layout.dtype[field.name].itemsize
        rows.append(f"| {offset} | {size} | `{field.name}` | {field.meaning} |")
        offset += size
    return "\n".join(rows)


def flags() -> str:
    """A Markdown table of the bits of `flags`."""
    rows = ["| bit | name |", "|---|---|"]
    return "\n".join(rows + [f"| 0x{flag:02x} | {flag.name} |" for flag in wire.Flags])


def limits() -> str:
    """A Markdown table of sizes."""
    rows = ["| limit | of what |", "|---|---|"]
    return "\n".join(rows + [f"| {value:,} | {meaning} |" for value, meaning in _LIMITS])


def markdown_sections() -> dict[str, str]:
    """What docs/protocol.md holds between the marks of each name."""
    sections = {
        "packet types": packet_types(),
        "flags": flags(),
        "limits": limits(),
        "ACK range": fields(wire.ACK_RANGE),
    }
    return sections | {kind.name: fields(layout) for kind, layout in wire.LAYOUTS.items()}


def lua_sections() -> dict[str, str]:
    """What docs/wireshark/nettool.lua holds: tables of {name, bytes, meaning} by packet type."""
    lines = [f"local VERSION = 0x{wire.VERSION:08x}", "local LAYOUTS = {"]
    for kind, layout in wire.LAYOUTS.items():
        lines.append(f'    [0x{kind:02x}] = {{ name = "{kind.name}", fields = {_lua_fields(layout, "        ")} }},')
    lines += ["}", f"local ACK_RANGE = {_lua_fields(wire.ACK_RANGE, '    ')}", "local FLAGS = {"]
    lines += [f'    {{ "{flag.name.lower()}", 0x{flag:02x} }},' for flag in wire.Flags]
    return {"layouts": "\n".join([*lines, "}"])}


def _lua_fields(layout: Layout, indent: str) -> str:
    rows = [
        f'{indent}{{ "{field.name}", {layout.dtype[field.name].itemsize}, "{field.meaning}" }},'
        for field in layout.fields
    ]
    return "\n".join(["{", *rows, indent[4:] + "}"])


def fill(text: str, sections: dict[str, str], comment: tuple[str, str]) -> str:
    """`text` with what lies between the marks of each section made anew; `comment` is how a comment begins and ends.

    Raises ValueError where a section's marks are not there exactly once.
    """
    opening, closing = comment
    end = f"{opening}{END}{closing}"
    for name, body in sections.items():
        begin = f"{opening}{BEGIN}{name}{closing}"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end or begin in after:
            raise ValueError(f"the marks of {name!r} are not there exactly once")
        text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


MARKDOWN_COMMENT: Final = ("<!-- ", " -->")
LUA_COMMENT: Final = ("-- ", "")
