"""What the worker of a trial asks of the transport."""

import threading

import pytest

from toolkit.channel import Address, TransportOptions
from toolkit.comparison import worker
from toolkit.comparison.worker_protocol import SendJob
from toolkit.errors import UnreachableError


class _Unreachable:
    """A transport that takes note of the options."""

    def __init__(self) -> None:
        self.options: list[TransportOptions] = []

    def connect(self, _address: Address, options: TransportOptions) -> None:
        self.options.append(options)
        raise UnreachableError("nobody is there")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_trial_learns_nothing_from_the_one_before_it(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nettool serve` receives all trials of a campaign with one listener, whose tokens save UDP a round trip."""
    asked = _Unreachable()
    monkeypatch.setattr(worker, "transport", lambda _name: asked)
    monkeypatch.setattr(worker, "wait_for_go", threading.Event)
    with pytest.raises(UnreachableError):
        worker._send(SendJob(transport, None, None, "192.0.2.1", 9000, "payload", 100))
    assert [(each.returns_tokens, each.remembers_paths) for each in asked.options] == [(False, False)]
