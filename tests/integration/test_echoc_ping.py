"""`echoc ping` as a process: signals, a server that disappears and returns, and networks that lose and delay."""

import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from tests.integration.network import Network, inside, joined_networks, swallow
from tests.unit.client.peers import (
    DEADLINE,
    answering,
    deaf,
    faithful,
    mute,
    receive_exactly,
    seen,
    serving,
    serving_all,
    serving_at,
    serving_in_turn,
    terminal,
)
from tests.unit.client.schema import validated

ONCE = ("-i", DEADLINE)
"""No second message is sent while a test examines the first."""

OUTAGE = r"reconnected after an outage of (\d+\.\d{3}) s \((\d+) messages? lost\), now from .*\n"
"""The line at the end of an outage, with its length and the number of lost messages."""

COMMAND = [sys.executable, "-c", "import sys; from echod.client.cli import main; sys.exit(main())", "ping"]


@contextmanager
def pinging(*words: object, place: Network | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`echoc ping`, in the network `place` if given, with pipes as outputs; killed at the end if it still runs."""
    with inside(place.pid) if place else nullcontext():
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> str:
    """The next line of the output."""
    assert process.stdout
    return process.stdout.readline().decode()


def rest(process: subprocess.Popen[bytes]) -> list[str]:
    """The remaining lines of the output, when the process has exited; it must print no error."""
    assert process.stdout
    assert process.stderr
    lines = process.stdout.read().decode().splitlines()
    assert process.stderr.read() == b""
    process.wait(DEADLINE)
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a ping with the summary, and with 0 if nothing was lost."""
    with serving(faithful()) as port, pinging("127.0.0.1", port, *ONCE) as process:
        line(process)
        assert "seq=1" in line(process)
        process.send_signal(number)
        assert rest(process)[2].startswith("1 message transmitted, 1 received, 0% loss, time ")
        assert process.returncode == 0


def test_second_sigterm() -> None:
    """timeout(1) sends SIGTERM to a process and again to its group; the second does not prevent the summary."""
    program = "import signal, sys\nfrom echod.client import cli\nfrom echod.client.ping.statistics import Statistics\n"
    # The second arrives while the summary is made.
    program += "stop = Statistics.stop\n"
    program += "def stop_and_end(self):\n    stop(self)\n    signal.raise_signal(signal.SIGTERM)\n"
    program += "Statistics.stop = stop_and_end\nsys.exit(cli.main())"
    with serving(faithful()) as port:
        words = [sys.executable, "-c", program, "ping", "127.0.0.1", str(port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            line(process)
            assert "seq=1" in line(process)
            process.send_signal(signal.SIGTERM)
            assert rest(process)[2].startswith("1 message transmitted, 1 received, 0% loss, time ")
            assert process.returncode == 0


def test_interrupt_in_a_flood() -> None:
    """At `-i 0` the message that is outstanding at Ctrl-C is not lost."""
    with serving(faithful()) as port, pinging("127.0.0.1", port, "-i", 0) as process:
        for _ in range(3):
            line(process)
        process.send_signal(signal.SIGINT)
        lines = rest(process)
        assert process.returncode == 0
        assert lines[lines.index("") + 2].count(", 0% loss, ") == 1


def test_interrupt_when_all_is_lost() -> None:
    """If nothing was received, Ctrl-C prints the summary without times, and the exit code is 1."""
    came = threading.Event()

    def take(connection: socket.socket, over: threading.Event) -> None:
        receive_exactly(connection, 56)
        came.set()
        mute(connection, over)

    with serving(take) as port, pinging("127.0.0.1", port, "-W", DEADLINE) as process:
        assert came.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        lines = rest(process)
        assert process.returncode == 1
    assert lines[3].startswith("1 message transmitted, 0 received, 100% loss, time ")
    assert re.fullmatch(r"an outage of \d+\.\d{3} s \(1 message lost\) had not ended", lines[4])


def test_deadline() -> None:
    """-w ends a ping as Ctrl-C does, whatever it waits for."""
    with serving(mute) as port, pinging("127.0.0.1", port, "-w", 1) as process:
        assert rest(process)[3].startswith("1 message transmitted, 0 received, 100% loss, time ")
        assert process.returncode == 1


def test_status_at_will() -> None:
    """Ctrl-\\ prints an intermediate result on standard error, and the ping continues."""
    with serving(faithful()) as port, pinging("127.0.0.1", port, *ONCE) as process:
        line(process)
        assert "seq=1" in line(process)
        process.send_signal(signal.SIGQUIT)
        assert process.stderr
        assert re.fullmatch(
            rb"\r1/1 messages, 0% loss, min/avg/p50/max = [0-9./]+ ms\n", os.read(process.stderr.fileno(), 1000)
        )
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def test_status_before_the_first_message() -> None:
    """Ctrl-\\ prints an intermediate result also during the first connect, and Ctrl-C the summary: the first message
    was due, and is lost."""
    with deaf() as port, pinging("127.0.0.1", port) as process:
        while f":{port:04X} 02 " not in Path("/proc/net/tcp").read_text():  # in the state SYN_SENT
            assert process.poll() is None
        process.send_signal(signal.SIGQUIT)
        assert process.stderr
        assert process.stderr.readline() == b"\r0/1 messages, 100% loss\n"
        process.send_signal(signal.SIGINT)
        assert rest(process)[2].startswith("1 message transmitted, 0 received, 100% loss, time ")
        assert process.returncode == 1


def test_reader_gone() -> None:
    """`echoc ping ... | head` prints nothing more and exits with 141."""
    with serving(faithful()) as port, pinging("127.0.0.1", port, "-i", 0) as process:
        line(process)
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal(columns: int) -> None:
    """On a terminal each line fits: the rest of a longer one is on the next, indented."""
    with serving_in_turn(mute, faithful()) as port, terminal() as (screen, program):
        termios.tcsetwinsize(program, (25, columns))
        words = [*COMMAND, "localhost", str(port), "-c", "2", "-i", "0", "-W", "0.1", "-v"]
        assert subprocess.run(words, stdin=program, stdout=program, stderr=program).returncode == 1
        lines = seen(screen, 500).decode().splitlines()
        assert max(map(len, lines)) <= columns
        wrapped = "\n".join(lines).replace("\n  ", " ")
        assert "timed out after 0.1 s: all acknowledged, nothing came back: the server is silent" in wrapped


def test_connecting_on_a_terminal() -> None:
    """After a second without a connection a terminal shows what is being tried, and Ctrl-C leaves nothing of it."""
    with deaf() as port, terminal() as (screen, program):
        words = [*COMMAND, "127.0.0.1", str(port)]
        with subprocess.Popen(words, stdin=program, stdout=program, stderr=program) as process:
            shown = f"\rconnecting to 127.0.0.1:{port}".encode()
            assert seen(screen, len(shown)).startswith(shown)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 1
        assert b"\r" + b" " * (len(shown) + 1) + b"\r\r\n--- 127.0.0.1 ping" in seen(screen, 100)


def test_outage() -> None:
    """When a server dies and returns, each attempt in between is a loss, and the outage is reported."""
    with serving_in_turn(answering(bytes)) as port, pinging("127.0.0.1", port, "-i", 0.2, "-c", 100) as process:
        line(process)
        assert "seq=1" in line(process)
        assert line(process).startswith("after seq=1: the server closed the idle connection")
        assert line(process) == "no connection for seq=2: Connection refused\n"
        with serving_in_turn(faithful(), port=port):
            reported = line(process)
            while reported.startswith("no connection for seq="):
                reported = line(process)
            outage = re.fullmatch(
                r"reconnected after an outage of (\d+\.\d{3}) s \((\d+) messages? lost\), now from .*\n", reported
            )
            assert outage
            assert "56 bytes from 127.0.0.1" in line(process)
            process.send_signal(signal.SIGINT)
            assert f"1 outage, {outage[1]} s in total, longest {outage[1]} s" in rest(process)
            assert process.returncode == 1


def test_service_that_is_down_at_first() -> None:
    """A ping may start before its server: each refusal is a loss, and the outage is reported once it is over; with -c
    and -w, the echoes that were wanted decide about the exit code."""
    with serving_in_turn(faithful()) as port:
        pass  # closed again
    with pinging("127.0.0.1", port, "-i", 0.1, "-c", 2, "-w", DEADLINE) as process:
        assert line(process) == f"PING 127.0.0.1:{port} 56 bytes of data.\n"
        assert line(process) == "no connection for seq=1: Connection refused\n"
        with serving_in_turn(faithful(), port=port):
            reported = line(process)
            while reported.startswith("no connection for seq="):
                reported = line(process)
            assert re.fullmatch(
                r"reconnected after an outage of \d+\.\d{3} s \(\d+ messages? lost\), now from .*\n", reported
            )
            lines = rest(process)
        assert [" from 127.0.0.1:" in each for each in lines[:2]] == [True, True]
        assert " transmitted, 2 received, " in lines[4]
        assert process.returncode == 0


@contextmanager
def far_server() -> Iterator[tuple[Network, Network, int]]:
    """Two connected networks, and the port of a faithful server in the second."""
    with joined_networks() as (near, far):
        with inside(far.pid):
            listener = socket.create_server((far.address, 0))
        with listener, serving_at(listener, *[faithful()] * 100):
            yield near, far, listener.getsockname()[1]


def test_blackhole() -> None:
    """A network that loses everything for a time is an outage of at least that time, from the first lost message."""
    with (
        far_server() as (near, far, port),
        pinging(far.address, port, "-i", 0.1, "-W", 0.5, "--connect-timeout", 0.2, place=near) as process,
    ):
        line(process)
        while "bytes from" not in line(process):
            pass
        far.lose_all()
        # A busy machine may lose one before, but then it connects.
        reported = [line(process)]
        while not reported[-1].startswith("no connection"):
            reported.append(line(process))
        assert re.fullmatch(
            r"no echo for seq=\d+: timed out after 0\.5 s: .*, 56 not acknowledged: .*\n",
            reported[-2],
        )
        assert re.fullmatch(r"no connection for seq=\d+: timed out\n", reported[-1])
        far.lose_nothing()
        back = line(process)
        while back.startswith("no "):
            back = line(process)
        outage = re.fullmatch(
            r"reconnected after an outage of (\d+\.\d{3}) s \((\d+) messages lost\), now from .*\n", back
        )
        assert outage
        assert float(outage[1]) >= 0.7
        assert int(outage[2]) >= 2
        process.send_signal(signal.SIGINT)
        rest(process)
        assert process.returncode == 1


def test_loss_on_this_machine() -> None:
    """The server is not blamed for what this machine drops before it is sent."""
    with far_server() as (near, far, port), pinging(far.address, port, "-c", 2, "-W", 0.5, place=near) as process:
        line(process)
        assert "seq=1" in line(process)
        near.lose_all()
        assert line(process) == (
            "no echo for seq=2: timed out after 0.5 s: sent 56 bytes, 56 not acknowledged: "
            "the path (or its MTU) drops them\n"
        )


def test_loss_that_tcp_repairs() -> None:
    """TCP retransmits what the network loses for a moment: no message is lost, but the longest time shows it."""
    with (
        far_server() as (near, far, port),
        pinging(far.address, port, "-i", 0, "-W", DEADLINE, "--json", place=near) as process,
    ):
        line(process)
        far.lose_all()
        while not far.has_lost():
            pass
        far.lose_nothing()
        while (echo := validated(line(process).encode())[0])["seconds"] < 0.2:
            assert echo["ok"]
        process.send_signal(signal.SIGINT)
        *_, summary = validated("\n".join(rest(process)).encode())
    assert (process.returncode, summary["loss"], summary["errors"]) == (0, 0, 0)
    assert summary["rtt"]["max"] >= 0.2


def test_mtu_black_hole() -> None:
    """--sweep finds the largest message through a path that drops packets of more than 1,200 bytes: 1,148 bytes, since
    the headers of IPv4 and TCP have 20 bytes each, and the time stamps 12 (RFC 7323)."""

    def echo_until_over(connection: socket.socket, over: threading.Event) -> None:
        connection.settimeout(0.01)  # the end of a connection whose message is lost does not arrive either
        while not over.is_set():
            with suppress(TimeoutError):
                connection.sendall(connection.recv(65536))

    with joined_networks() as (near, far), ExitStack() as stack:
        with inside(far.pid):
            port = stack.enter_context(serving_all(echo_until_over, far.address))
        swallow(near, far, 1200)
        with pinging(far.address, port, "--sweep", "1000:2000", "-W", 0.5, place=near) as process:
            _, _, _, third, *_, result, loss = rest(process)
    assert third.startswith("size=1448: timed out after 0.5 s: ")  # the mss, above which nothing else need be tried
    assert (process.returncode, result) == (1, "largest size that passes: 1148 bytes (mss 1448, pmtu 1500)")
    assert loss == (
        "1149 bytes: timed out after 0.5 s: sent 1149 bytes, 1149 not acknowledged: the path (or its MTU) drops them"
    )


def test_mtu_black_hole_on_the_way_back() -> None:
    """If the messages arrive and only their echoes are too long for the path, --sweep suspects the way back."""
    with far_server() as (near, far, port):
        swallow(far, near, 1200)
        with pinging(far.address, port, "--sweep", "1100:1200", "-W", 0.5, place=near) as process:
            *_, result, loss, suspicion = rest(process)
    assert (process.returncode, result) == (1, "largest size that passes: 1148 bytes (mss 1448, pmtu 1500)")
    assert loss.startswith("1149 bytes: timed out after 0.5 s: all acknowledged, nothing came back: ")
    assert suspicion == "shorter echoes come back: the way back drops longer ones, or the server returns none"


def test_sweep_of_a_slow_network() -> None:
    """At 1 Mbit/s 256 KiB do not return in 0.5 s, which is no limit of their size, and the path is slow."""
    with far_server() as (near, far, port):
        near.run("tc qdisc add dev cable root tbf rate 1mbit burst 5kb latency 5s")
        with pinging(far.address, port, "--sweep", "1000:256K", "-W", 0.5, place=near) as process:
            _, _, fault, *_, result = rest(process)
    assert (process.returncode, result) == (1, "no result above 1000 bytes (mss 1448, pmtu 1500)")
    assert fault.endswith(" not acknowledged yet: the path is slow, or drops them")


def test_slow_network() -> None:
    """Through a network of 1 Mbit/s, 12,500 bytes take at least 80 ms."""
    with far_server() as (near, far, port):
        for end in (near, far):
            end.run("tc qdisc add dev cable root tbf rate 1mbit burst 2kb latency 5s")
        with pinging(far.address, port, "-c", 2, "-i", 0, "-s", 12500, "--json", place=near) as process:
            *echoes, summary = validated("\n".join(rest(process)).encode())
    assert (process.returncode, summary["received"]) == (0, 2)
    assert min(echo["seconds"] for echo in echoes) >= 0.08
