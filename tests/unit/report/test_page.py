"""The text of the page: complete, self-contained, escaped, and the same each time."""

import base64
import gzip
import hashlib
import re
from dataclasses import replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.report_samples import LOSSES, lossy, one_path, save, troubled
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.merge import merge
from toolkit.comparison.record_file import read
from toolkit.comparison.summary import summarise
from toolkit.errors import UsageError
from toolkit.report import drawing
from toolkit.report.forest import forest, scale_for
from toolkit.report.html import Html, element, join
from toolkit.report.page import Heading, page, write_page
from toolkit.report.plots import pictures
from toolkit.report.tables import tables
from toolkit.units import format_ratio

two_losses = cache(lambda: lossy(LOSSES[2:]))
page_of_two = cache(lambda: page([summarise(two_losses()), summarise(one_path())]))
page_of_troubled = cache(lambda: page([summarise(troubled())]))
VOID = {"meta", "link", "br", "hr"}


class Outline(HTMLParser):
    """Checks that elements are properly nested, and collects their names, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def test_a_page_has_the_title_and_the_note_of_its_author() -> None:
    text = page([], heading=Heading("Lab <1>", "First line\nof one paragraph.\n\nAnother."))
    assert "<title>nettool: Lab &lt;1&gt;</title>" in text
    assert "<h1>Lab &lt;1&gt;</h1><p>First line of one paragraph.</p><p>Another.</p>" in text
    assert "<h1>TCP and UDP compared</h1><nav" in page([summarise(two_losses()), summarise(one_path())])


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    saved = [save(two_losses(), tmp_path / "link.jsonl"), save(one_path(), tmp_path / "loopback.jsonl")]
    path = tmp_path / "folder" / "page.html"
    write_page([summarise(read(records)) for records in saved], path)
    assert path.read_bytes() == page_of_two().encode()


def test_verdicts_come_before_tables_and_pictures() -> None:
    results = two_losses()
    text = page_of_two()
    first = unescape(re.sub(r"<[^>]+>", "", text[text.index('<ol class="verdicts">') : text.index("</ul></li>")]))
    verdict = summarise(results).verdicts[0]
    assert verdict.where in first
    for row in verdict.rows[1:]:
        assert row.ratio is not None
        assert row.ratio.interval is not None
        low, high = map(format_ratio, row.ratio.interval)
        assert f"{row.verdict} {format_ratio(row.ratio.value)} × [{low}, {high}]" in first
    assert all(line in first for line in verdict.details)
    assert text.index("<ol") < text.index("<svg") < text.index("</ol>") < text.index("<table")


def test_a_forest_plot_has_a_dot_for_each_block_the_interval_and_the_control() -> None:
    verdict = summarise(two_losses()).verdicts[0]
    row, control = verdict.rows[1:]
    text = forest(verdict, "tcp-cubic", 0.05)
    outline = Outline(text)
    kinds = [attributes["class"] for tag, attributes in outline.seen if tag in ("circle", "line", "rect")]
    assert (kinds.count("dot"), kinds.count("interval"), kinds.count("margin")) == (2 * 9, 2, 2)
    one, other = [attributes["aria-label"] or "" for tag, attributes in outline.seen if tag == "svg"]
    assert one.startswith("udp-bbr relative to tcp-cubic: ")
    assert one.endswith(", ".join(map(format_ratio, row.block_ratios)))
    assert other.startswith("A/A control relative to tcp-cubic: ")
    assert len(control.block_ratios) == 9


def test_failed_transfers_have_dots_outside_the_scale() -> None:
    results = two_losses()
    failed = {"verified": False, "seconds": None, "goodput_bps": None}
    trials = [
        replace(trial, **failed) if trial.block == 0 and trial.transport == "udp-bbr" else trial  # type: ignore[arg-type]
        for trial in results.trials
    ]
    verdict = summarise(replace(results, trials=trials)).verdicts[0]
    assert verdict.rows[1].block_ratios[0] == 0
    assert 'cx="1.0%"' in forest(verdict, "tcp-cubic", 0.05)


@pytest.mark.parametrize(("low", "high"), [(0.99, 1.01), (0.9, 1.2), (0.3, 1.0), (0.05, 40.0), (1e-4, 1e4)])
def test_a_scale_has_few_round_ticks_with_1_among_them(low: float, high: float) -> None:
    scale = scale_for([low, high], 0.05)
    assert 1 in scale.ticks()
    assert 3 <= len(scale.ticks()) <= 6
    places = [scale.position(tick) for tick in scale.ticks()]
    assert places == sorted(places)
    assert min(places) >= 3
    assert max(places) <= 97
    assert scale.position(0) < 3
    assert scale.position(float("inf")) > 97


def test_the_page_has_every_verdict_table_and_picture() -> None:
    campaigns = [summarise(two_losses()), summarise(one_path())]
    text = page_of_two()
    outline = Outline(text)
    tags = [tag for tag, _ in outline.seen]
    strips = sum(len(verdict.rows) - 1 for results in campaigns for verdict in results.verdicts)
    drawn = sum(len(pictures(results)) for results in campaigns) if drawing.is_available() else 0
    assert tags.count("svg") == drawn + strips
    assert tags.count("table") == tags.count("caption") == drawn + sum(len(tables(results)) for results in campaigns)
    words = " ".join(outline.words)
    for results in campaigns:
        for verdict in results.verdicts:
            assert all(line in words for line in verdict.details)
    ids = [attributes["id"] for _, attributes in outline.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for target in [a["href"] for t, a in outline.seen if t == "a" and (a["href"] or "").startswith("#")]:
        assert target is not None
        assert target[1:] in ids


def test_a_range_breaks_only_before_its_upper_end() -> None:
    """So that the widest table fits beside its long reasons on a screen of 1,200 pixels."""
    ranges = re.findall(r'<td class="figure range"[^>]*>([^<]*)</td>', page_of_two())
    assert ranges
    assert all(" " not in part for text in ranges for part in text.split("to ", 1))


def test_the_page_requests_nothing() -> None:
    text = page_of_two()
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"'<>)]*", re.sub(r"base64,[^\"]*", "", text)))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    for tag, attributes in Outline(text).seen:
        assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"


def test_the_policy_allows_only_the_script_of_the_page() -> None:
    text = page_of_two()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = unescape(re.findall(r'content="(default-src[^"]*)"', text)[0])
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy


def test_text_from_records_is_escaped() -> None:
    text = page_of_troubled()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text
    outline = Outline(text)
    assert all(not name.startswith("on") for _, attributes in outline.seen for name in attributes)


def test_the_page_contains_the_records(tmp_path: Path) -> None:
    results = two_losses()
    text = page_of_two()
    name, packed = re.findall(r'download="([^"]+)" href="data:application/gzip;base64,([^"]+)"', text)[0]
    assert name == "link-20231114-221320.jsonl.gz"
    (tmp_path / "again.jsonl").write_bytes(gzip.decompress(base64.b64decode(packed)))
    assert read(tmp_path / "again.jsonl").trials == read(save(results, tmp_path / "saved.jsonl")).trials
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "saved.jsonl").read_bytes()


def test_the_page_shows_method_host_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "is_available", lambda: False)  # pictures take the most time, and do not matter here
    results = one_path()
    described = replace(results.campaign, method=["Blocks & more."], command=["nettool", "bench", "loopback"])
    text = page([summarise(replace(results, campaign=described))])
    assert "<li>Blocks &amp; more.</li>" in text
    assert "equivalent if it lies within 5% of 1" in text
    assert "<code>nettool bench loopback</code>" in text
    assert "<dt>cpu</dt><dd>A Processor</dd>" in text
    assert "<dt>memory</dt><dd>8 GiB</dd>" in text
    assert "tcp-cubic#2 is tcp-cubic a second time" in text


def test_a_card_says_negligible_equivalent_or_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "is_available", lambda: False)
    speeds = {("tcp-cubic", path): 9e7 for path in ("a", "b", "c")}
    factors = {"a": 0.992, "b": 1.0, "c": 1.05}
    speeds |= {("udp-bbr", path): 9e7 * factor for path, factor in factors.items()}
    text = page([summarise(make_results(Truth(speeds, repeats=9, noise=0.002), 2))])
    chips = re.findall(r'<span class="name">udp-bbr</span> <span class="chip ([a-z-]+)">(.*?)</span>', text)
    assert chips == [("slower", "▼ slower, negligible"), ("equivalent", "= equivalent"), ("faster", "▲ faster")]
    noisy = page([summarise(make_results(Truth(speeds, repeats=9, noise=0.5), 2))])
    assert '<span class="chip inconclusive">~ inconclusive</span>' in noisy


def test_without_matplotlib_the_page_says_how_to_get_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "is_available", lambda: False)
    text = page([summarise(one_path())])
    assert "<figure" not in text
    assert text.count("<svg") == 2  # the plots that decide need no matplotlib
    assert "pip install 'nettool[report]'" in text


def test_an_unwritable_page_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory; choose another file with --html"):
        write_page([], tmp_path)


def test_a_page_replaces_an_older_page_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page([], path)
    write_page([], path)
    path.write_text("<!doctype html><title>The user's own</title>")
    with pytest.raises(UsageError, match="nettool did not write it"):
        write_page([], path)
    assert "own" in path.read_text()


def test_text_is_escaped_in_elements_and_attributes() -> None:
    assert element("p", "a < b & c", title='"x"', hidden=True, lang=None) == (
        '<p title="&quot;x&quot;" hidden>a &lt; b &amp; c</p>'
    )
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert join(Html("<b>"), "<b>") == "<b>&lt;b&gt;"
    assert element("td", "1", data_v="2", class_="figure") == '<td data-v="2" class="figure">1</td>'


def test_several_runs_have_a_forest_plot_with_the_variance_between_them() -> None:
    factors = (0.8, 1.0, 1.25, 1.0)
    speeds = [{("tcp-cubic", "a"): 10e6, ("udp-bbr", "a"): 30e6 * factor} for factor in factors]
    runs = [make_results(Truth(each, repeats=9, noise=0.01), seed) for seed, each in enumerate(speeds)]
    rows = merge(runs)
    outline = Outline(page([summarise(each) for each in runs], merged=rows))
    text = " ".join(outline.words)
    assert "4 runs as one result" in text
    assert text.index("4 runs as one result") < text.index("Link 1: which transport is faster")
    (row,) = [each for each in rows if each.transport == "udp-bbr"]
    assert row.between is not None
    assert f"udp-bbr: 4 runs, which differ by about x {format_ratio(row.between)} from run to run." in text
    plots = [attributes["aria-label"] or "" for name, attributes in outline.seen if "aria-label" in attributes]
    (plot,) = [each for each in plots if "runs in order of time" in each and each.startswith("udp-bbr")]
    assert plot.endswith(f"; runs in order of time: {', '.join(format_ratio(ratio) for ratio in row.ratios)}")
    low, high = (float(end) for end in re.findall(r"run to run about ([\d.]+) to ([\d.]+)", plot)[0])
    assert low < min(row.ratios) < max(row.ratios) < high
    spreads = [attributes for _, attributes in outline.seen if attributes.get("class") == "spread"]
    assert len(spreads) == 2  # of the transport, and of the A/A control


def test_a_page_of_campaigns_that_are_not_merged_has_no_plot_of_runs() -> None:
    assert "as one result" not in page_of_two()
