"""echod.client.text."""

import socket
from pathlib import Path

import pytest

from echod.client.text import counted, described, endpoint, quoted
from tests.unit.client.peers import already_reset, faithful, serving, serving_unix


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"This is the mess", '"This is the mess"'),
        (b"", '""'),
        (b'say "no"\\', '"say \\"no\\"\\\\"'),
        (b"\x00\n\x1b[2J\x7f\xff", '"\\x00\\n\\x1b[2J\\x7f\\xff"'),
        (b"x" * 64, '"' + "x" * 64 + '"'),
        (b"x" * 65, '"' + "x" * 64 + '"... (65 bytes)'),
    ],
)
def test_quoted(data: bytes, shown: str) -> None:
    """The result is printable ASCII, quotes in the data are escaped, and long data is cut."""
    assert quoted(data) == shown


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (1, "1 byte"), (2, "2 bytes")])
def test_counted(count: int, text: str) -> None:
    """A count of one is singular."""
    assert counted(count, "byte") == text


def test_described_tcp() -> None:
    """A TCP connection is described as in the tutorial, with both ends."""
    with serving(faithful()) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        assert described(connection) == {
            "family": "AF_INET",
            "type": "SOCK_STREAM",
            "protocol": "IPPROTO_TCP",
            "local": f"127.0.0.1:{connection.getsockname()[1]}",
            "remote": f"127.0.0.1:{port}",
        }


@pytest.mark.usefixtures("ipv6")
def test_described_tcp6() -> None:
    """An IPv6 address is in brackets, which separate it from the port."""
    with (
        serving(faithful(), socket.AF_INET6) as port,
        socket.create_connection(("::1", port)) as connection,
    ):
        fields = described(connection)
        assert fields["family"] == "AF_INET6"
        assert fields["remote"] == f"[::1]:{port}"


@pytest.mark.parametrize("address", ["/a\udcff\x1b\u00e9", b"/a\xff\x1b\xc3\xa9"])
def test_endpoint_with_odd_bytes(address: str | bytes) -> None:
    """A path of either type becomes text that is safe for terminals and for JSON."""
    assert endpoint(address) == "unix:/a\\xff\\x1b\u00e9"


@pytest.mark.parametrize("first", ["", "\0"], ids=["path", "abstract"])
def test_described_unix(first: str, tmp_path: Path) -> None:
    """The ends of a unix connection are written in the form of HOST."""
    name = f"{first}{tmp_path}/echo"
    with serving_unix(faithful(), name), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(name)
        assert described(connection) == {
            "family": "AF_UNIX",
            "type": "SOCK_STREAM",
            "protocol": "0 (the family's own)",
            "local": "unix: (unnamed)",
            "remote": f"unix:{name}".replace("\0", "@"),
        }


def test_described_when_reset() -> None:
    """The description of a connection that is already reset says so."""
    with already_reset() as connection:
        assert described(connection)["remote"] == "already disconnected"
