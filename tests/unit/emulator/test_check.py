"""What a check expects of a flow, against the models that carry it."""

import pytest

from toolkit.emulator.check import expected_arrival_share
from toolkit.netmodel.path import PathModel
from toolkit.netmodel.spec import BurstLoss, PathSpec

PACKETS = 2000


@pytest.mark.parametrize(
    ("path", "share", "spread"),
    [
        (PathSpec(), 1.0, 0.0),
        (PathSpec(loss=1.0), 0.0, 0.0),
        (PathSpec(duplicate=1.0), 2.0, 0.0),
        (PathSpec(loss=0.5), 0.5, 3.29 * 0.5 / PACKETS**0.5),
        (PathSpec(loss=0.1, corrupt=0.1), 0.81, 3.29 * (0.81 * 0.19 / PACKETS) ** 0.5),
        (PathSpec(duplicate=0.5), 1.5, 3.29 * 0.5 / PACKETS**0.5),
        (PathSpec(burst=BurstLoss(80, 20)), 0.8, 3.29 * 0.4 / PACKETS**0.5),
    ],
)
def test_what_arrives_of_what_the_bottleneck_sends(path: PathSpec, share: float, spread: float) -> None:
    assert expected_arrival_share(path, PACKETS) == pytest.approx((share, spread))


@pytest.mark.parametrize("seed", range(20))
def test_the_models_stay_within_the_spread(seed: int) -> None:
    path = PathSpec(loss=0.05, corrupt=0.05, duplicate=0.1)
    model = PathModel(path, 0, seed)
    model.handle_packets(0, 1500, PACKETS)
    came = sum(fate.packets for fate in model.poll_fates(0) if not fate.drop and fate.corrupt_at is None)
    share, spread = expected_arrival_share(path, PACKETS)
    assert abs(came / PACKETS - share) <= spread
