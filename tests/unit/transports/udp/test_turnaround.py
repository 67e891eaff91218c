"""Whether an application is expected back before the peer misses an acknowledgement."""

from toolkit.transports.udp.turnaround import Turnaround

ACK_DELAY_NS = 1_000_000


def after(*times_away_ns: int) -> Turnaround:
    """The turnaround of an application that was away for so long after each message."""
    turnaround = Turnaround()
    for time_ns in times_away_ns:
        turnaround.on_message(0)
        turnaround.on_call(time_ns, ACK_DELAY_NS)
    return turnaround


def test_an_application_is_prompt_after_it_has_been_three_times_in_a_row() -> None:
    assert not after(0, 0).is_prompt
    assert after(0, ACK_DELAY_NS, 0).is_prompt
    assert not after(0, 0, ACK_DELAY_NS + 1).is_prompt


def test_one_that_was_late_when_it_was_expected_has_to_be_prompt_for_twice_as_long() -> None:
    late = ACK_DELAY_NS + 1
    assert not after(0, 0, 0, late, 0, 0, 0, 0, 0).is_prompt
    assert after(0, 0, 0, late, 0, 0, 0, 0, 0, 0).is_prompt
    assert not after(0, 0, 0, late, *[0] * 6, late, *[0] * 11).is_prompt
    assert after(0, 0, late, late, 0, 0, 0).is_prompt, "nobody expected it"


def test_calls_that_follow_no_message_say_nothing() -> None:
    turnaround = after(0, 0, 0)
    turnaround.on_call(100 * ACK_DELAY_NS, ACK_DELAY_NS)
    assert turnaround.is_prompt
