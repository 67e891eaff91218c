"""The page in Chromium: on a desktop and a phone, with mouse and keyboard, in light and dark mode."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from toolkit.comparison.records import Results
from toolkit.comparison.summary import summarise

PHONE = 360


@pytest.fixture(scope="module")
def desktop(chromium: Any, report_page: Path) -> Any:
    """The page at 1280 pixels; `page.complaints` collects console messages and script errors."""
    return opened(chromium, report_page, 1280, 900)


@pytest.fixture(scope="module")
def phone(chromium: Any, report_page: Path) -> Any:
    """The page at the width of a phone, with all details open."""
    page = opened(chromium, report_page, PHONE, 740)
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    return page


def opened(chromium: Any, report_page: Path, width: int, height: int) -> Any:
    page = chromium.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
    page.complaints = []
    page.requests = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(report_page.as_uri())
    return page


def texts(page: Any, selector: str) -> list[str]:
    return list(page.eval_on_selector_all(selector, "nodes => nodes.map(node => node.textContent)"))


def column(page: Any, title: str) -> list[str]:
    """The texts of one column of the first table."""
    script = """([table, title]) => {
        const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === title);
        return [...table.tBodies[0].rows].filter(row => row.className !== 'prose')
            .map(row => row.cells[column].textContent);
    }"""
    return list(page.evaluate(script, [page.query_selector("table"), title]))


def heading(page: Any, title: str) -> Any:
    return page.locator("table").first.locator("thead th", has_text=title).first


def test_the_page_causes_no_errors_and_no_requests(desktop: Any, report_page: Path) -> None:
    assert desktop.complaints == []
    assert [url for url in desktop.requests if not url.startswith("data:")] == [report_page.as_uri()]


def test_the_first_verdict_is_visible_without_scrolling(desktop: Any, report_campaigns: list[Results]) -> None:
    card = desktop.locator(".verdicts > li").first
    assert summarise(report_campaigns[0]).verdicts[0].details[0] in card.inner_text()
    for part in (card.locator(".forest"), card.locator(".remarks")):
        box = part.bounding_box()
        assert box["y"] + box["height"] < 900


@pytest.mark.parametrize("fixture", ["desktop", "phone"])
def test_the_plots_that_decide_fit_their_cards(fixture: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(fixture)
    strips = page.locator(".forest svg").evaluate_all(
        """nodes => nodes.map(node => {
            const box = node.getBoundingClientRect(), card = node.closest('.verdicts > li').getBoundingClientRect();
            return [box.width, box.left >= card.left && box.right <= card.right, node.getAttribute('aria-label')];
        })"""
    )
    assert len(strips) > 8
    assert all(width > 180 and is_inside and "×" in name for width, is_inside, name in strips)
    overlaps = page.locator(".ticks").evaluate_all(
        """nodes => nodes.flatMap(node => [...node.children].slice(1).filter((tick, n) =>
            tick.getBoundingClientRect().left < node.children[n].getBoundingClientRect().right))
            .map(tick => tick.textContent)"""
    )
    assert overlaps == []


def test_every_table_has_a_caption(desktop: Any) -> None:
    assert desktop.evaluate("[...document.querySelectorAll('table')].every(table => table.caption?.textContent)")


def test_every_picture_is_drawn_and_has_a_label(desktop: Any, report_campaigns: list[Results]) -> None:
    from toolkit.report.plots import pictures

    desktop.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    expected = [p for results in report_campaigns for p in pictures(summarise(results))]
    drawn = desktop.locator("figure svg")
    assert drawn.count() == len(expected)
    sizes = drawn.evaluate_all(
        "nodes => nodes.map(node => [node.clientWidth, node.clientHeight, node.children.length])"
    )
    assert all(width > 200 and height > 80 and children for width, height, children in sizes)
    names = drawn.evaluate_all("nodes => nodes.map(node => node.getAttribute('aria-label'))")
    assert [name.split(". ")[0] for name in names] == [picture.title for picture in expected]


def test_a_click_sorts_by_the_figure_behind_the_text(desktop: Any) -> None:
    desktop.reload()
    heading(desktop, "time").locator("button").click()
    times = column(desktop, "time")
    numbers = [float(text.split()[0]) for text in times]
    assert {text.split()[1] for text in times} == {"s"}
    assert numbers == sorted(numbers)
    assert heading(desktop, "time").get_attribute("aria-sort") == "ascending"
    heading(desktop, "time").locator("button").click()
    numbers = [float(text.split()[0]) for text in column(desktop, "time")]
    assert numbers == sorted(numbers, reverse=True)
    assert heading(desktop, "time").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_missing_figures_stay_last(desktop: Any, report_campaigns: list[Results]) -> None:
    desktop.reload()
    paths = len(report_campaigns[0].campaign.paths)
    button = heading(desktop, "x tcp-cubic").locator("button")
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        button.focus()
        desktop.keyboard.press(key)
        assert heading(desktop, "x tcp-cubic").get_attribute("aria-sort") == order
        ratios = column(desktop, "x tcp-cubic")
        assert ratios[-paths:] == ["-"] * paths
        known = [float(text) for text in ratios[:-paths]]
        assert known == sorted(known, reverse=order == "descending")
    others = desktop.locator("table").first.locator("th[aria-sort=none]")
    assert others.count() == desktop.locator("table").first.locator("thead th").count() - 1


def test_prose_stays_below_its_row(desktop: Any, report_campaigns: list[Results]) -> None:
    script = """table => [...table.tBodies[0].rows].filter(row => row.className === 'prose').map(row => {
        const owner = row.previousElementSibling;
        return [owner.cells[0].textContent, owner.cells[1].textContent, row.textContent];
    })"""
    desktop.reload()
    table = desktop.locator("section.table", has_text="Measured paths").first.locator("table")
    before = table.evaluate(script)
    assert len(before) == len(report_campaigns[0].probes)
    for _ in range(2):  # ascending is the order of the file
        table.locator("thead th", has_text="path").locator("button").click()
    after = table.evaluate(script)
    assert after != before
    assert sorted(after) == sorted(before)


def test_every_control_can_be_reached_with_the_keyboard(desktop: Any) -> None:
    desktop.reload()
    seen = set()
    for _ in range(60):
        desktop.keyboard.press("Tab")
        seen.add(desktop.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.skip", "A.", "BUTTON.", "DIV.scroll"} <= seen


def test_the_records_can_be_downloaded(desktop: Any, report_campaigns: list[Results]) -> None:
    with desktop.expect_download() as waiting:
        desktop.locator("a[download]").first.click()
    content = gzip.decompress(Path(waiting.value.path()).read_bytes())
    assert content.count(b"\n") == 1 + len(report_campaigns[0].probes) + len(report_campaigns[0].trials)


def test_a_hostile_label_is_shown_as_text(desktop: Any) -> None:
    assert any("<script>alert(1)</script>" in text for text in texts(desktop, "tbody th"))
    assert desktop.locator("script").count() == 1


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_phone_scrolls_only_tables_sideways(phone: Any, is_dark: bool) -> None:
    phone.emulate_media(color_scheme="dark" if is_dark else "light")
    assert phone.evaluate("document.scrollingElement.scrollWidth") <= PHONE
    wide = phone.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(node =>
            !node.closest('.scroll') && !node.closest('svg') && node.className !== 'skip'
            && node.getBoundingClientRect().right > innerWidth + 0.5).map(node => node.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    assert phone.locator(".scroll").first.evaluate("node => node.scrollWidth > node.clientWidth")
    assert phone.complaints == []


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_has_sufficient_contrast(desktop: Any, is_dark: bool) -> None:
    """At least 4.5:1 for every text, from the colours that Chromium computed (WCAG 2.2, 1.4.3)."""
    desktop.emulate_media(color_scheme="dark" if is_dark else "light")
    pairs = desktop.evaluate(
        """() => {
        const light = color => {
            const [r, g, b] = color.match(/[\\d.]+/g).map(Number).slice(0, 3).map(
                c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = node => {
            for (; node; node = node.parentElement) {
                const color = getComputedStyle(node).backgroundColor;
                if (!/, 0\\)$|transparent/.test(color)) return color;
            }
            return 'rgb(255, 255, 255)';
        };
        const texts = 'p, li, span, td, th, caption, h1, h2, h3, a, summary, figcaption, dt, dd';
        return [...document.querySelectorAll(texts)].map(node => {
            const [one, other] = [light(getComputedStyle(node).color), light(ground(node))];
            return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        });
    }"""
    )
    assert len(pairs) > 100
    assert min(pairs) >= 4.5
    background = desktop.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == is_dark
    ink = desktop.locator("figure svg text").first.evaluate("node => getComputedStyle(node).fill")
    assert (sum(int(part) for part in ink[4:-1].split(",")) > 500) == is_dark


@pytest.mark.long
def test_the_page_can_be_printed(desktop: Any) -> None:
    desktop.reload()
    desktop.emulate_media(media="print", color_scheme="light")
    assert desktop.locator(".scroll").first.evaluate("node => getComputedStyle(node).overflowX") == "visible"
    assert desktop.locator("nav").evaluate("node => getComputedStyle(node).display") == "none"
    assert desktop.pdf()[:5] == b"%PDF-"
    assert desktop.evaluate("[...document.querySelectorAll('details')].every(node => node.open)")
    desktop.emulate_media(media="screen")
