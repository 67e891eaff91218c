"""An interrupt takes effect wherever the engine is."""

import enum
import sys
from types import FrameType
from typing import Any

from tests.support.engine_pair import MS, Hazards, Pair


def test_the_engine_gives_numpy_no_enum() -> None:
    """numpy looks for special attributes of one in Python code, and drops what that raises: KeyboardInterrupt too."""
    called: list[str] = []

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename == enum.__file__:
            called.append(frame.f_code.co_name)

    pair = Pair(1, Hazards(delay_ns=10 * MS, rate_bps=50e6, loss=0.02), data=300_000, back_data=100_000)
    pair.near.offer_all([bytes(5000)] * 5)
    pair.far.offer_all([bytes(5000)] * 5)
    sys.setprofile(note)
    try:
        pair.run_until_acked()
    finally:
        sys.setprofile(None)
    assert "__getattr__" not in called
