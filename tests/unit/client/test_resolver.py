"""echod.client.resolver."""

import signal
import socket
import threading
import time

import pytest

from echod.client.faults import ConnectError
from echod.client.resolver import resolve
from echod.client.target import Target
from echod.client.words import endpoint
from tests.unit.client.peers import stuck_resolver


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        (socket.AF_UNSPEC, ["127.0.0.1:7", "[::1]:7"]),
        (socket.AF_INET, ["127.0.0.1:7"]),
        (socket.AF_INET6, ["[::1]:7"]),
    ],
)
def test_family(family: socket.AddressFamily, addresses: list[str]) -> None:
    """Only addresses of the family that is asked for are tried."""
    assert [endpoint(address) for address in resolve(Target("localhost", 7, family))] == addresses


def test_address_of_another_family() -> None:
    """An address that can't be of that family is told."""
    with pytest.raises(ConnectError, match=r"^cannot connect to 127.0.0.1:7: .*[Aa]ddress family"):
        resolve(Target("127.0.0.1", 7, socket.AF_INET6))


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("fe80::1%nosuch0", "Name or service not known"),
        ("a..b", "that is not a valid host name"),
        ("a" * 64, "that is not a valid host name"),
        ("\udcff", "that is not a valid host name"),
    ],
)
def test_name_that_can_not_be_resolved(host: str, why: str) -> None:
    """What is not a host is told with the reason; these names are refused without asking any server."""
    with pytest.raises(ConnectError, match=rf"^cannot connect to .*:7: {why}$"):
        resolve(Target(host, 7))


def test_resolver_that_does_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline holds for resolving too, which nothing can interrupt."""
    with (
        stuck_resolver(monkeypatch),
        pytest.raises(ConnectError, match=r"^cannot connect to echo.example:7: its name was not resolved in time$"),
    ):
        resolve(Target("echo.example", 7), time.monotonic() + 0.01)


def test_resolver_that_does_not_answer_and_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the resolver can be interrupted."""
    with stuck_resolver(monkeypatch) as asked:

        def interrupt() -> None:
            asked.wait()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            resolve(Target("echo.example", 7))
        thread.join()


def test_address_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is an address already needs no resolver, and no thread."""
    monkeypatch.setattr("_thread.start_new_thread", lambda *arguments: pytest.fail("a thread was started"))
    for host in ("127.0.0.1", "::1", "fe80::1%1", "localhost", "unix:/run/echod"):
        assert resolve(Target(host, 7))
