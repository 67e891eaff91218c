"""Lines are printed in order, and a reader that has stopped keeps nobody from leaving."""

import threading

import pytest

from toolkit.cli.line_printer import printing_lines
from toolkit.errors import TransferError


def test_lines_are_printed_in_order_before_the_end() -> None:
    shown: list[str] = []
    with printing_lines(shown.append, lambda: False, lambda: pytest.fail("it is not stuck")) as show:
        for number in range(2000):
            show(str(number))
    assert shown == [str(number) for number in range(2000)]


@pytest.mark.parametrize("lines", [1, 2000])
def test_a_user_can_leave_though_the_reader_has_stopped(lines: int) -> None:
    is_taken, given_up = threading.Event(), threading.Event()

    def interrupted() -> None:
        left = iter(range(502))  # all for which there is room, and one
        with printing_lines(lambda _: is_taken.wait(), lambda: next(left, None) is None, given_up.set) as show:
            for _ in range(lines):
                show("line")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert given_up.is_set()
    is_taken.set()


def test_a_full_disk_is_told_at_the_end() -> None:
    def fail(_line: str) -> None:
        raise TransferError("full")

    with pytest.raises(TransferError, match="full"), printing_lines(fail, lambda: False, lambda: None) as show:
        show("line")
