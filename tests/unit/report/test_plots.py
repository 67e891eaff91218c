"""Which pictures a campaign has; that they are reproducible and readable without colour."""

import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.report_samples import HOSTILE, grid, lossy, one_path, save, troubled
from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.record_file import read
from toolkit.comparison.records import Results, Setting
from toolkit.comparison.summary import summarise
from toolkit.errors import TransferError, UsageError
from toolkit.report import drawing
from toolkit.report.drawing import STYLES, Picture, inline, legend_columns, render, spread, styles
from toolkit.report.plots import pictures, write_pictures

matplotlib = pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'nettool[report]'")
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def names(results: Results) -> list[str]:
    return [picture.name for picture in pictures(summarise(results))]


def test_paths_that_differ_in_loss_share_a_picture_and_have_their_own() -> None:
    made = names(lossy())
    assert made[:2] == ["link-ratios", "link-goodput-against-loss"]
    for kind in ("time", "course", "completion", "order"):
        assert f"link-loss-5-19.07-mib-{kind}" in made
    assert len(made) == len(set(made)) == 2 + 4 * 4


def three_transports() -> Results:
    speeds = {("tcp-cubic", "loopback"): 9e9, ("udp-bbr", "loopback"): 4e9, ("quic", "loopback"): 1e8}
    return make_results(Truth(speeds), 3)


def test_a_single_path_has_pictures_of_goodput_only_for_three_transports() -> None:
    made = names(three_transports())
    assert {"link-loopback-95.37-mib-goodput", "link-loopback-95.37-mib-delay"} < set(made)
    assert not any("against-loss" in name or "ratio" in name for name in made)
    assert not any("goodput" in name or "delay" in name for name in names(one_path()))  # two dots


def test_a_short_transfer_and_few_trials_have_no_picture() -> None:
    results = one_path(repeats=5)
    short = [replace(t, series=replace(t.series, t_s=t.series.t_s[:19])) if t.series else t for t in results.trials]
    made = names(replace(results, trials=short))
    assert not any("course" in name or "completion" in name for name in made)


def test_a_transfer_that_failed_never_completes() -> None:
    results = one_path()
    failed = {"verified": False, "seconds": None, "goodput_bps": None}
    trials = [replace(t, **failed) if t.block < 3 and t.transport == "udp-bbr" else t for t in results.trials]  # type: ignore[arg-type]
    picture = next(p for p in pictures(summarise(replace(results, trials=trials))) if "completion" in p.name)
    assert ("udp-bbr", "6 of 9") in [row[:2] for row in picture.data]
    assert b"udp-bbr" in render(picture, "svg")


def test_a_transport_has_the_same_style_in_every_campaign() -> None:
    first, second = styles(["udp-bbr", "mine", "tcp-cubic"]), styles(["tcp-cubic", "quic", "udp-bbr"])
    assert first["udp-bbr"] == second["udp-bbr"]
    assert first["tcp-cubic"] == second["tcp-cubic"]
    assert len({look.color for look in (*first.values(), *second.values())}) == 4


def test_a_transport_looks_the_same_whatever_it_is_compared_with() -> None:
    names = ["tcp-cubic", "tcp-cubic+plaintext", "udp-bbr", "udp-bbr+plaintext", "cp"]
    together = styles(names)
    assert all(styles([name, "quic", "tcp-reno"])[name] == together[name] for name in names)
    assert len(set(together.values())) == len(names)


def test_every_picture_has_its_data_as_text() -> None:
    for results in (lossy(), three_transports(), grid(), troubled()):
        for picture in pictures(summarise(results)):
            heading, *rows = picture.data
            assert rows, picture.name
            assert {len(row) for row in rows} == {len(heading)}


def test_a_grid_of_rtt_and_loss_has_a_heat_map_with_ratios_and_crossover() -> None:
    picture = next(p for p in pictures(summarise(grid())) if "ratio-" in p.name)
    svg = render(picture, "svg")
    shown = texts(svg)
    assert sum(text.replace(".", "").isdigit() for text in shown) == 9
    assert {"10 ms", "40 ms", "160 ms", "0.1%"} <= set(shown)
    assert b"hatch" in svg or b"<pattern" in svg
    assert b"QuadContourSet" in svg


