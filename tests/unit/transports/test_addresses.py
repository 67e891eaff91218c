"""Name resolution: the order of the addresses (RFC 8305), and names that do not resolve."""

import errno
import re
import socket
import threading

import pytest

from toolkit.channel import Address, PeerProgram
from toolkit.errors import UnreachableError, UsageError
from toolkit.transports.addresses import SocketAddress, bind_first, connect_error, interleave, resolve

LOOPBACK = socket.if_nametoindex("lo")


def v4(number: int) -> SocketAddress:
    return socket.AF_INET, (f"192.0.2.{number}", 9)


def v6(number: int) -> SocketAddress:
    return socket.AF_INET6, (f"2001:db8::{number}", 9)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        ([v4(1)], [v4(1)]),
        ([v4(1), v4(2), v6(1)], [v6(1), v4(1), v4(2)]),
        ([v6(2), v6(1), v6(3), v4(1)], [v6(2), v4(1), v6(1), v6(3)]),
        ([v4(1), v4(1), v6(1), v6(1)], [v6(1), v4(1)]),
    ],
)
def test_families_alternate_and_ipv6_comes_first(found: list[SocketAddress], order: list[SocketAddress]) -> None:
    assert interleave(found) == order


@pytest.mark.parametrize(
    ("host", "family", "name"),
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 9000)),
        ("::1", socket.AF_INET6, ("::1", 9000, 0, 0)),
        (f"fe80::1%{LOOPBACK}", socket.AF_INET6, ("fe80::1", 9000, 0, LOOPBACK)),
    ],
)
def test_a_literal_address_resolves_to_itself(host: str, family: int, name: tuple[object, ...]) -> None:
    assert resolve(Address(host, 9000), socket.SOCK_STREAM) == [(family, name)]


def test_a_literal_address_needs_no_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def only_numeric(*args: object, **kwargs: object) -> object:
        assert kwargs["flags"] == socket.AI_NUMERICHOST
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", only_numeric)
    assert resolve(Address("127.0.0.1", 1), socket.SOCK_DGRAM)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "exa mple", "a" * 300, "\x1b[31m", "\udcff", "x..y"])
def test_an_unknown_name_is_one_line_that_says_what_to_do(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match=r"^no host is known by the name .*; check the spelling") as caught:
        resolve(Address(host, 9000), socket.SOCK_STREAM)
    assert str(caught.value).isprintable()


def test_a_link_local_address_needs_an_interface() -> None:
    address = Address("fe80::1", 9000)
    invalid = OSError(errno.EINVAL, "Invalid argument")
    assert re.match(
        r"^fe80::1 is a link-local .* as in fe80::1%eth0$", str(connect_error(address, socket.SOCK_DGRAM, invalid))
    )
    with pytest.raises(UnreachableError, match=r"^fe80::1 is a link-local address"):
        bind_first(address, socket.SOCK_DGRAM)
    with pytest.raises(UnreachableError, match=r"^this machine has no interface nosuch; `ip link` lists them$"):
        resolve(Address("fe80::1%nosuch", 9000), socket.SOCK_DGRAM)


def test_an_absent_name_service_has_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, flags: int = 0, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME if flags else socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", down)
    with pytest.raises(UnreachableError, match="the name service does not answer"):
        resolve(Address("example", 9000), socket.SOCK_STREAM)


def test_a_name_service_that_hangs_is_given_up_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: object, flags: int = 0, **__: object) -> object:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "no literal")
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(UnreachableError, match=r"not resolved within 0\.1 s"):
        resolve(Address("example", 9000), socket.SOCK_STREAM, timeout_s=0.1)
    answered.set()


@pytest.mark.parametrize(("bind", "is_dual"), [("::", True), ("", True), ("::1", False)])
def test_every_address_means_both_families(bind: str, is_dual: bool) -> None:
    with bind_first(Address(bind, 0), socket.SOCK_STREAM) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == (not is_dual)


def test_a_refusal_by_another_machine_names_both_reasons() -> None:
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    text = str(connect_error(Address("192.0.2.7", 9000), socket.SOCK_DGRAM, refused))
    assert "`nettool recv` does not run there, has another port, or listens for that machine only" in text
    assert "--bind 0.0.0.0 --dir DIR" in text
    text = str(connect_error(Address("127.0.0.1", 9000), socket.SOCK_DGRAM, refused))
    assert text == "nothing listens at 127.0.0.1:9000 for UDP; start `nettool recv` on this machine"


def test_the_advice_names_the_program_that_should_listen_there() -> None:
    talk = PeerProgram("nettool talk --listen", "--bind 0.0.0.0")
    for error in (OSError(errno.ECONNREFUSED, "refused"), TimeoutError()):
        text = str(connect_error(Address("192.0.2.7", 9000), socket.SOCK_STREAM, error, talk))
        assert "`nettool talk --listen`" in text
        assert "recv" not in text
        assert "--dir" not in text


def test_too_many_open_files_are_not_the_addresss_fault() -> None:
    full = OSError(errno.EMFILE, "Too many open files")
    text = str(connect_error(Address("192.0.2.7", 9000), socket.SOCK_STREAM, full))
    assert "ulimit -n" in text
    assert "address" not in text


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_a_usage_error(port: int) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        resolve(Address("127.0.0.1", port), socket.SOCK_STREAM)
