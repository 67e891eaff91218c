"""Fairness: a background flow that has the path to itself before a transfer begins, and shares it during the transfer.

The result is the flow's goodput alone and beside the transfer, and Jain's index of the two flows while both ran.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np

from toolkit.comparison.records import BackgroundFlowResult, Setting
from toolkit.comparison.testbed import Testbed
from toolkit.comparison.worker_process import WorkerProcess
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob
from toolkit.errors import TransferError
from toolkit.simulator.result import jain_index

ALONE_S = 3.0
RAMP_UP_S = 1.0
_RAMP_UP_ROUND_TRIPS = 15
_STOP_LIMIT_S = 15.0


class BackgroundFlow:
    """One endless flow of one setting.

    Call `measure_alone` once. Then, for each trial, enter `running`, and call `finish` inside its block.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._alone_bps = 0.0
        self._sender: WorkerProcess | None = None

    def measure_alone(self, testbed: Testbed, seed: int) -> None:
        """Run the flow alone for a while, to learn its goodput. Raises TransferError."""
        testbed.begin(seed)
        with self.running(testbed):
            started_s = time.monotonic()
            time.sleep(ALONE_S)
            self._alone_bps = self._stop(started_s, time.monotonic())

    @contextmanager
    def running(self, testbed: Testbed) -> Iterator[None]:
        """Start the flow and wait until it runs at full speed; it ends with the block. Raises TransferError."""
        setting = self.setting
        with ExitStack() as stack:
            receiver = stack.enter_context(
                testbed.receiver(
                    setting, ReceiveJob(setting.transport, directory=None, plaintext=not setting.is_encrypted)
                )
            )
            job = partial(
                SendJob,
                transport=setting.transport,
                congestion_control=setting.congestion_control,
                rate_bps=setting.rate_bps,
                host=testbed.host,
                payload=None,
                plaintext=not setting.is_encrypted,
            )
            self._sender = stack.enter_context(testbed.sender(setting, lambda: job(port=receiver.await_port())))
            self._sender.await_ready()
            self._sender.go()
            time.sleep(max(RAMP_UP_S, _RAMP_UP_ROUND_TRIPS * testbed.path.rtt_s))
            yield
            self._sender = None

    def finish(self, started_s: float, ended_s: float, goodput_bps: float) -> BackgroundFlowResult:
        """Stop the flow beside a transfer that ran between these times of the monotonic clock. Raises TransferError.

        goodput_bps: of the transfer
        """
        beside_bps = self._stop(started_s, ended_s)
        return BackgroundFlowResult(self._alone_bps, beside_bps, jain_index([goodput_bps, beside_bps]))

    def _stop(self, started_s: float, ended_s: float) -> float:
        """Stop the flow; its goodput between two times of the monotonic clock, in bits per second."""
        assert self._sender is not None
        self._sender.stop()
        result = self._sender.result(_STOP_LIMIT_S)
        if result.series is None or result.started_s is None:
            raise TransferError(f"the background flow failed: {result.error or 'it reported no samples'}")
        times = np.asarray(result.series.t_s) + result.started_s
        start, end = np.interp([started_s, ended_s], times, result.series.delivered_bytes)
        return float(8 * (end - start) / max(ended_s - started_s, 1e-9))