def test_paths_with_another_option_of_the_link_have_no_place_between_those_that_differ_in_loss() -> None:
    results = lossy()
    last = list(results.campaign.paths)[-1]
    changed = replace(results.campaign.paths[last], link={"loss": "5%", "both_ways": True})
    paths = {**results.campaign.paths, last: changed}
    summary = summarise(replace(results, campaign=replace(results.campaign, paths=paths)))
    picture = next(picture for picture in pictures(summary) if "against-loss" in picture.name)
    assert last not in {row[0] for row in picture.data}
    assert len({row[0] for row in picture.data[1:]}) == 3


def one_of_each_kind(*campaigns: Results) -> list[Picture]:
    """The first picture of each kind, whatever its path and size."""
    made = [picture for results in campaigns for picture in pictures(summarise(results))]
    return list({picture.draw.func: picture for picture in reversed(made)}.values())  # type: ignore[attr-defined]


def test_the_same_records_give_the_same_pictures(tmp_path: Path) -> None:
    campaigns = [troubled(), three_transports(), grid(rtts_ms=(10, 160), losses=(0.0, 0.01))]
    kinds = one_of_each_kind(*campaigns)
    assert len(kinds) == 9
    first = [render(picture, "svg") for picture in kinds] + [render(kinds[0], "png")]
    again = one_of_each_kind(
        *(read(save(results, tmp_path / f"{number}.jsonl")) for number, results in enumerate(campaigns))
    )
    matplotlib.rcParams.update({"font.size": 20, "svg.hashsalt": None, "lines.linewidth": 7})
    try:
        assert [render(picture, "svg") for picture in again] + [render(again[0], "png")] == first
        assert matplotlib.rcParams["font.size"] == 20  # drawing does not change the user's settings
    finally:
        matplotlib.rcdefaults()


def test_transports_are_named_and_differ_in_marker_and_dash() -> None:
    assert len({look.marker for look in STYLES}) == len({str(look.dash) for look in STYLES}) == len(STYLES)
    assert len(styles([str(number) for number in range(2 * len(STYLES))])) == 2 * len(STYLES)
    for picture in one_of_each_kind(lossy(), one_path()):
        shown = texts(render(picture, "svg"))
        expected = {"udp-bbr", "A/A control"} if "ratios" in picture.name else {"tcp-cubic", "udp-bbr"}
        assert expected <= set(shown), picture.name
        assert "tcp-cubic#2" not in shown


def contrast(one: str, other: str) -> float:
    """Contrast ratio by relative luminance, WCAG 2.2."""
    lights = []
    for color in (one, other):
        parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#181c23"])
def test_lines_contrast_with_light_and_dark_backgrounds(background: str) -> None:
    assert all(contrast(look.color, background) >= 3 for look in STYLES)


def test_hostile_labels_are_drawn_as_text_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in pictures(summarise(troubled())):
            svg = inline(picture, "p-")
            assert "<script" not in svg
            assert "\x1b" not in svg
            ET.fromstring(svg)


def test_inline_pictures_have_distinct_ids_and_the_theme_of_the_page() -> None:
    picture = pictures(summarise(lossy()))[1]
    one, other = inline(picture, "a-"), inline(picture, "b-")
    assert one.replace("a-", "b-") == other.replace("a-", "b-")
    ids = [node.get("id") for node in ET.fromstring(one).iter() if node.get("id")]
    assert ids
    assert all(identity and identity.startswith("a-") for identity in ids)
    assert len(ids) == len(set(ids))
    assert "var(--ink)" in one
    assert drawing.INK not in one
    assert "<style" not in one


