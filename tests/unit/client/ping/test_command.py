"""`echoc ping` in this process: faulty servers, and the output as text and as JSON."""

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from echod.client.cli import main
from echod.client.compare import PERIOD
from tests.unit.client.clock import Clock
from tests.unit.client.peers import (
    DEADLINE,
    Behaviour,
    answering,
    deaf,
    faithful,
    followed_by,
    mute,
    rude,
    serving,
    serving_in_turn,
    serving_unix,
)
from tests.unit.client.schema import validated

Capture = pytest.CaptureFixture[bytes]
QUICK = ["-i", "0.01"]
LATE = ["-W", "0.2"]


def ping(port: int, *words: object, host: str = "127.0.0.1") -> int:
    """Run `echoc ping` with a short interval."""
    return main(["ping", host, str(port), *QUICK, *map(str, words)])


def masked(text: bytes, port: int) -> str:
    """The output, with N for figures that vary, PORT for the port and LOCAL for this end of a connection."""
    words = text.decode().replace(f":{port}", ":PORT")
    words = re.sub(r"from (127\.0\.0\.1|\[::1\]):\d+", "from LOCAL", words)
    words = re.sub(r"\d+ retransmits, \d+ lost, mss \d+, pmtu \d+", "N retransmits, N lost, mss N, pmtu N", words)
    return re.sub(r"\d+\.\d+(?= s)|\d+(\.\d+)?(?= ms)|\d+(?=ms)|(\d+\.\d{3}/)+\d+\.\d{3}|(?<=\[)\d+\.\d{6}", "N", words)


def flipped(data: bytes) -> bytes:
    """The message with one bit of its byte 3 changed."""
    return data[:3] + bytes([data[3] ^ 1]) + data[4:]


def without_byte_3(data: bytes) -> bytes:
    """The message one byte shorter."""
    return data[:3] + data[4:]


def half(data: bytes) -> bytes:
    """The first 20 bytes of the message."""
    return data[:20]


def doubled(data: bytes) -> bytes:
    """The message twice."""
    return data + data


def test_words(capfdbinary: Capture) -> None:
    """The output is like that of ping(8): a line for each echo, and the summary."""
    with serving(faithful()) as port:
        assert ping(port, "-c", 2, host="localhost") == 0
    assert masked(capfdbinary.readouterr().out, port) == (
        "PING localhost (127.0.0.1:PORT) from LOCAL: 56 bytes of data.\n"
        "56 bytes from localhost (127.0.0.1:PORT): seq=1 time=N ms\n"
        "56 bytes from localhost (127.0.0.1:PORT): seq=2 time=N ms\n"
        "\n"
        "--- localhost ping statistics ---\n"
        "2 messages transmitted, 2 received, 0% loss, time Nms\n"
        "rtt min/avg/max/mdev = N ms\n"
        "rtt p50/p99 = N ms\n"
        "tcp rtt/rttvar = N ms, N retransmits, N lost, mss N, pmtu N\n"
    )


def test_options(capfdbinary: Capture) -> None:
    """-n omits the name in the lines, -D prints the time before them, -s chooses the size."""
    with serving(faithful()) as port:
        assert ping(port, "-c", 1, "-n", "-D", "-s", 100, host="localhost") == 0
    assert masked(capfdbinary.readouterr().out, port).startswith(
        "PING localhost (127.0.0.1:PORT) from LOCAL: 100 bytes of data.\n"
        "[N] 100 bytes from 127.0.0.1:PORT: seq=1 time=N ms\n\n"
    )


def test_one_byte(capfdbinary: Capture) -> None:
    """One byte and one message are singular."""
    with serving(faithful()) as port:
        assert ping(port, "-c", 1, "-s", 1) == 0
    first, echo, _, _, counts, *_ = masked(capfdbinary.readouterr().out, port).splitlines()
    assert first == "PING 127.0.0.1 (127.0.0.1:PORT) from LOCAL: 1 byte of data."
    assert echo == "1 byte from 127.0.0.1:PORT: seq=1 time=N ms"
    assert counts == "1 message transmitted, 1 received, 0% loss, time Nms"


