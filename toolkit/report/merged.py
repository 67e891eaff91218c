"""What `nettool report --merge` shows: a row for each transport over all campaigns, and what the figures guarantee."""

from collections.abc import Mapping, Sequence

from toolkit.comparison.merge import MergedRow
from toolkit.comparison.summary import Summary, plain
from toolkit.comparison.verdict import INCONCLUSIVE, NO_CLAIM
from toolkit.errors import printable
from toolkit.report.cells import Cell, Column, Table
from toolkit.report.labels import MAX_COLUMNS, NOTHING, content_words, judged, label, path_label, ratio_with_interval
from toolkit.report.terminal import fitted, wrapped
from toolkit.report.text import names, started_text
from toolkit.units import format_ratio, format_seconds

GUARANTEE = (
    "Each campaign counts once, by its median ratio. The interval is Student's, for the geometric mean of the "
    "campaigns: it contains what differs from run to run, and holds in 95% of cases if the campaigns are a random "
    "sample of the runs, seeds and hosts that the result is meant for, and their logarithms are about normal. Run to "
    "run: about the standard deviation of the true ratios as a factor, beyond the noise within each campaign. At 1, "
    "these runs show none, which does not say that there is none."
)
_COLUMNS = (
    Column("path"),
    Column("size"),
    Column("transport"),
    Column("runs", is_figure=True),
    Column("ratio [95% interval]", is_figure=True),
    Column("run to run", is_figure=True),
    Column("verdict"),
)


def merged_text(rows: Sequence[MergedRow], summaries: Sequence[Summary], width: int = MAX_COLUMNS) -> str:
    """A table of at most `width` columns, then sentences."""
    cells = [[Cell(text, text) for text in _row(row)] for row in rows]
    table = fitted(Table("merged", "", "", _COLUMNS, cells), "simple", width) if rows else "Nothing to compare."
    lines = dict.fromkeys((*merged_remarks(rows), *_campaigns(summaries), GUARANTEE))
    return "\n".join([table, "", *(wrapped(printable(line, 1000), width) for line in lines)])


def flat_merged(row: MergedRow) -> Mapping[str, object]:
    """A row as plain values: the ratio becomes `ratio`, `ratio_low` and `ratio_high`; lists become words."""
    fields = plain(row)
    estimate = fields.pop("ratio")
    value, interval = estimate if isinstance(estimate, tuple) else (None, None)
    low, high = interval or (None, None)
    ratios = " ".join(str(ratio) for ratio in row.ratios)
    return {
        **fields,
        "ratios": ratios,
        "left_out": "; ".join(row.left_out),
        "ratio": value,
        "ratio_low": low,
        "ratio_high": high,
    }


def _row(row: MergedRow) -> list[str]:
    word = judged(row.verdict, row.is_negligible)
    return [
        path_label(row.path),
        content_words(row.payload_bytes),
        label(row.transport),
        str(row.runs),
        ratio_with_interval(row.ratio),
        f"x {format_ratio(row.between)}" if row.between is not None else NOTHING,
        f"A/A control: {word}" if row.is_control else word,
    ]


def between_runs(rows: Sequence[MergedRow]) -> list[str]:
    """How much each transport differs from run to run, as sentences."""
    return [
        f"{label(row.transport)}: {row.runs} runs, which differ by about x {format_ratio(row.between)} from run to run."
        for row in rows
        if row.between is not None and not row.is_control
    ]


def merged_remarks(rows: Sequence[MergedRow]) -> list[str]:
    """What the table does not say: what was left out, why there is no claim, and what would settle it."""
    lines = []
    for row in rows:
        where = f"{path_label(row.path)}, {content_words(row.payload_bytes)}, {label(row.transport)}"
        lines += [f"{where}: left out {reason}." for reason in row.left_out]
        if row.is_control:
            continue
        if row.verdict == NO_CLAIM:
            lines.append(f"{where}: {row.because}.")
        elif row.verdict == INCONCLUSIVE:
            more = f"about {row.more_runs} more runs would settle it" if row.more_runs else "more may not settle it"
            lines.append(f"{where}: {row.because or 'the interval is too wide'}; {more}.")
    return lines


def _campaigns(summaries: Sequence[Summary]) -> list[str]:
    """Which campaigns these are: when, with which seed and patience, and on which host."""
    lines = []
    for name, summary in zip(names(summaries), summaries, strict=True):
        campaign = summary.results.campaign
        host = ", ".join(
            label(value) for value in (campaign.host.cpu, campaign.host.kernel, campaign.host.nettool) if value
        )
        patience = f", patience {format_seconds(campaign.patience_s)}" if campaign.patience_s else ""
        lines.append(f"{name}: {started_text(campaign)}, seed {campaign.seed}{patience}, {host}.")
    return lines