def test_each_picture_is_written_once_in_each_format(tmp_path: Path) -> None:
    results = one_path()
    written = write_pictures([summarise(results)], tmp_path / "new" / "pictures")
    assert len(written) == len(set(written)) == 2 * len(pictures(summarise(results)))
    assert all(path.stat().st_size > 1000 for path in written)
    assert {path.suffix for path in written} == {".png", ".svg"}


def test_pictures_of_several_campaigns_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {(name, path): 5e7 for name in ("tcp-cubic", "udp-bbr") for path in ("loss 1%", "loss 5%")}
    results = make_results(Truth(speeds, sizes=(1_000_000, 9_000_000), repeats=2), 1)
    assert {"link-goodput-against-loss", "link-goodput-against-loss-2"} <= set(names(results))
    monkeypatch.setattr("toolkit.report.plots.render", lambda picture, _format: picture.title.encode())
    written = write_pictures([summarise(results)] * 2, tmp_path)
    expected = 2 * 2 * len(pictures(summarise(results)))
    assert len(written) == len(set(written)) == len(list(tmp_path.iterdir())) == expected


def test_a_picture_replaces_an_older_picture_and_nothing_else(tmp_path: Path) -> None:
    summary = [summarise(one_path())]
    (first, *_) = write_pictures(summary, tmp_path)
    assert write_pictures(summary, tmp_path)[0] == first
    first.write_bytes(b"\x89PNG of the user")
    with pytest.raises(UsageError, match="nettool did not write it"):
        write_pictures(summary, tmp_path)
    assert first.read_bytes() == b"\x89PNG of the user"


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="choose another folder"):
        write_pictures([summarise(one_path())], tmp_path / "file" / "pictures")


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'nettool\[report\]'"):
        write_pictures([summarise(one_path())], tmp_path)


def test_matplotlib_is_imported_only_for_drawing() -> None:
    check = "import sys, toolkit.report.page, toolkit.report.text; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_file_names_are_ascii_for_any_label() -> None:
    assert HOSTILE not in "".join(names(troubled()))
    assert all(name.replace("-", "").replace(".", "").isalnum() and name.isascii() for name in names(troubled()))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), max_size=30).map(sorted), st.floats(0.01, 0.2))
def test_spread_keeps_order_gaps_and_limits(places: list[float], gap: float) -> None:
    moved = spread(places, gap)
    least = min(gap, 1 / len(places)) if places else gap
    assert len(moved) == len(places)
    assert all(b - a >= least - 1e-9 for a, b in pairwise(moved))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


def test_a_legend_has_as_many_columns_as_fit() -> None:
    assert legend_columns(["tcp"] * 3) == 3
    assert legend_columns(["a-very-long-transport"] * 8) == 2
    assert legend_columns(["x" * 60]) == 1


def test_paths_that_differ_only_at_their_end_have_groups_of_their_own() -> None:
    where = [f"1.25 Gbit/s, 160 ms, 12.5% loss, both ways, queue {queue} ms" for queue in (5, 250)]
    results = make_results(Truth({(name, path): 5e7 for name in ("tcp-cubic", "udp-bbr") for path in where}), 1)
    groups = {picture.group for picture in pictures(summarise(results)) if picture.group}
    assert len(groups) == 2


def test_every_transport_has_a_heat_map_and_timed_trials_no_completion_times() -> None:
    results = grid()
    tcp = [replace(trial, transport="tcp-bbr") for trial in results.trials if trial.transport == "udp-bbr"]
    transports = {**results.campaign.transports, "tcp-bbr": Setting("tcp-bbr", "tcp", "bbr")}
    both = replace(results, trials=[*results.trials, *tcp], campaign=replace(results.campaign, transports=transports))
    names = [picture.name for picture in pictures(summarise(both))]
    assert [name for name in names if "ratio-" in name] == ["link-ratio-udp-bbr", "link-ratio-tcp-bbr"]
    assert any("completion" in name for name in names)
    trials = [replace(trial, payload_bytes=0) for trial in results.trials]
    timed = replace(results, trials=trials, campaign=replace(results.campaign, sizes=[0], time_s=1.0))
    assert not any("completion" in picture.name for picture in pictures(summarise(timed)))