def test_quiet(capfdbinary: Capture) -> None:
    """-q prints only the first line and the summary, whatever happens."""
    with serving_in_turn(mute, faithful()) as port:
        assert ping(port, "-c", 2, "-q", *LATE) == 1
    lines = masked(capfdbinary.readouterr().out, port).splitlines()
    assert lines[:3] == [
        "PING 127.0.0.1 (127.0.0.1:PORT) from LOCAL: 56 bytes of data.",
        "",
        "--- 127.0.0.1 ping statistics ---",
    ]


def test_unix_socket(tmp_path: Path, capfdbinary: Capture) -> None:
    """A unix socket is shown by its path only."""
    path = f"{tmp_path}/s"
    with serving_unix(faithful(), path):
        assert main(["ping", f"unix:{path}", "-c", "1"]) == 0
    first, second = capfdbinary.readouterr().out.decode().splitlines()[:2]
    assert first == f"PING unix:{path} 56 bytes of data."
    assert second.startswith(f"56 bytes from unix:{path}: seq=1 time=")


def test_ipv6(ipv6: None, capfdbinary: Capture) -> None:
    """An IPv6 address is shown with its port."""
    with serving(faithful(), socket.AF_INET6) as port:
        assert ping(port, "-c", 1, host="::1") == 0
    assert masked(capfdbinary.readouterr().out, port).splitlines()[1] == "56 bytes from [::1]:PORT: seq=1 time=N ms"


def test_reconnect(capfdbinary: Capture) -> None:
    """--reconnect makes a connection for each message and prints how long that took; either end may then close
    first."""
    with serving_in_turn(faithful(), answering(bytes), followed_by(answering(bytes), rude)) as port:
        assert ping(port, "-c", 3, "--reconnect") == 0
    assert masked(capfdbinary.readouterr().out, port).splitlines()[1:] == [
        "56 bytes from 127.0.0.1:PORT: seq=1 connect=N ms time=N ms",
        "56 bytes from 127.0.0.1:PORT: seq=2 connect=N ms time=N ms",
        "56 bytes from 127.0.0.1:PORT: seq=3 connect=N ms time=N ms",
        "",
        "--- 127.0.0.1 ping statistics ---",
        "3 messages transmitted, 3 received, 0% loss, time Nms",
        "rtt min/avg/max/mdev = N ms",
        "rtt p50/p99 = N ms",
        "connect min/avg/max/mdev = N ms",
        "tcp rtt/rttvar = N ms, N retransmits, N lost, mss N, pmtu N",
    ]


LOST = "reconnected after an outage of N s (1 message lost), now from LOCAL"
UNHARMED = "reconnected after an outage of N s (0 messages lost), now from LOCAL"


