"""The reliable-UDP transport. `udp_connect` and `udp_listen` make channels, `udp_channel` is one."""

import socket

from toolkit.channel import Address, TransportOptions
from toolkit.errors import UsageError
from toolkit.rudp.congestion import base as congestion
from toolkit.transports.addresses import resolve
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import Attempts
from toolkit.transports.udp.listener import UdpListener
from toolkit.transports.udp.qlog_files import LogFiles


class UdpTransport:
    """See `toolkit.channel.Transport`."""

    name = "udp"

    def connect(self, address: Address, options: TransportOptions) -> UdpChannel:
        _check(options)
        candidates = resolve(address, socket.SOCK_DGRAM)
        logs = LogFiles(options.qlog) if options.qlog is not None else None
        attempts = Attempts(candidates, address, options, logs)
        try:
            return attempts.run()
        finally:
            attempts.close()
            if logs is not None:
                logs.close()

    def listen(self, address: Address, options: TransportOptions) -> UdpListener:
        _check(options)
        return UdpListener(address, options)


def _check(options: TransportOptions) -> None:
    """Raises UsageError for what this transport cannot do."""
    if options.streams != 1:
        raise UsageError("UDP has one stream per session: --streams is for TCP")
    name = options.congestion_control or congestion.DEFAULT_CONTROLLER
    congestion.controller_factory(name)
    if name == "rate" and options.rate_bps is None:
        raise UsageError("congestion control 'rate' holds the rate that you give it: add --rate, such as --rate 50Mbit")
