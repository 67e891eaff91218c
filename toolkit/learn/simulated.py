"""The experiments of the later lessons: nettool's engine over a simulated path, in virtual time.

The engine and its packets are those of a real transfer; the path, its delays and its losses are models. The same
experiment therefore shows the same packets at the same times on any machine.
"""

from dataclasses import dataclass
from typing import Final

from toolkit.netmodel.spec import LinkSpec, PathSpec, QueueSpec
from toolkit.rudp import wire
from toolkit.rudp.wire import PacketType
from toolkit.simulator.host import Host
from toolkit.simulator.inbox import DatagramRun, Datagrams
from toolkit.simulator.simulator import Experiment, FlowSpec, Simulator, run
from toolkit.units import format_rate

_MS: Final = 1_000_000
_MTU_BYTES: Final = 1280  # small enough that no search for a larger datagram mixes with the packets of the lesson
_FILE_BYTES: Final = 8_000
_LOST_PACKET: Final = 2
_CHART_COLUMNS: Final = 50
_CHART_INTERVAL_MS: Final = 200
_WINDOW_RUN_MS: Final = 6_000
_CROSSOVER_BYTES: Final = 1 << 20
_LOSSES: Final = {"0%": 0.0, "0.1%": 0.001, "1%": 0.01, "5%": 0.05}


@dataclass
class _Packet:
    """A packet on the path: when it was sent, whether from near to far, and its bytes."""

    sent_ns: int
    is_forward: bool
    data: memoryview
    is_lost: bool = False

    @property
    def kind(self) -> PacketType:
        return PacketType(self.data[0])

    @property
    def offset(self) -> int:
        """The offset of the first byte that a DATA packet carries."""
        return wire.DATA.unpack_untrusted(self.data)[4]

    @property
    def number(self) -> int:
        return wire.COMMON.unpack_untrusted(self.data)[3]

    @property
    def acknowledged(self) -> list[tuple[int, int]]:
        """The ranges of packet numbers that an ACK lists, the oldest first."""
        return wire.decode_ack_untrusted(self.data).ranges[::-1]

    def line(self) -> str:
        """Return time, direction and content, without words that a language would have to translate."""
        arrow = "-->" if self.is_forward else "<--"
        text = f"{self.sent_ns / _MS:7.1f} ms  {arrow}  {self.kind.name:7}"
        if self.kind is PacketType.ACK:
            text += "      " + ", ".join(f"#{a}" if b - a == 1 else f"#{a}-#{b - 1}" for a, b in self.acknowledged)
        elif self.is_forward and self.kind >= PacketType.DATA:
            text += f" #{self.number:<3}"
        if self.kind is PacketType.DATA:
            text += f" [{self.offset}, {self.offset + len(self.data) - wire.HEADER_BYTES})"
        return f"{text}  XXX" if self.is_lost else text.rstrip()


class _WatchedSimulator(Simulator):
    """Notes every packet. The path loses DATA packet number `lost_number` on its way to the far end."""

    def __init__(self, link: LinkSpec, flow: FlowSpec, lost_number: int | None = None) -> None:
        super().__init__(link, [flow])
        self.packets: list[_Packet] = []
        self._lost_number = lost_number

    def send(self, now_ns: int, host: Host, datagrams: Datagrams) -> None:
        """As in Simulator."""
        for index in range(datagrams.count):
            self.packets.append(_Packet(now_ns, host.is_forward, datagrams.part(index, index + 1)))
        super().send(now_ns, host, datagrams)

    def deliver(self, host: Host, run: DatagramRun) -> None:
        """As in Simulator, without the packet that is lost."""
        lost = None if self._lost_number is None else self._lost_number - run.datagrams.sequence
        if host.is_forward or not run.datagrams.is_data or lost is None or not run.first <= lost < run.end:
            super().deliver(host, run)
            return
        for packet in self.data_packets:
            packet.is_lost |= packet.number == self._lost_number
        if run.first < lost:
            super().deliver(host, run._replace(end=lost))
        if lost + 1 < run.end:
            after_ns = run.first_ns + (lost + 1 - run.first) * run.gap_ns
            super().deliver(host, run._replace(first=lost + 1, first_ns=after_ns))

    @property
    def data_packets(self) -> list[_Packet]:
        """The packets that carried bytes of the file."""
        return [packet for packet in self.packets if packet.is_forward and packet.kind is PacketType.DATA]

    def lines(self) -> str:
        """Return one line for each packet."""
        return "\n".join(packet.line() for packet in self.packets)


