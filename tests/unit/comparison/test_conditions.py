"""The settings under which a trial ran, read from endpoints, devices and the kernel."""

from toolkit.comparison.conditions import SocketSettings, TrialConditions, socket_settings
from toolkit.comparison.device import DeviceSettings, local_device
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.json_codec import decode, encode
from toolkit.comparison.machine_load import MachineLoad
from toolkit.comparison.tcp_metrics import FLUSHED, KEPT, NOT_SAVED, forget


def test_settings_are_those_that_an_endpoint_counts() -> None:
    tcp = EndpointResult(counters={"segment_bytes": 1448, "send_buffer_bytes": 87380, "ecn": 1})
    assert socket_settings(tcp) == SocketSettings(send_buffer_bytes=87380, segment_bytes=1448, ecn=True)
    udp = EndpointResult(counters={"datagram_bytes": 1472, "segmentation_offload": 0})
    assert socket_settings(udp) == SocketSettings(segment_bytes=1472, segmentation_offload=False)
    assert socket_settings(EndpointResult(counters={"rtt_ms": 3.0})) is None
    assert socket_settings(EndpointResult(counters={"segment_bytes": "many"})) is None


def test_conditions_survive_a_record() -> None:
    conditions = TrialConditions(
        sender=SocketSettings(1, 2, 3, False, True, None),
        device=DeviceSettings("link0", "noqueue", 1500, {"generic-receive-offload": True}),
        tcp_metrics=FLUSHED,
        load=MachineLoad(0.1, 0.0, None),
    )
    assert decode(TrialConditions, encode(conditions)) == conditions


def test_the_loopback_device() -> None:
    device = local_device("lo")
    assert (device.name, device.mtu_bytes is not None and device.mtu_bytes > 1000) == ("lo", True)
    assert device.qdisc == "noqueue"
    assert device.offloads["scatter-gather"] is True
    assert local_device("nosuch") == DeviceSettings("nosuch")


def test_what_tcp_remembers_is_flushed_or_said_to_be_kept() -> None:
    assert forget("127.0.0.77") in (NOT_SAVED, FLUSHED, KEPT)
