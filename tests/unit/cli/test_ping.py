"""What `nettool ping` prints in the end."""

from toolkit.channel import Address
from toolkit.cli.ping import summary
from toolkit.conversation.round_trips import EchoRoundTrips


def test_the_summary_of_a_slow_path_to_a_long_address_fits_80_columns() -> None:
    trips = EchoRoundTrips()
    for number in range(20):
        trips.on_sent(number, 0)
        trips.on_reply(number, 12_345_678_901 + number)
    lines = summary("reliable UDP", Address("2001:db8:1111:2222:3333:4444:5555:6666", 9000), trips)
    assert max(map(len, lines)) <= 80
    assert "max 12345.68" in " ".join(lines)