def _small_link() -> LinkSpec:
    """10 Mbit/s, and 80 ms there and back."""
    path = PathSpec(rate_bps=10e6, delay_ns=40 * _MS)
    return LinkSpec(path, path, mtu_bytes=_MTU_BYTES, seed=1)


def sequence() -> dict[str, str]:
    """Lesson: sequence numbers and acknowledgements. Sends a small file and shows every packet."""
    simulator = _WatchedSimulator(_small_link(), FlowSpec("newreno", size_bytes=_FILE_BYTES))
    (flow,) = simulator.run()
    first_ack = next(packet for packet in simulator.packets if packet.kind is PacketType.ACK)
    sent = simulator.data_packets
    return {
        "bytes": f"{_FILE_BYTES:,}",
        "packets": simulator.lines(),
        "data_packets": str(len(sent)),
        "first_bytes": f"{sent[1].offset:,}",
        "acked": str(first_ack.acknowledged[-1][1] - 1),
        "ms": f"{(flow.end_ns - flow.start_ns) / _MS:.1f}",
    }


def loss() -> dict[str, str]:
    """Lesson: loss and retransmission. The same file, of which the path loses one packet."""
    simulator = _WatchedSimulator(_small_link(), FlowSpec("newreno", size_bytes=_FILE_BYTES), _LOST_PACKET)
    (flow,) = simulator.run()
    lost = next(packet for packet in simulator.data_packets if packet.is_lost)
    again = next(packet for packet in simulator.data_packets if packet.offset == lost.offset and not packet.is_lost)
    return {
        "packets": simulator.lines(),
        "lost": str(lost.number),
        "again": str(again.number),
        "offset": f"{lost.offset:,}",
        "waited": f"{(again.sent_ns - lost.sent_ns) / _MS:.1f}",
        "ms": f"{(flow.end_ns - flow.start_ns) / _MS:.1f}",
    }


def congestion() -> dict[str, str]:
    """Lesson: congestion control. The window of NewReno over time, and what three controllers make of one path."""
    path = PathSpec(rate_bps=4e6, delay_ns=25 * _MS, queue=QueueSpec(limit_bytes=25_000))
    link = LinkSpec(path, path, seed=1)
    values = {}
    for control in ("newreno", "cubic", "bbr"):
        flow = FlowSpec(control, duration_ns=_WINDOW_RUN_MS * _MS)
        result = run(Experiment(link, [flow]), _CHART_INTERVAL_MS * _MS)
        values[f"{control}_rate"] = format_rate(result.goodput_bps)
        values[f"{control}_queue"] = f"{result.queue_mean_ns / _MS:.0f} ms"
        values[f"{control}_lost"] = str(sum(result.flows[0].lost_packets.values()))
        if control == "newreno":
            windows = [(sample.time_ns, sample.congestion_window_bytes) for sample in result.samples]
            values["chart"] = _chart(windows)
            values["largest"] = f"{max(size for _, size in windows):,}"
    return values


def _chart(points: list[tuple[int, int]]) -> str:
    """Return one line for each (time, bytes): the time, the size, and a bar."""
    most = max(size for _, size in points)
    return "\n".join(
        f"{time_ns / 1e9:5.2f} s {size / 1000:6.1f} kB  {'#' * round(size / most * _CHART_COLUMNS)}"
        for time_ns, size in points
    )


def crossover() -> dict[str, str]:
    """Lesson: when UDP wins. How long a file takes at four shares of loss, with CUBIC and with BBR."""
    rows = []
    ratios = []
    for text, share in _LOSSES.items():
        path = PathSpec(rate_bps=50e6, delay_ns=20 * _MS, loss=share)
        link = LinkSpec(path, path, seed=1)
        times_s = {}
        for control in ("cubic", "bbr"):
            result = run(Experiment(link, [FlowSpec(control, size_bytes=_CROSSOVER_BYTES)]))
            times_s[control] = result.duration_ns / 1e9
        ratio = times_s["cubic"] / times_s["bbr"]
        rows.append(f"{text:>6}  {times_s['cubic']:7.2f} s  {times_s['bbr']:7.2f} s  {ratio:6.1f}")
        ratios.append(ratio)
    return {"rows": "\n".join(rows), "clean_ratio": f"{ratios[0]:.1f}", "worst_ratio": f"{ratios[-1]:.1f}"}
