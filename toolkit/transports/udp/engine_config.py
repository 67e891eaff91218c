"""The engine's configuration for a connection: from the options of a transport and the socket that it uses."""

import secrets

from toolkit.channel import MAX_MESSAGE_BYTES, TransportOptions
from toolkit.errors import UsageError
from toolkit.rudp.config import JUMBO_DATAGRAM_BYTES, Config
from toolkit.rudp.congestion import base as congestion
from toolkit.rudp.flow_control import initial_window_bytes
from toolkit.transports.udp.socket import DatagramSocket
from toolkit.units import check_sending_rate


def config_of(options: TransportOptions, sock: DatagramSocket) -> Config:
    """Return the engine's configuration for a connection on `sock`. Raises UsageError for impossible options."""
    return Config(
        congestion_control=options.congestion_control or congestion.DEFAULT_CONTROLLER,
        rate_bps=options.rate_bps,
        idle_timeout_ns=int(options.idle_timeout_s * 1e9),
        receive_window_bytes=initial_window_bytes(sock.receive_buffer_bytes),
        max_message_bytes=MAX_MESSAGE_BYTES + 1,
        max_datagram_bytes=JUMBO_DATAGRAM_BYTES,
        seed=secrets.randbits(64),
    )


def check_options(options: TransportOptions) -> None:
    """Raises UsageError for what this transport does not support."""
    if options.streams != 1:
        raise UsageError("a session over UDP has no parallel connections: `streams` is for TCP")
    check_controller(options.congestion_control, options.rate_bps)


def check_controller(name: str | None, rate_bps: float | None) -> str:
    """The name of the congestion controller; None is the default one. Raises UsageError, also for the rate."""
    if rate_bps is not None:
        check_sending_rate(rate_bps)
    name = name or congestion.DEFAULT_CONTROLLER
    congestion.controller_factory(name)
    if name == "rate" and rate_bps is None:
        raise UsageError("congestion control 'rate' sends at a rate that you choose: add `rate_bps`")
    return name
