"""The descriptors of the pipe that content is moved through."""

import os

import pytest

from toolkit.transports.tcp import splice


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice(2)")
def test_an_interrupted_close_closes_no_descriptor_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file may have got its number meanwhile."""
    pipe, close = splice.SplicePipe(), os.close

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipe.close()
    other = os.open(os.devnull, os.O_RDONLY)
    pipe.close()
    os.close(other)
