"""Noise of simulated campaigns, as it was seen on real machines, for the tests of verdicts.

Everything is vectorised: `log_goodputs` draws the trials of many campaigns at once. The order of the trials of a block
is drawn anew in each block, as in a real campaign, and noise that depends on time follows that order.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Logs = NDArray[np.float64]
BASELINE, CONTROL, RIVAL = 0, 1, 2
_TRANSPORTS = 3
_Noise = Callable[[np.random.Generator, NDArray[np.intp]], Logs]


def _lognormal(generator: np.random.Generator, position: NDArray[np.intp]) -> Logs:
    """3% a trial, as on a quiet machine."""
    return generator.normal(0, 0.03, position.shape)


def _bimodal(generator: np.random.Generator, position: NDArray[np.intp]) -> Logs:
    """45% of the trials are 5 times as fast as the others."""
    return _lognormal(generator, position) + np.where(generator.random(position.shape) < 0.45, np.log(5), 0)


def _outliers(generator: np.random.Generator, position: NDArray[np.intp]) -> Logs:
    """Something else doubles the time of one trial in twenty."""
    return _lognormal(generator, position) - np.where(generator.random(position.shape) < 0.05, np.log(2), 0)


def _drift(generator: np.random.Generator, position: NDArray[np.intp]) -> Logs:
    """The machine gets 20% slower in the course of the campaign."""
    return _lognormal(generator, position) + np.log1p(-0.2 * position / position[0].size)


def _first_touch(generator: np.random.Generator, position: NDArray[np.intp]) -> Logs:
    """Memory that was not touched before halves the goodput; whether it was, mostly carries over to the next trial."""
    campaigns, trials = len(position), position[0].size
    is_cold = np.logical_xor.accumulate(generator.random((campaigns, trials)) < 0.3, axis=1)
    here = np.take_along_axis(is_cold, position.reshape(campaigns, trials), axis=1).reshape(position.shape)
    return _lognormal(generator, position) - np.where(here, np.log(2), 0)


NOISES: dict[str, _Noise] = {
    "lognormal 3%": _lognormal,
    "bimodal 55/45 at 5x": _bimodal,
    "1 in 20 at 2x": _outliers,
    "20% drift": _drift,
    "first touch": _first_touch,
}


def log_goodputs(noise: str, seed: int, campaigns: int, blocks: int, factor: float = 1.0) -> Logs:
    """Logarithms of goodputs: campaigns x blocks x (BASELINE, CONTROL, RIVAL); RIVAL is `factor` times as fast."""
    generator = np.random.default_rng(seed)
    order = generator.random((campaigns, blocks, _TRANSPORTS)).argsort(axis=2)
    position = order + np.arange(blocks)[:, None] * _TRANSPORTS
    logs = NOISES[noise](generator, position)
    logs[:, :, RIVAL] += np.log(factor)
    return logs
