"""`echoc ping --sweep` in this process: the largest message that passes."""

import re
import socket
import threading

import pytest

from echod.client.cli import main
from tests.unit.client.peers import (
    Behaviour,
    answering,
    faithful,
    mute,
    serving,
    serving_all,
    serving_in_turn,
)
from tests.unit.client.schema import validated

Capture = pytest.CaptureFixture[bytes]


def sweep(port: int, sizes: str, *words: str) -> int:
    """Run `echoc ping --sweep`."""
    return main(["ping", "127.0.0.1", str(port), "--sweep", sizes, "-W", "0.1", *words])


def up_to(most: int) -> Behaviour:
    """Return the messages of at most that many bytes, and nothing of a longer one."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        # The messages are so short that each arrives as a whole.
        while 0 < len(data := connection.recv(65536)) <= most:
            connection.sendall(data)
        mute(connection, over)

    return behave


@pytest.mark.parametrize("most", [100, 101, 437, 998])
def test_limit(most: int, capfdbinary: Capture) -> None:
    """Two sizes that differ by one byte show the limit, and the exit code is 1."""
    with serving_all(up_to(most)) as port:
        assert sweep(port, "100:999") == 1
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert re.fullmatch(r"size=100: passes, time=\d+\.\d+ ms", lines[1])
    assert lines[2].startswith("size=999: timed out after 0.1 s: all acknowledged, nothing came back: ")
    assert re.fullmatch(rf"largest size that passes: {most} bytes \(mss \d+, pmtu \d+\)", lines[-3])
    assert lines[-1] == "shorter echoes come back: the way back drops longer ones, or the server returns none"
    assert lines[-2].startswith(f"{most + 1} bytes: timed out after 0.1 s: all acknowledged, nothing came back: ")


def test_no_limit(capfdbinary: Capture) -> None:
    """If the largest size passes, nothing else is tried, and the exit code is 0."""
    with serving(faithful()) as port:
        assert sweep(port, "1:64K", "--json") == 0
    first, second, summary = validated(capfdbinary.readouterr().out)
    assert (first["size"], second["size"], second["local"]) == (1, 65536, first["local"])
    assert (summary["kind"], summary["ok"], summary["passed"], summary["lost"]) == ("ping_sweep", True, 65536, None)


def test_nothing_passes(capfdbinary: Capture) -> None:
    """If the smallest size is lost, the search ends, and the exit code is 1."""
    with serving(mute) as port:
        assert sweep(port, "10:20") == 1
    *_, count, result, loss = capfdbinary.readouterr().out.decode().splitlines()
    assert (count, result.partition(" (")[0], loss[:19]) == ("1 size tried", "no size passes", "10 bytes: timed out")


def test_slow_echo(capfdbinary: Capture) -> None:
    """If a part of the echo is back in time, it is not its length that was the limit: the search ends."""

    def return_the_beginning(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(65536):
            connection.sendall(data[:10])

    with serving(return_the_beginning) as port:
        assert sweep(port, "10:20") == 1
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[2].startswith("timed out after 0.1 s: 10 of 20 bytes sent came back, ")
    assert lines[-1].startswith("no result above 10 bytes (")


def test_end_of_the_server(capfdbinary: Capture) -> None:
    """When no new connection can be made, the search ends with the result so far: that says nothing about a size."""
    with serving_in_turn(up_to(10)) as port:
        assert sweep(port, "10:20", "--json") == 1
    *_, fault, summary = validated(capfdbinary.readouterr().out)
    assert (fault["kind"], fault["after"], fault["error"]["kind"]) == ("ping_fault", 2, "connect")
    assert (summary["passed"], summary["lost"], summary["error"]) == (10, 20, fault["error"])


def test_end_of_the_server_as_text(capfdbinary: Capture) -> None:
    """A search that ended early says so."""
    with serving_in_turn(up_to(10)) as port:
        assert sweep(port, "10:20") == 1
    assert b"\nlargest size that passes: at least 10 bytes (" in capfdbinary.readouterr().out


@pytest.mark.parametrize("words", [["--json"], []])
def test_wrong_echo(words: list[str], capfdbinary: Capture) -> None:
    """A wrong echo ends the search."""

    def changed(data: bytes) -> bytes:
        return bytes(byte ^ 1 for byte in data)

    with serving(answering(changed, size=10)) as port:
        assert sweep(port, "10:20", *words) == 1
    assert b"wrong echo: byte " in b"".join(capfdbinary.readouterr())


def test_interrupted(capfdbinary: Capture) -> None:
    """If -w ends the search before anything is lost, there is no result, and the exit code is 2."""
    with serving_all(up_to(10)) as port:
        assert main(["ping", "127.0.0.1", str(port), "--sweep", "10:20", "-w", "0.2"]) == 2
    assert b"\nno result above 10 bytes (" in capfdbinary.readouterr().out


@pytest.mark.parametrize("sizes", ["100", "100:", "200:100", "100:100", "0:9", "1:17M", "a:b"])
def test_bad_sizes(sizes: str, capfdbinary: Capture) -> None:
    """Two sizes are required, the first below the second."""
    assert sweep(7, sizes) == 2
    sentence = "is not a range of sizes; give FROM:TO, FROM below TO, from 1 to 16M, as in 1000:9K"
    assert capfdbinary.readouterr().err.decode().startswith(f"echoc: argument --sweep: {sizes!r} {sentence}")


@pytest.mark.parametrize("words", [["-c", "1"], ["-i", "1"], ["-s", "56"], ["--reconnect"], ["--idle", "1"]])
def test_bad_combinations(words: list[str], capfdbinary: Capture) -> None:
    """What --sweep decides itself cannot be chosen."""
    assert sweep(7, "1:2", *words) == 2
    assert capfdbinary.readouterr().err.decode() == f"echoc: {words[0]} cannot be combined with --sweep\n"
