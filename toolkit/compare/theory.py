"""What loss lets a congestion control reach, by the models of its own authors.

    Reno    W = sqrt(3 / (2 p))                       Mathis et al. 1997; RFC 9438 calls it the AIMD average
    CUBIC   W = (C (3 + b) / (4 (1 - b)))^(1/4) RTT^(3/4) / p^(3/4), and no less than Reno's
                                                      RFC 9438 section 5.1, with C = 0.4 and b = 0.7

W in segments, p the share of packets lost, each on its own; the rate is W segments a round trip. BBR has no such
response: it follows the delivery rate and bears some loss (draft-ietf-ccwg-bbr section 2.5).
"""

import math

SEGMENT_BYTES = 1448
_C, _BETA = 0.4, 0.7
_RENO_LIKE = frozenset(("reno", "newreno"))
LOSS_BASED = frozenset(("cubic", "reno", "newreno"))


def loss_response_bps(congestion_control: str, loss: float, rtt_s: float) -> float | None:
    """Goodput in bits per second; None where loss does not bound this control, or there is none."""
    if loss <= 0 or rtt_s <= 0 or congestion_control not in LOSS_BASED:
        return None
    window = math.sqrt(1.5 / loss)
    if congestion_control not in _RENO_LIKE:
        cubic = (_C * (3 + _BETA) / (4 * (1 - _BETA))) ** 0.25 * (rtt_s / loss) ** 0.75
        window = max(window, cubic)
    return 8 * SEGMENT_BYTES * window / rtt_s * (1 - loss)


def model_name(congestion_control: str) -> str:
    """Where the response comes from, for a sentence."""
    return "Mathis et al." if congestion_control in _RENO_LIKE else "RFC 9438"


def expected_bps(congestion_control: str | None, ideal_bps: float, loss: float, rtt_s: float) -> float:
    """A guess for a plan: what loss allows, and no more than the path carries."""
    allowed = loss_response_bps(congestion_control or "", loss, rtt_s)
    return min(ideal_bps, allowed) if allowed is not None else 0.85 * ideal_bps
