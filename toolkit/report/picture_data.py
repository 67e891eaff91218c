"""What each picture shows, as rows of text: the first has the headings. The page offers them beside the picture."""

from collections.abc import Sequence

from toolkit.comparison.pairs import goodput_bps
from toolkit.comparison.records import Trial
from toolkit.comparison.rows import Row
from toolkit.comparison.stats import Estimate
from toolkit.report.labels import NOTHING, REASONS, label, path_label, rate_interval, ratio_interval, short_verdict
from toolkit.units import format_rate, format_ratio, format_seconds, format_size

Data = list[tuple[str, ...]]
_COURSE_POINTS = 8


def of_ratios(rows: Sequence[Row]) -> Data:
    """Ratios with intervals and verdicts."""
    data: Data = [("path", "size", "transport", "ratio", "95% interval", "verdict", "blocks")]
    for row in rows:
        value = format_ratio(row.ratio.value) if row.ratio is not None else NOTHING
        blocks = ", ".join(format_ratio(ratio) for ratio in row.block_ratios)
        data.append((*_key(row), value, ratio_interval(row.ratio), short_verdict(row), blocks))
    return data


def of_goodput(rows: Sequence[Row]) -> Data:
    """Goodput with intervals."""
    data: Data = [("path", "size", "transport", "goodput", "95% interval")]
    return data + [(*_key(row), *_rates(row.goodput_bps)) for row in rows]


def of_time(rows: Sequence[Row]) -> Data:
    """Seconds of each kind."""
    data: Data = [("transport", *REASONS.values())]
    for row in rows:
        kinds = row.time_split.by_kind() if row.time_split is not None else {}
        data.append((label(row.transport), *(format_seconds(kinds.get(key, 0.0)) for key in REASONS)))
    return data


def of_course(trials: Sequence[Trial]) -> Data:
    """A few points of the course of each transfer."""
    data: Data = [("transport", "time", "delivered", "congestion window", "RTT")]
    for trial in trials:
        series = trial.series
        if series is None:
            continue
        last = len(series.t_s) - 1
        for number in sorted({round(last * point / (_COURSE_POINTS - 1)) for point in range(_COURSE_POINTS)}):
            columns = (series.delivered_bytes, series.congestion_window_bytes, series.rtt_ms)
            delivered, window, rtt_ms = (column[number] if number < len(column) else None for column in columns)
            data.append(
                (
                    label(trial.transport),
                    format_seconds(series.t_s[number]),
                    format_size(round(delivered)) if delivered is not None else NOTHING,
                    format_size(round(window)) if window is not None else NOTHING,
                    format_seconds(rtt_ms / 1e3) if rtt_ms is not None else NOTHING,
                )
            )
    return data


def of_completion(trials: Sequence[Trial]) -> Data:
    """The times of each transport's transfers, in order."""
    data: Data = [("transport", "completed", "times")]
    for name in dict.fromkeys(trial.transport for trial in trials):
        own = [trial for trial in trials if trial.transport == name]
        times = sorted(trial.seconds for trial in own if trial.is_counted and trial.seconds is not None)
        data.append((label(name), f"{len(times)} of {len(own)}", ", ".join(map(format_seconds, times))))
    return data


def of_delay(rows: Sequence[Row]) -> Data:
    """Goodput and delay."""
    data: Data = [("transport", "goodput", "95% interval", "RTT, 95th percentile")]
    for row in rows:
        delay = format_seconds(row.delay_ms.p95 / 1e3) if row.delay_ms is not None else NOTHING
        data.append((label(row.transport), *_rates(row.goodput_bps), delay))
    return data


def _key(row: Row) -> tuple[str, str, str]:
    return path_label(row.path), row.content, label(row.transport)


def _rates(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "failed", NOTHING
    return format_rate(estimate.value), rate_interval(estimate.interval)


def of_order(trials: Sequence[Trial]) -> Data:
    """Goodputs in the order of the trials."""
    data: Data = [("trial", "transport", "goodput", "marks")]
    for trial in sorted(trials, key=lambda each: each.position):
        marks = ", ".join(label(mark) for mark in trial.marks) or NOTHING
        data.append((str(trial.position + 1), label(trial.transport), format_rate(goodput_bps(trial)), marks))
    return data
