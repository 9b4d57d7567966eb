"""`echoc ping --idle` in this process: how long an idle connection lives."""

import argparse
import re
import socket
import threading
from pathlib import Path

import pytest

from echod.client.cli import main
from echod.client.errors import ClosedError, OverdueError
from echod.client.output import Screen
from echod.client.ping.connection import Server
from echod.client.ping.idle import IdleSearch
from echod.client.ping.report import Names, Report
from echod.client.target import Target
from tests.unit.client.clock import Clock
from tests.unit.client.peers import (
    DEADLINE,
    answering,
    faithful,
    followed_by,
    leaving,
    mute,
    receive_exactly,
    serving,
    serving_in_turn,
    serving_unix,
)
from tests.unit.client.schema import validated

Capture = pytest.CaptureFixture[bytes]


def idle(port: int, seconds: float, *words: str) -> int:
    """Run `echoc ping --idle`."""
    return main(["ping", "127.0.0.1", str(port), "--idle", str(seconds), *words])


def masked(text: bytes, port: int) -> list[str]:
    """The lines that were printed, with N for the figures that vary, PORT for the port and LOCAL for this end."""
    words = re.sub(r"from 127\.0\.0\.1:\d+", "from LOCAL", text.decode().replace(f":{port}", ":PORT"))
    return re.sub(r"\d+\.\d+(?= m?s\b)|(?<=time=)\d+", "N", words).splitlines()


def test_outlived(capfdbinary: Capture) -> None:
    """A connection that survives the silence is reported, and the exit code is 0."""
    with serving(faithful()) as port:
        assert idle(port, 0.1) == 0
    assert masked(capfdbinary.readouterr().out, port) == [
        "PING 127.0.0.1 (127.0.0.1:PORT) from LOCAL: 56 bytes of data.",
        "silence=1 lasted=N s: still connected, time=N ms",
        "",
        "--- 127.0.0.1 ping statistics ---",
        "1 silence, the connection survived N s of silence",
    ]


class Scripted(Server):
    """A server for which time passes only in silences; the connection lives for the given time in each.

    The flag says whether its end is seen; if not, the next echo does not arrive.
    """

    def __init__(self, clock: Clock, *silences: tuple[float, bool]) -> None:
        super().__init__(Target("127.0.0.1", 7), 56, DEADLINE, DEADLINE)
        self.address = "127.0.0.1:7"
        self._clock = clock
        self._silences = iter(silences)
        self._lost = False

    def echo(self) -> int:
        """An echo that takes no time; after a loss, over another connection."""
        lost, self._lost = self._lost, False
        if lost:
            raise OverdueError(DEADLINE, 56, 0)
        return 0

    def watch(self, until: int) -> None:
        """Be silent until the end of the connection is seen."""
        life, visible = next(self._silences)
        left = (until - self._clock.now) / 1e9
        if life < left and visible:
            self._clock.leap(life)
            raise ClosedError(56)
        self._clock.leap(left)
        self._lost = life < left

    def segments(self) -> None:
        """The number of segments is unknown."""


def searched(server: Server, longest: float) -> IdleSearch:
    """A search that has ended, and has printed JSON."""
    options = argparse.Namespace(json=True, quiet=False, timestamps=False, outstanding=False, verbose=False)
    search = IdleSearch(server, Report(options, Screen(), Names("127.0.0.1", False)), longest, None)
    search.run()
    return search


@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("life", [0.2, 40, 2000])
def test_not_outlived(life: float, visible: bool, clock: Clock, capfdbinary: Capture) -> None:
    """The lifetime of an idle connection is found to within 10 %, whether or not its end can be seen."""
    search = searched(Scripted(clock, *[(life, visible)] * 20), 3600)
    silences = validated(capfdbinary.readouterr().out)
    assert {each["kind"] for each in silences} == {"ping_silence"}
    found = search.fields()
    assert (search.exit_code, found["silences"]) == (1, len(silences))
    outlived, lost = found["outlived"], found["lost"]
    assert outlived == max(each["silence"] for each in silences if each["ok"])
    assert lost == min(each["silence"] for each in silences if not each["ok"])
    assert isinstance(outlived, float)
    assert isinstance(lost, float)
    assert outlived <= life <= lost <= outlived + max(lost / 10, 0.05)


def test_end_is_seen(capfdbinary: Capture) -> None:
    """A silence ends with the connection, before its time is over."""
    with serving_in_turn(leaving(0.1), faithful()) as port:
        assert idle(port, 3600, "-c", "1") == 1
    assert masked(capfdbinary.readouterr().out, port)[1:] == [
        "silence=1 lasted=N s: then the server closed the idle connection: all 56 bytes sent came back",
        "",
        "--- 127.0.0.1 ping statistics ---",
        "1 silence, an idle connection was lost after N s; nothing shorter was tried",
    ]


