"""Interrupts while descriptors are freed: none may be closed twice, because another file may have got its number."""

import os
from collections.abc import Callable

import pytest


def assert_closes_each_descriptor_once(monkeypatch: pytest.MonkeyPatch, close_all: Callable[[], None]) -> None:
    """Interrupt `close_all` after its first close(2), open a file, and check that the next call does not close that."""
    close = os.close

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            close_all()
    other = os.open(os.devnull, os.O_RDONLY)
    close_all()
    os.close(other)
