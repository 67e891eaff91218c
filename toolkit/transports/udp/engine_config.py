"""The engine's configuration for a connection: from the options of a transport and the socket that it uses."""

import secrets

from toolkit.channel import MAX_MESSAGE_BYTES, TransportOptions
from toolkit.rudp.config import JUMBO_DATAGRAM_BYTES, Config
from toolkit.rudp.congestion import base as congestion
from toolkit.rudp.flow_control import initial_window_bytes
from toolkit.transports.udp.socket import DatagramSocket


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