@pytest.mark.parametrize(
    ("behaviour", "lines", "counts"),
    [
        (
            followed_by(answering(bytes, flipped), mute),
            [
                r"56 bytes from .*: seq=1 time=N ms",
                r"wrong echo for seq=2: byte 59: sent 0x.., received 0x..; only that byte was changed",
                LOST,
                r"56 bytes from .*: seq=3 time=N ms",
            ],
            "3 messages transmitted, 2 received, +1 corrupted, 33.3333% loss, time Nms",
        ),
        (
            followed_by(answering(without_byte_3), mute),
            [
                r"wrong echo for seq=1: byte 3: sent 0x.., received 0x..; it looks as if 1 byte had been dropped there",
                LOST,
                r"56 bytes from .*: seq=2 .*",
                r"56 bytes from .*: seq=3 .*",
            ],
            "3 messages transmitted, 2 received, +1 corrupted, 33.3333% loss, time Nms",
        ),
        (
            followed_by(answering(doubled), mute),
            [
                r"56 bytes from .*: seq=1 .*",
                r"after seq=1: at least 56 bytes too many, from byte 56 on: \".*\"\.\.\.",
                UNHARMED,
                r"56 bytes from .*: seq=2 .*",
                r"56 bytes from .*: seq=3 .*",
            ],
            "3 messages transmitted, 3 received, +1 corrupted, 0% loss, time Nms",
        ),
        (
            answering(half),
            [
                r"no echo for seq=1: the server closed the connection too early: 20 of 56 .* from byte 20 on .*",
                LOST,
                r"56 bytes from .*: seq=2 .*",
                r"56 bytes from .*: seq=3 .*",
            ],
            "3 messages transmitted, 2 received, +1 error, 33.3333% loss, time Nms",
        ),
        (
            followed_by(answering(bytes, half), rude),
            [
                r"56 bytes from .*: seq=1 .*",
                r"no echo for seq=2: the connection broke \(Connection reset by peer\): \d+ of 56 bytes .*",
                LOST,
                r"56 bytes from .*: seq=3 .*",
            ],
            "3 messages transmitted, 2 received, +1 error, 33.3333% loss, time Nms",
        ),
    ],
    ids=["flips", "drops", "repeats", "stops", "resets"],
)
def test_faulty_server(
    behaviour: Behaviour, lines: list[str], counts: str, capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault is found and reported in one line, a new connection is made, and the exit code is 1."""
    # Fixed bytes without equal neighbours, between which a missing byte would show one byte late.
    monkeypatch.setattr(os, "urandom", lambda count: bytes(number % 251 for number in range(count)))
    with serving_in_turn(behaviour, faithful()) as port:
        assert ping(port, "-c", 3) == 1
    compare(masked(capfdbinary.readouterr().out, port), lines, counts)


def test_late_echo(capfdbinary: Capture, clock: Clock) -> None:
    """An echo that is not complete in time is reported with the number of bytes received."""
    clock.leap_after_a_part(DEADLINE)
    with serving_in_turn(followed_by(answering(bytes, half), mute), faithful()) as port:
        assert ping(port, "-c", 3, "-W", DEADLINE) == 1
    lines = [
        r"56 bytes from .*: seq=1 .*",
        "no echo for seq=2: timed out after 20 s: 20 of 56 bytes sent came back, 36 missing from byte 20 on .*",
        LOST,
        r"56 bytes from .*: seq=3 .*",
    ]
    counts = "3 messages transmitted, 2 received, 33.3333% loss, time Nms"
    compare(masked(capfdbinary.readouterr().out, port), lines, counts)


def compare(text: str, lines: list[str], counts: str) -> None:
    """Compare the lines after the first with `lines`, and the counts in the summary."""
    printed = text.splitlines()
    for line, expected in zip(printed[1:], lines, strict=False):
        assert re.fullmatch(expected, line) or line == expected
    assert printed[len(lines) + 1 :][:3] == ["", "--- 127.0.0.1 ping statistics ---", counts]


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (answering(bytes), "the server closed the idle connection"),
        (followed_by(answering(bytes), rude), "the connection broke (Connection reset by peer)"),
    ],
    ids=["closes", "resets"],
)
def test_end_between_messages(
    end: Behaviour, sentence: str, capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends between two messages is reported; no message is lost, but the exit code is 1."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the wait for the next message, after the end was seen
    with serving_in_turn(end, faithful()) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "2", "-i", "3600"]) == 1
    lines = masked(capfdbinary.readouterr().out, port).splitlines()
    assert lines[2:4] == [f"after seq=1: {sentence}: all 56 bytes sent came back", UNHARMED]
    assert "2 messages transmitted, 2 received, +1 error, 0% loss, time Nms" in lines


def test_interval_after_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the end of a connection the next message still waits for its time."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with serving_in_turn(answering(bytes), faithful()) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "2", "-i", "3600"]) == 1
    assert 3000 < max(slept) <= 3600


def test_interval_below_a_millisecond(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """An interval may be shorter than a millisecond, the unit of poll(2)."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.leap(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    with serving(faithful()) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "3", "-i", "0.0002"]) == 0
    assert slept == [0.0002, 0.0002, 0]


def test_retry_without_an_interval(closed_port: int, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """With an interval of 0, a failed attempt to connect is repeated after 0.1 s: neither end is flooded."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert main(["ping", "127.0.0.1", str(closed_port), "-c", "2", "-i", "0"]) == 1
    assert slept == [0.1, 0]


def test_no_wait_after_the_last() -> None:
    """After the last echo there is no wait."""
    with serving(faithful()) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "1", "-i", "3600"]) == 0


def test_nobody_listens_any_more(capfdbinary: Capture) -> None:
    """After the first connection, a failed one is a loss, reported with its reason."""
    with serving_in_turn(answering(bytes, half)) as port:
        assert ping(port, "-c", 4) == 1
    lines = masked(capfdbinary.readouterr().out, port).splitlines()
    assert lines[3:5] == [f"no connection for seq={number}: Connection refused" for number in (3, 4)]
    assert lines[7] == "4 messages transmitted, 1 received, +3 errors, 75% loss, time Nms"
    assert lines[10] == "an outage of N s (3 messages lost) had not ended"


def test_length_of_an_outage_that_has_not_ended(capfdbinary: Capture) -> None:
    """If the last message is lost, the outage lasts until the end."""
    with serving(mute) as port:
        assert ping(port, "-c", 1, "--json", "-W", "0.05") == 1
    *_, summary = validated(capfdbinary.readouterr().out)
    assert summary["outages"]["unended"]["seconds"] >= 0.05


def test_nobody_listens(capfdbinary: Capture, closed_port: int) -> None:
    """A refused first connection is a loss like any other, and the exit code is 1."""
    assert ping(closed_port, "-c", 2) == 1
    printed = capfdbinary.readouterr()
    assert (masked(printed.out, closed_port).splitlines(), printed.err) == (
        [
            "PING 127.0.0.1:PORT 56 bytes of data.",
            "no connection for seq=1: Connection refused",
            "no connection for seq=2: Connection refused",
            "",
            "--- 127.0.0.1 ping statistics ---",
            "2 messages transmitted, 0 received, +2 errors, 100% loss, time Nms",
            "an outage of N s (2 messages lost) had not ended",
        ],
        b"",
    )
    assert ping(closed_port, "-c", 1, "--json") == 1
    echo, summary = validated(capfdbinary.readouterr().out)
    assert (echo["address"], echo["error"]["kind"], summary["address"], summary["error"]) == (
        None,
        "connect",
        None,
        None,
    )


def test_nobody_can_be_asked(capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the name does not resolve at the start, there is one sentence, with --json also an object, and the exit code
    is 2."""

    def getaddrinfo(*arguments: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sentence = b"echoc: cannot connect to echo.example:7: Name or service not known\n"
    assert ping(7, host="echo.example") == 2
    assert capfdbinary.readouterr() == (b"", sentence)
    assert ping(7, "--json", host="echo.example") == 2
    printed = capfdbinary.readouterr()
    (summary,) = validated(printed.out)
    assert (summary["kind"], summary["ok"], summary["address"]) == ("ping_summary", False, None)
    assert (summary["error"]["kind"], printed.err) == ("connect", sentence)
    assert (summary["transmitted"], summary["loss"]) == (0, None)


def test_name_that_is_gone(capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no longer resolves is a loss."""
    look_up = socket.getaddrinfo

    def once(*arguments: object, **words: object) -> list[object]:
        monkeypatch.setattr(socket, "getaddrinfo", never)
        return look_up("127.0.0.1", *arguments[1:], **words)  # type: ignore[arg-type,return-value]

    def never(*arguments: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with serving(answering(bytes)) as port:
        monkeypatch.setattr(socket, "getaddrinfo", once)
        assert ping(port, "-c", 2, "--reconnect", host="echo.example") == 1
    assert b"\nno connection for seq=2: Name or service not known\n" in capfdbinary.readouterr().out


def test_deadline_while_connecting(ipv6: None, capfdbinary: Capture) -> None:
    """-w ends the first connection as it ends everything else, and the message is lost."""
    with deaf() as port, deaf(socket.AF_INET6, port):
        assert ping(port, "-w", "0.1", "--connect-timeout", 3600, host="localhost") == 1
    assert b"\n1 message transmitted, 0 received, " in capfdbinary.readouterr().out


@pytest.mark.parametrize(("replies", "code"), [(2, 0), (3, 1)])
def test_echoes_wanted(replies: int, code: int, capfdbinary: Capture) -> None:
    """With -c and -w, a ping sends until COUNT echoes have come back: 0 if they have, otherwise 1, as with ping(8)."""
    with serving_in_turn(answering(half), followed_by(answering(bytes, bytes), mute)) as port:
        assert ping(port, "-c", replies, "-w", 0.5) == code
    assert b" transmitted, 2 received, " in capfdbinary.readouterr().out


def test_wrong_echo_among_the_wanted() -> None:
    """A wrong echo is never in order, also if all that were wanted have come back."""
    with serving_in_turn(answering(flipped), faithful()) as port:
        assert ping(port, "-c", 1, "-w", DEADLINE) == 1


def test_no_answer_yet(capfdbinary: Capture) -> None:
    """-O says at each interval that an echo is outstanding."""
    with serving(mute) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "1", "-O", "-i", "0.04", "-W", "0.1"]) == 1
    assert capfdbinary.readouterr().out.decode().splitlines()[1:4] == [
        "no answer yet for seq=1",
        "no answer yet for seq=1",
        "no echo for seq=1: timed out after 0.1 s: all acknowledged, nothing came back: the server is silent",
    ]
    with serving(mute) as port:
        assert ping(port, "-c", 1, "-O", "-W", 0.015, "--json") == 1
    waiting, *_ = validated(capfdbinary.readouterr().out)
    assert (waiting["kind"], waiting["seq"], waiting["seconds"]) == ("ping_waiting", 1, 0.01)


def test_time_of_connecting_to_the_second_address(ipv6: None, capfdbinary: Capture) -> None:
    """The time of connecting includes that of another address of the name that did not answer."""
    with deaf() as port, serving(faithful(), socket.AF_INET6, port=port):
        assert ping(port, "-c", 1, "--reconnect", "--json", host="localhost") == 0
    echo, _ = validated(capfdbinary.readouterr().out)
    assert echo["address"] == f"[::1]:{port}"
    assert echo["connect_seconds"] >= 0.25  # after which the second one is tried as well


def test_verbose(capfdbinary: Capture) -> None:
    """-v prints after each echo what TCP knows about the connection."""
    with serving(faithful()) as port:
        assert ping(port, "-c", 1, "-v") == 0
    line = masked(capfdbinary.readouterr().out, port).splitlines()[2]
    assert re.fullmatch(r"from LOCAL: rtt N ms, rttvar N ms, retransmits \d+, lost \d+, mss \d+, .*", line)


def test_json_of_both_ends(capfdbinary: Capture, tmp_path: Path) -> None:
    """Every object has the local address, to be matched with a packet capture; a unix socket has none."""
    peers: list[str] = []

    def note(connection: socket.socket, over: threading.Event) -> None:
        peers.append("{}:{}".format(*connection.getpeername()))

    with serving_in_turn(followed_by(note, answering(doubled)), followed_by(note, faithful())) as port:
        assert ping(port, "-c", 2, "--json") == 1
    objects = validated(capfdbinary.readouterr().out)
    assert [each["local"] for each in objects] == [peers[0], peers[0], peers[1], peers[1], peers[1]]
    assert [each["tcp"]["pmtu"] > 0 for each in objects if "tcp" in each] == [True, True, True]
    with serving_unix(faithful(), f"{tmp_path}/s"):
        assert main(["ping", f"unix:{tmp_path}/s", "-c", "1", "--json"]) == 0
    assert [(each["local"], each["tcp"]) for each in validated(capfdbinary.readouterr().out)] == [(None, None)] * 2


def test_json(capfdbinary: Capture) -> None:
    """--json prints an object for each echo, fault and outage, and for the summary; sentences go to standard error."""
    with serving_in_turn(followed_by(answering(doubled), mute), answering(bytes, half), faithful()) as port:
        assert ping(port, "-c", 4, "--json") == 1
    printed = capfdbinary.readouterr()
    objects = validated(printed.out)
    assert [each["kind"] for each in objects] == [
        *("ping", "ping_fault", "ping_outage", "ping", "ping", "ping_outage", "ping", "ping_summary")
    ]
    assert [each["ok"] for each in objects if each["kind"] == "ping"] == [True, True, False, True]
    summary = objects[-1]
    assert (summary["transmitted"], summary["received"], summary["corrupted"], summary["errors"]) == (4, 3, 1, 1)
    assert (summary["loss"], summary["outages"]["count"], summary["outages"]["unended"]) == (0.25, 2, None)
    assert len(printed.err.splitlines()) == 4


def test_json_of_reconnecting(capfdbinary: Capture) -> None:
    """With --reconnect the objects have the time of connecting; with -q there is only the summary."""
    with serving_in_turn(faithful(), faithful()) as port:
        assert ping(port, "-c", 2, "--json", "--reconnect") == 0
    objects = validated(capfdbinary.readouterr().out)
    assert objects[0]["connect_seconds"] > 0
    assert objects[-1]["connect"]["max"] >= objects[-1]["connect"]["min"] > 0
    with serving_in_turn(faithful()) as port:
        assert ping(port, "-c", 2, "--json", "-q") == 0
    assert [each["kind"] for each in validated(capfdbinary.readouterr().out)] == ["ping_summary"]


@pytest.mark.parametrize("size", [56, PERIOD, 2 * PERIOD])
def test_messages_differ(size: int) -> None:
    """Every message differs from the previous one, so a server that repeats an echo is found."""
    stream = bytearray()

    def remember(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(65536):
            stream.extend(data)
            connection.sendall(data)

    with serving(remember) as port:
        assert ping(port, "-c", 3, "-s", size) == 0
    assert len({bytes(stream[start : start + size]) for start in range(0, 3 * size, size)}) == 3


def test_large_message() -> None:
    """A message larger than all buffers is returned in parts."""
    with serving(faithful(1000)) as port:
        assert main(["ping", "127.0.0.1", str(port), "-c", "1", "-s", "10000000"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-c", "0"], "argument -c/--count: '0' is not a whole number from 1 to"),
        (["-s", "0"], "argument -s/--size: '0' is not a size; give bytes, from 1 to 16M"),
        (["-i", "often"], "argument -i/--interval: 'often' is not a valid time"),
        (["-w", "0"], "argument -w/--deadline: '0' is not a valid time"),
        (["-W", "nan"], "argument -W/--timeout: 'nan' is not a valid time"),
        (["--idle", "1", "-i", "1"], "-i cannot be combined with --idle"),
        (["--idle", "1", "--reconnect"], "--reconnect cannot be combined with --idle"),
    ],
)
def test_bad_usage(words: list[str], sentence: str, capfdbinary: Capture) -> None:
    """Invalid usage is reported in one sentence that names the argument, and exits with 2."""
    assert main(["ping", "127.0.0.1", *words]) == 2
    printed = capfdbinary.readouterr()
    assert (printed.out, printed.err.count(b"\n")) == (b"", 1)
    assert printed.err.decode().startswith(f"echoc: {sentence}")