def last_a_while(connection: socket.socket, over: threading.Event) -> None:
    """Answer one message, and close the connection 0.1 s later."""
    answering(bytes)(connection, over)
    over.wait(0.1)


def test_verdict(clock: Clock) -> None:
    """The verdict has the longest silence survived and the shortest not survived."""
    search = searched(Scripted(clock, (100, True), (100, True)), 3600)
    assert search.lines() == ["2 silences, an idle connection survived 95.0 s and was lost after 100.0 s"]


def test_outlives_nothing(capfdbinary: Capture) -> None:
    """The verdict says if the connection survived no shorter silence either."""
    with serving_in_turn(last_a_while, answering(bytes)) as port:
        assert idle(port, 3600) == 1
    printed = masked(capfdbinary.readouterr().out, port)
    assert printed[-1] == "2 silences, an idle connection was lost after N s, and survived nothing shorter"


def test_end_that_silence_does_not_explain(clock: Clock) -> None:
    """If a connection ends in a shorter silence than another has survived, the verdict claims no limit between them."""
    search = searched(Scripted(clock, (50, False), (50, False), (1, True)), 80)
    assert search.lines() == ["3 silences, an idle connection survived 40.0 s, but another was lost after 1.000 s"]


def test_interrupted(capfdbinary: Capture, clock: Clock) -> None:
    """When -w ends the first silence, there is no result, and the exit code is 2."""
    with serving(faithful()) as port:
        assert idle(port, 3600, "-w", "0.1", "--json") == 2
    (summary,) = validated(capfdbinary.readouterr().out)
    assert (summary["ok"], summary["silences"], summary["outlived"], summary["error"]) == (False, 0, None, None)


@pytest.mark.parametrize("words", [b"421 timeout\r\n", b"421 timeout\r\n" * 8])
def test_wrong_echo_is_no_lost_connection(words: bytes, capfdbinary: Capture) -> None:
    """A server that sends something during the silence has not lost the connection, whose lifetime stays unknown."""

    def remind(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(receive_exactly(connection, 56) + words)
        mute(connection, over)

    with serving(remind) as port:
        assert idle(port, 3600, "--json") == 1
    fault, summary = validated(capfdbinary.readouterr().out)
    assert (fault["kind"], fault["after"], fault["error"]["kind"]) == ("ping_fault", 0, "surplus")
    assert (summary["silences"], summary["lost"], summary["error"]) == (0, None, fault["error"])


def test_no_echo_before(capfdbinary: Capture) -> None:
    """Without an echo first, no silence is tried, and the exit code is 1."""
    with serving(mute) as port:
        assert idle(port, 0.1, "-W", "0.05", "--json") == 1
    fault, summary = validated(capfdbinary.readouterr().out)
    assert (fault["kind"], fault["error"]["kind"]) == ("ping_fault", "late")
    assert (summary["silences"], summary["error"]) == (0, fault["error"])


def test_nobody_listens_any_more(capfdbinary: Capture) -> None:
    """When no new connection can be made, the search ends with the result so far."""
    with serving_in_turn(leaving(0.2)) as port:
        assert idle(port, 3600) == 1
    printed = masked(capfdbinary.readouterr().out, port)
    assert printed[2].startswith("no echo before the silence: cannot connect to ")
    assert printed[-1].startswith("1 silence, an idle connection was lost after N s")


def test_broken_silence(capfdbinary: Capture) -> None:
    """A silence in which the server sent keepalives is reported as broken."""

    def keep_alive(connection: socket.socket, over: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)  # the first may come before the silence

    with serving(followed_by(keep_alive, faithful())) as port:
        assert idle(port, 1.5) == 0
    printed = masked(capfdbinary.readouterr().out, port)
    # On a busy machine the silence may last long enough for several.
    reported = r"silence=1 was broken: the server sent (1 segment|\d+ segments) meanwhile, perhaps a keepalive"
    assert re.fullmatch(reported, printed[2])
    assert printed[-1] == "the server was not silent; its segments may be what kept the connection open"


def test_unix_socket(tmp_path: Path, capfdbinary: Capture) -> None:
    """On a unix socket there are no segments to count."""
    with serving_unix(faithful(), f"{tmp_path}/s"):
        assert main(["ping", f"unix:{tmp_path}/s", "--idle", "0.1", "--json"]) == 0
    silence, _ = validated(capfdbinary.readouterr().out)
    assert silence["segments"] is None
