"""The settings under which a trial ran: what the sockets, the device and the kernel did by default or by request.

Two campaigns, or two transports, are comparable only under the same conditions; none of these is visible in a command
line. docs/data-format.md describes the record.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.comparison.device import DeviceSettings
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.machine_load import MachineLoad
from toolkit.rudp.pmtud import BASE_DATAGRAM_BYTES


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """What the socket of one endpoint used at the end of the transfer; None where the endpoint does not know.

    send_buffer_bytes, receive_buffer_bytes: as the kernel has tuned them, with its own overhead; of all connections
    segment_bytes: largest payload of a TCP segment, or of a UDP datagram
    ecn:           whether it used Explicit Congestion Notification
    segmentation_offload, receive_offload: UDP: whether UDP_SEGMENT and UDP_GRO were in use
    """

    send_buffer_bytes: int | None = None
    receive_buffer_bytes: int | None = None
    segment_bytes: int | None = None
    ecn: bool | None = None
    segmentation_offload: bool | None = None
    receive_offload: bool | None = None


@dataclass(frozen=True, slots=True)
class TrialConditions:
    """The `conditions` of a trial; None where something is not known.

    tcp_metrics: what earlier connections had taught the kernel about the path (tcp_metrics(8)): "not-saved" where it
                 learns nothing, "flushed" if it was deleted before the trial, "kept" if it was not
    load:        what else the machine did meanwhile
    """

    sender: SocketSettings | None = None
    receiver: SocketSettings | None = None
    device: DeviceSettings | None = None
    tcp_metrics: str | None = None
    load: MachineLoad | None = None


def socket_settings(endpoint: EndpointResult) -> SocketSettings | None:
    """The settings among the counters of an endpoint; None if it reported none."""
    counters = endpoint.counters

    def number(*names: str) -> int | None:
        found = [counters[name] for name in names if name in counters]
        return int(found[0]) if found and isinstance(found[0], int | float) else None

    def flag(name: str) -> bool | None:
        value = number(name)
        return None if value is None else value != 0

    found = SocketSettings(
        send_buffer_bytes=number("send_buffer_bytes"),
        receive_buffer_bytes=number("receive_buffer_bytes"),
        segment_bytes=number("segment_bytes", "datagram_bytes"),
        ecn=flag("ecn"),
        segmentation_offload=flag("segmentation_offload"),
        receive_offload=flag("receive_offload"),
    )
    return found if found != SocketSettings() else None


def settings_in_words(conditions: TrialConditions) -> dict[str, str]:
    """Name -> text, of the settings that are the same from trial to trial unless something changed them.

    Not among them: buffers, which the kernel tunes in the course of a transfer; the load; and the size of datagrams
    with which each session over UDP begins, as a short one may end before it knows what the path carries.
    """
    sender, receiver = (end or SocketSettings() for end in (conditions.sender, conditions.receiver))
    device = conditions.device
    offloads = {"UDP_SEGMENT": sender.segmentation_offload, "UDP_GRO": receiver.receive_offload}
    has_segment = sender.segment_bytes not in (None, BASE_DATAGRAM_BYTES)
    found = {
        "segment": f"{sender.segment_bytes:,} bytes" if has_segment else None,
        "ECN": _on(sender.ecn),
        "UDP offload": _list(offloads) if sender.segmentation_offload is not None else None,
        "TCP metrics": conditions.tcp_metrics,
    }
    if device is not None:
        found["queue of the device"] = device.qdisc
        found["MTU"] = f"{device.mtu_bytes:,} bytes" if device.mtu_bytes is not None else None
        found["offloads of the device"] = _list(device.offloads) if device.offloads else None
    return {name: text for name, text in found.items() if text is not None}


def counted_settings(conditions: Iterable[TrialConditions]) -> Mapping[str, Mapping[str, int]]:
    """Name of a setting -> each text that trials have for it, and how many do, the most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for each in conditions:
        for name, text in settings_in_words(each).items():
            counted.setdefault(name, Counter())[text] += 1
    return {name: dict(texts.most_common()) for name, texts in counted.items()}


def _on(flag: bool | None) -> str | None:
    return None if flag is None else "on" if flag else "off"


def _list(flags: Mapping[str, bool | None]) -> str:
    """The names of those that are on."""
    return ", ".join(name for name, flag in flags.items() if flag) or "none"
