"""How calls become lines: in full, with their meaning once, and counted when they repeat."""

from toolkit.tracing.call import Call
from toolkit.tracing.listing import Condenser, lines_of, summary


def datagram(size_bytes: int, kind: str = "DATA", fd: int = 3) -> Call:
    return Call(1.0, "sendto", fd, f"{fd}, {size_bytes} bytes", str(size_bytes), "what it means", size_bytes, kind)


def condensed(calls: list[Call], shown_each: int = 2) -> list[Call]:
    shown: list[Call] = []
    condenser = Condenser(shown.append, shown_each)
    for call in calls:
        condenser.add(call)
    condenser.end(2.0)
    return shown


def test_repeated_calls_are_counted_and_explained_once() -> None:
    shown = condensed([datagram(1228) for _ in range(1023)])
    assert [call.meaning for call in shown] == [
        "what it means", "", "... 1,021 more DATA sendto(3) of 1,228 bytes, 1.196 MiB"
    ]  # fmt: skip


def test_calls_of_another_kind_or_descriptor_are_counted_apart() -> None:
    calls = [datagram(10), datagram(10), datagram(10, "ACK"), datagram(10, fd=4), datagram(10), datagram(20)]
    shown = condensed(calls)
    assert [call.fd for call in shown if call.name] == [3, 3, 3, 4]
    assert shown[-1].meaning == "... 2 more DATA sendto(3) of 10 to 20 bytes, 30 B"


def test_the_count_comes_before_the_close_of_its_descriptor() -> None:
    close = Call(1.5, "close", 3, "3", "0", "of the socket")
    shown = condensed([*[datagram(10, fd=4) for _ in range(3)], *[datagram(10) for _ in range(3)], close])
    assert [call.name or call.fd for call in shown[4:]] == [3, "close", 4]


def test_a_remark_begins_the_count_anew() -> None:
    shown = condensed([*[datagram(10) for _ in range(3)], Call(1.2, "", meaning="next"), datagram(10)])
    assert [call.name or call.meaning[:3] for call in shown] == ["sendto", "sendto", "...", "nex", "sendto"]


def test_lines_fit_and_the_meaning_follows_the_call() -> None:
    call = Call(1.25, "bind", 3, "3, 127.0.0.1:9000", "0", "127.0.0.1:9000 is ours: what is sent there comes here")
    assert list(lines_of(call, 1.0, 120)) == [
        "  250.00  bind(3, 127.0.0.1:9000) = 0  127.0.0.1:9000 is ours: what is sent there comes here"
    ]
    first, *others = lines_of(call, 1.0, 50)
    assert first == "  250.00  bind(3, 127.0.0.1:9000) = 0"
    assert all(len(line) <= 50 for line in others)


def test_what_is_not_shown_is_summed_up() -> None:
    assert summary({"setsockopt()": 1200, "accept()": 1}) == "1 accept(), 1,200 setsockopt()"
    assert summary({}) == ""
