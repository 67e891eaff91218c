"""Fairness: another flow that has the path to itself before a transfer begins, and shares it while that lasts.

Reported are its goodput alone and beside, and Jain's index of the two flows while both ran.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from toolkit.compare.plan import Setting
from toolkit.compare.testbed import Place
from toolkit.compare.worker_process import End
from toolkit.errors import TransferError
from toolkit.simulator.result import jain_index

ALONE_S = 3.0
SETTLE_S = 1.0
_SETTLE_ROUND_TRIPS = 15
_STOP_LIMIT_S = 15.0


class Competitor:
    """One flow without an end, of one setting. Call order: `measure_alone`, then for each trial `beside`, `ended`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._alone_bps = 0.0
        self._sending: End | None = None

    def measure_alone(self, place: Place, seed: int) -> float:
        """Run it alone for a while; its goodput in bits per second. Raises TransferError."""
        place.begin(seed)
        with self.beside(place):
            started_s = time.monotonic()
            time.sleep(ALONE_S)
            self._alone_bps = self._stopped(started_s, time.monotonic())
        return self._alone_bps

    @contextmanager
    def beside(self, place: Place) -> Iterator[None]:
        """Have it run, and up to speed, while the block lasts. Raises TransferError."""
        setting = self.setting
        with ExitStack() as running:
            receiving = running.enter_context(
                place.receiver(setting, {"role": "receive", "transport": setting.transport})
            )
            job: dict[str, Any] = {
                "role": "send",
                "transport": setting.transport,
                "congestion_control": setting.congestion_control,
                "rate_bps": setting.rate_bps,
                "address": [place.host, receiving.await_port()],
                "payload": "-",
                "is_endless": True,
            }
            self._sending = running.enter_context(place.sender(setting, job))
            self._sending.await_ready()
            self._sending.go()
            time.sleep(max(SETTLE_S, _SETTLE_ROUND_TRIPS * place.path.rtt_s))
            yield
            self._sending = None

    def ended(self, started_s: float, ended_s: float, goodput_bps: float) -> Mapping[str, float]:
        """The record's `competitor` of a transfer that ran between these times. Raises TransferError."""
        beside_bps = self._stopped(started_s, ended_s)
        return {
            "goodput_bps_alone": self._alone_bps,
            "goodput_bps_beside": beside_bps,
            "jain": jain_index([goodput_bps, beside_bps]),
        }

    def _stopped(self, started_s: float, ended_s: float) -> float:
        """End the flow; its goodput between two times of the monotonic clock."""
        assert self._sending is not None
        self._sending.stop()
        told = self._sending.result(_STOP_LIMIT_S)
        if "series" not in told:
            raise TransferError(f"the competing flow failed: {told.get('error', 'it says nothing')}")
        times = np.asarray(told["series"]["t_s"]) + told["started_s"]
        delivered = told["series"]["delivered_bytes"]
        start, end = np.interp([started_s, ended_s], times, delivered)
        return float(8 * (end - start) / max(ended_s - started_s, 1e-9))
