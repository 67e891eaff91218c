"""The figures of a fleet in the text format of Prometheus, for the textfile collector of node_exporter.

Only imported where prometheus-client is installed. The file is replaced as a whole, so a scrape never sees half of it.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from toolkit.comparison.summary import Summary
from toolkit.errors import TransferError, printable_path
from toolkit.report.matrix import pair_figures

_PAIR = ("sender", "receiver", "content")
_LABELS = ("sender", "receiver", "transport", "content")


def write_prometheus(summary: Summary, path: Path) -> None:
    """Write one gauge for each figure of each pair. Raises UsageError without a fleet, TransferError."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = _LABELS) -> Gauge:
        return Gauge(f"nettool_{name}", text, labels, registry=registry)

    goodput = gauge("goodput_bits_per_second", "Median goodput of verified payload")
    ratio = gauge("goodput_ratio", "Goodput relative to the baseline, the median over blocks")
    verdict = gauge("verdict", "1 for the verdict of the comparison with the baseline", (*_LABELS, "verdict"))
    resent = gauge("resent_ratio", "Share of packets that were sent again")
    trials = gauge("trials", "Number of trials", (*_LABELS, "result"))
    rtt = gauge("rtt_seconds", "Smallest round trip of a transfer, the median over trials", _PAIR)
    missing = gauge("pair_missing", "1 if the pair was given up", _PAIR)
    started = gauge("run_started_timestamp_seconds", "When the run began", ())
    started.set(summary.results.campaign.started_unix_s)
    for pair in pair_figures(summary):
        where = (pair.sender, pair.receiver)
        missing.labels(*where, pair.content).set(int(pair.outage is not None))
        if pair.rtt_ms is not None:
            rtt.labels(*where, pair.content).set(pair.rtt_ms / 1e3)
        for name, row in pair.rows.items():
            labels = (*where, name, pair.content)
            trials.labels(*labels, "verified").set(row.verified)
            trials.labels(*labels, "failed").set(row.trials - row.verified)
            if row.goodput_bps is not None:
                goodput.labels(*labels).set(row.goodput_bps.value)
            if row.ratio is not None:
                ratio.labels(*labels).set(row.ratio.value)
            if row in pair.rivals:
                verdict.labels(*labels, row.verdict).set(1)
            if name in pair.resent:
                resent.labels(*labels).set(pair.resent[name])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise TransferError(f"cannot write {printable_path(path)}: {error.strerror}; choose another file") from None
