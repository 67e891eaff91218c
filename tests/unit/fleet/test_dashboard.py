"""The address of dask's dashboard is shown if something answers there."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from toolkit.fleet.deploy import dashboard_of


class Status(BaseHTTPRequestHandler):
    """A scheduler's web server: `/status` is a dashboard, and `/none/status` is missing without bokeh."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/status" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Status) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_dashboard_is_named_where_it_is(address: str) -> None:
    link = f"{address}/status"
    assert dashboard_of(SimpleNamespace(dashboard_link=link)) == link


def test_a_scheduler_without_a_dashboard_names_none(address: str) -> None:
    assert dashboard_of(SimpleNamespace(dashboard_link=f"{address}/none/status")) is None
    assert dashboard_of(SimpleNamespace(dashboard_link="http://127.0.0.1:1/status")) is None
    assert dashboard_of(SimpleNamespace(dashboard_link=None)) is None
