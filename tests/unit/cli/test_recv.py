"""What a receiver says when sessions end."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sessions import channel_pair
from toolkit.api.events import SessionBegan, SessionEnded
from toolkit.api.results import SessionResult
from toolkit.cli.recv import _ReceiverScreen
from toolkit.errors import ExitCode, TransferError
from toolkit.transfer import TransferResult
from toolkit.transfer.result import UnfinishedEntry


@pytest.mark.parametrize("is_continued", [False, True])
def test_only_what_no_newer_session_goes_on_with_is_to_be_sent_again(
    capsys: pytest.CaptureFixture[str], is_continued: bool
) -> None:
    arguments: Any = SimpleNamespace(quiet=False, verbose=False, json=False)
    bars: Any = SimpleNamespace(bar=lambda *_: nullcontext())
    unused: Any = None
    screen = _ReceiverScreen(arguments, unused, unused, bars)
    result = TransferResult("xxh3-128", unfinished=[UnfinishedEntry("film", 1 << 20, 2 << 20)])
    with channel_pair() as (channel, _):
        screen(SessionBegan(1, "tcp", channel.peer, channel.statistics))
        ended = SessionResult.of("tcp", channel, result, 1.0, 0.1)
    screen(SessionEnded(1, ended, TransferError("the disk is full"), is_continued))
    told = capsys.readouterr().err
    assert "the disk is full" in told
    assert ("send it again" in told) != is_continued
    assert screen.exit_code == (ExitCode.OK if is_continued else ExitCode.FAILED)
