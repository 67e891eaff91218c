"""A dask cluster in this process, for all tests of a file."""

from collections.abc import Iterator
from typing import Any

import pytest

from toolkit.fleet.dask_client import distributed


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    module = distributed()
    any_port = {"dashboard_address": ":0"}  # another test, or another program, may have the usual one
    with (
        module.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            dashboard_address=None,
            memory_limit=0,
            scheduler_kwargs=any_port,
        ) as cluster,
        module.Client(cluster) as connected,
    ):
        yield connected
