"""How an examination is shown."""

from toolkit.cli.doctor import capability_lines, closing_lines
from toolkit.doctor.capability import Capability

SMALL = Capability("UDP receive buffer", "416 KiB of 32 MiB", False, "much " * 40, "sudo sysctl -w a=" + "1" * 90)


def test_lines_fit_and_a_command_stays_whole() -> None:
    lines = list(capability_lines(SMALL, 80))
    assert lines[0] == "-- UDP receive buffer 416 KiB of 32 MiB"
    assert f"     fix:  {SMALL.command}" in lines
    assert all(len(line) <= 80 for line in lines if "fix:" not in line)


def test_what_is_there_takes_one_line() -> None:
    assert list(capability_lines(Capability("netem", "yes"), 80)) == ["ok netem              yes"]


def test_the_end_counts_what_is_missing() -> None:
    assert list(closing_lines([Capability("netem", "yes")])) == ["Nothing is missing."]
    lines = list(closing_lines([Capability("netem", "yes"), SMALL]))
    assert lines[0] == "1 of 2 could be better. Transfers work nevertheless."
    assert "/etc/sysctl.d" in lines[1]
