"""What a sender says while it reconnects."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.api.events import Reconnecting, SessionBegan
from toolkit.api.sending import SendRequest
from toolkit.channel import Address
from toolkit.cli.send import _SenderScreen
from toolkit.errors import PeerClosedError

RECEIVER = Address("127.0.0.1", 9000)


def began(session: int) -> SessionBegan:
    """Return the event of a session with the receiver."""
    return SessionBegan(session, "tcp", RECEIVER, dict)


@pytest.fixture
def screen() -> _SenderScreen:
    """Return a screen whose standard error is no terminal."""
    bars: Any = SimpleNamespace(bar=lambda *_, **__: nullcontext())
    return _SenderScreen(bars, SendRequest(sources=["film"], receiver=RECEIVER), quiet=False)


def test_a_loss_is_told_once_and_so_is_the_return(screen: _SenderScreen, capsys: pytest.CaptureFixture[str]) -> None:
    lost = PeerClosedError("the connection was lost")
    screen(began(1))
    assert capsys.readouterr().err == ""
    for _ in range(3):  # nobody listens meanwhile
        screen(Reconnecting(lost, 0.1))
    screen(Reconnecting(PeerClosedError("the handshake was cut"), 0.1))
    assert capsys.readouterr().err == "the connection was lost; reconnecting\n"
    screen(began(2))
    assert capsys.readouterr().err == "connected to 127.0.0.1:9000 again\n"
    screen(Reconnecting(PeerClosedError("it was lost again"), 0.1))
    assert capsys.readouterr().err == "it was lost again; reconnecting\n"


def test_a_receiver_that_is_still_busy_with_the_lost_session_does_not_repeat_the_lines(
    screen: _SenderScreen, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = PeerClosedError("the connection was lost")
    screen(began(1))
    for session in range(2, 5):  # each of them is refused, after which the loss stays the reason
        screen(Reconnecting(lost, 0.1))
        screen(began(session))
    assert capsys.readouterr().err == "the connection was lost; reconnecting\nconnected to 127.0.0.1:9000 again\n"
