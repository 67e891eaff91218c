"""A headless Chromium for the tests of the page, which are skipped without Chromium or playwright."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.report_samples import LOSSES, grid, lossy, one_path, troubled
from toolkit.comparison.records import Results

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # playwright keeps an event loop running, which must not outlive these tests
def chromium() -> "Iterator[Browser]":
    """One browser; each of its contexts has an empty profile."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("Chromium is not installed; on Debian: apt install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_ARGUMENTS, *sandbox])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report_campaigns() -> list[Results]:
    """Small campaigns that have every kind of picture; the last has failures, marks and hostile text."""
    return [lossy(LOSSES[2:]), one_path(), grid(rtts_ms=(10, 160), losses=(0.0, 0.01)), troubled()]


@pytest.fixture(scope="session")
def report_page(tmp_path_factory: pytest.TempPathFactory, report_campaigns: list[Results]) -> Path:
    """A page of `report_campaigns`."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'nettool[report]'")
    from toolkit.comparison.summary import summarise
    from toolkit.report.page import write_page

    path = tmp_path_factory.mktemp("page") / "out.html"
    write_page([summarise(results) for results in report_campaigns], path)
    return path
