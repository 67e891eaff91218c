"""The descriptors of the pipe that content is moved through."""

import pytest

from tests.support.interrupted_close import assert_closes_each_descriptor_once
from toolkit.transports.tcp import splice


@pytest.mark.skipif(not splice.is_available, reason="this system has no splice(2)")
def test_an_interrupted_close_closes_no_descriptor_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_closes_each_descriptor_once(monkeypatch, splice.SplicePipe().close)
