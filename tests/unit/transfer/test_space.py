"""Free space that is promised to one file only, whoever offers it."""

from tests.support.sessions import XXH3, file_entry
from toolkit.transfer.incoming_file import UNASKED_BYTES, IncomingFile, SessionBudget
from toolkit.transfer.space import GRANT_BYTES, RECOUNT_S, PromisedSpace


def incoming(size_bytes: int) -> IncomingFile:
    """A file of which nothing has arrived."""
    return IncomingFile(file_entry(b"a", size_bytes), XXH3, SessionBudget(), lambda: None)


def test_what_has_arrived_is_counted_before_an_offer_is_refused_but_not_for_each_offer() -> None:
    now_s = 100.0
    space = PromisedSpace(lambda: now_s)
    file = incoming(60)
    assert space.promise([60], lambda: 100) == [True]
    space.add(file, 60)
    assert space.promise([41, 40], lambda: 100) == [False, True]
    space.give_back(40)
    file.received_bytes = 50
    assert space.promise([45], lambda: 50) == [False]
    now_s += RECOUNT_S
    assert space.promise([41, 40], lambda: 50) == [False, True]
    space.give_back(40)
    space.remove(file)
    assert space.promise([51, 50], lambda: 50) == [False, True]


def test_a_file_that_needs_more_gets_a_step_if_there_is_room() -> None:
    space = PromisedSpace()
    file = incoming(10)
    space.add(file, 0)
    assert space.extend(file, 20, lambda: 1 << 40)
    assert file.granted_bytes == 20 + GRANT_BYTES
    assert space.extend(file, 30, lambda: 30 + UNASKED_BYTES)
    assert file.granted_bytes == 30 + UNASKED_BYTES
    assert not space.extend(file, 40, lambda: 39 + UNASKED_BYTES)


def test_everything_fits_where_the_file_system_does_not_tell() -> None:
    assert PromisedSpace().promise([1 << 60, 1 << 60], lambda: None) == [True, True]
