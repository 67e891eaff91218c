"""A dask cluster in this process, for all tests of a file."""

from collections.abc import Iterator
from typing import Any

import pytest

from toolkit.fleet.dask_client import distributed


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    module = distributed()
    with (
        module.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        ) as cluster,
        module.Client(cluster) as connected,
    ):
        yield connected
