"""`echoc load` as a process, against faithful, slow and faulty servers."""

import fcntl
import itertools
import os
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import Daemon
from tests.integration.network import inside, own_network
from tests.unit.client.peers import (
    DEADLINE,
    RESET,
    Behaviour,
    deaf,
    endless,
    faithful,
    greeting,
    seen,
    serving_all,
    silent,
    terminal,
)
from tests.unit.client.schema import validated

COMMAND = [sys.executable, "-c", "import sys; from echod.client.cli import main; sys.exit(main())", "load"]


def load(port: object, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Load a server on the loopback address for a short time."""
    words = [*COMMAND, "127.0.0.1", str(port), "--duration", "0.05", "--connections", "2", *arguments]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **settings)


def result(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The result, which a load with `--json` prints last."""
    *_, last = validated(done.stdout)
    assert last["kind"] == "load"
    return last


@contextmanager
def loading(
    port: int, *arguments: str, until: Callable[[dict[str, Any]], object] = lambda interval: True
) -> Iterator[subprocess.Popen[bytes]]:
    """A long load that has reported its first interval, or one for which `until` is true."""
    words = [*COMMAND, "127.0.0.1", str(port), "--duration", "60", "--connections", "2", "--interval", "0.05"]
    process = subprocess.Popen(
        [*words, "--json", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            wait_for(process, until)
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], until: Callable[[dict[str, Any]], object]) -> None:
    """Read intervals until `until` is true for one."""
    assert process.stdout is not None
    while not until(validated(process.stdout.readline())[0]):
        pass


def interrupted(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytes]:
    """Interrupt a load; its result, and its standard error."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=DEADLINE)
    return validated(output)[-1], errors


def faulty(fault: Behaviour, after: int = 3, size: int = 64) -> Behaviour:
    """Return `after` messages of `size` bytes, and treat the next with `fault`; close if the client closes first.

    It counts bytes: messages sent in several pieces may be received as one.
    """

    def behave(connection: socket.socket, over: threading.Event) -> None:
        left = after * size
        while left and (data := connection.recv(left)):
            connection.sendall(data)
            left -= len(data)
        if connection.recv(1, socket.MSG_PEEK):
            fault(connection, over)

    return behave


def changing(change: Callable[[bytes], bytes]) -> Behaviour:
    """Return changed bytes."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        if data := connection.recv(65536):
            connection.sendall(change(data))
            over.wait(DEADLINE)

    return behave


def closing(connection: socket.socket, over: threading.Event) -> None:
    """Read, and close."""
    connection.recv(65536)


def resetting(connection: socket.socket, over: threading.Event) -> None:
    """Read, and reset the connection."""
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


TEXT = rb"""target          127\.0\.0\.1:\d+
mode            message
connections     2
size            64 bytes
processes       1
time            0\.050 s
messages        \d+
rate            \d+\.\d messages/s
throughput      \d+\.\d{3} MB/s each way
sent            \d+ bytes
received        \d+ bytes
busy            \d+\.\d %
starved         \d+\.\d %
p50             \d+\.\d{3} ms
p90             \d+\.\d{3} ms
p99             \d+\.\d{3} ms
p99\.9           \d+\.\d{3} ms
max             \d+\.\d{3} ms
tcp-rtt-min     \d+\.\d{3} ms
tcp-rtt-p50     \d+\.\d{3} ms
tcp-retransmits \d+ segments?
tcp-lost        0 segments
tcp-mss         \d+ bytes
tcp-pmtu        \d+ bytes
local           127\.0\.0\.1 ports \d+ to \d+
lost            0 messages
outstanding     0 messages
unsent          0 messages
errors          0

   latency     messages
(<= +[\d.]+ (us|ms|s) +\d+ +\d+\.\d\d %(  #{1,40})?
)+"""


def test_text() -> None:
    """The text has names, values and units, and the chart, within 80 columns; a log gets a line for each interval."""
    with serving_all(faithful()) as port:
        done = load(port)
    assert done.returncode == 0
    assert re.fullmatch(rb"0\.1 s, \d+ messages/s, .*\n(echoc: warning: .*\n)*", done.stderr)
    assert re.fullmatch(TEXT, done.stdout), done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json() -> None:
    """Intervals and the result are valid, and the sums are right."""
    with serving_all(faithful()) as port:
        done = load(port, "--json", "--duration", "0.1", "--interval", "0.03", "--size", "1K", "--processes", "2")
    assert (done.returncode, done.stderr) == (0, b"")
    *intervals, total = validated(done.stdout)
    # Each begins where the previous one ended; a process without a processor for a moment reports fewer, longer ones.
    ends = [interval["began"] + interval["seconds"] for interval in intervals]
    assert [interval["began"] for interval in intervals] == pytest.approx([0, *ends[:-1]])
    assert sum(interval["seconds"] for interval in intervals) == pytest.approx(total["seconds"]) == 0.1
    assert total["sent"] == total["received"] == 1024 * total["messages"]
    assert total["messages"] == sum(row["count"] for row in total["histogram"])
    # After the load at most the outstanding messages came back, one for each connection.
    assert 0 <= total["messages"] - sum(interval["messages"] for interval in intervals) <= 2
    assert (total["ok"], total["lost"], total["errors"], total["connections_made"]) == (True, 0, [], 2)
    assert (total["tcp"]["connections"], [local["address"] for local in total["local"]]) == (2, ["127.0.0.1"])


def test_one_interval() -> None:
    """A load that ends with an interval reports no further one of length 0."""
    with serving_all(faithful()) as port:
        reported = validated(load(port, "--json", "--interval", "0.05").stdout)
    assert [(record["kind"], record["seconds"]) for record in reported] == [("load_interval", 0.05), ("load", 0.05)]


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (changing(lambda data: bytes([data[0] ^ 1]) + data[1:]), "mismatch", None),
        (changing(lambda data: data[1:]), "mismatch", None),
        (changing(lambda data: data + b"x"), "surplus", None),
        (closing, "shortfall", None),
        (resetting, "broken", "Connection reset by peer"),
        (silent, "silence", None),
    ],
    ids=["flips", "drops", "adds", "closes", "resets", "silent"],
)
def test_faulty_server(fault: Behaviour, kind: str, reason: str | None) -> None:
    """Each fault is counted by kind, the message is lost, the connection is opened again, and the exit code is 1."""
    # With 1000 bytes a dropped or changed first byte is not right by chance.
    words = ["--timeout", "0.5" if fault is silent else str(DEADLINE), "--size", "1000"]
    with serving_all(faulty(fault, size=1000)) as port, loading(port, *words) as process:
        wait_for(process, lambda interval: interval["connections_made"])
        total, errors = interrupted(process)
    (error,) = total["errors"]
    assert (process.returncode, total["ok"], error["kind"], error["reason"]) == (1, False, kind, reason)
    assert total["lost"] == error["count"] >= total["connections_made"] - 2 >= 1
    assert 0 < total["messages"] <= total["connections_made"] * 3
    (example,) = total["examples"]
    (local,) = total["local"]
    assert (example["kind"], local["address"]) == (kind, "127.0.0.1")
    assert local["ports"]["min"] <= int(example["local"].partition(":")[2]) <= local["ports"]["max"]
    assert f"{error['count']} {kind}".encode() in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("arguments", [[], ["--mode", "churn"]], ids=["message", "churn"])
@pytest.mark.parametrize("fault", [closing, silent])
def test_open_loop_accounts_for_every_message(fault: Behaviour, arguments: list[str]) -> None:
    """Whatever the server does, each due message came back, is lost, or was not sent, also between connections."""
    after = 0 if arguments else 3
    clients = itertools.count()

    def behave(connection: socket.socket, over: threading.Event) -> None:
        if connection.recv(1, socket.MSG_PEEK):  # the first connection of a load sends nothing
            (faulty(fault, after) if next(clients) % 3 == 1 else faithful())(connection, over)

    patience = "1" if fault is silent else str(DEADLINE)
    with serving_all(behave) as port:
        total = result(load(port, "--json", "--duration", "0.1", "--rate", "400", "--timeout", patience, *arguments))
    assert total["messages"] + total["lost"] + total["unsent"] == 40
    assert min(total["messages"], total["lost"]) > 0


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (changing(lambda data: bytes([data[0] ^ 1]) + data[1:]), {"mismatch"}),
        # A server that closes with unread bytes resets the connection, sooner or later.
        (closing, {"shortfall", "broken"}),
        (resetting, {"broken"}),
        # An echo that is still missing at the end of the load is late: the load waits for only one time-out.
        (silent, {"silence", "late"}),
    ],
    ids=["flips", "closes", "resets", "silent"],
)
def test_faulty_server_of_a_stream(fault: Behaviour, kinds: set[str]) -> None:
    """Each fault is also found in a stream."""
    patience = "0.1" if fault is silent else str(DEADLINE)
    with serving_all(faulty(fault)) as port:
        done = load(port, "--json", "--timeout", patience, "--mode", "stream")
    total = result(done)
    found = {error["kind"] for error in total["errors"]}
    assert (done.returncode, bool(found), found - kinds) == (1, True, set())
    assert total["sent"] > total["received"]


def test_server_that_speaks_first() -> None:
    """Bytes received before anything was sent are surplus or, after that, wrong."""
    with serving_all(greeting) as port:
        done = load(port, "--json")
    assert done.returncode == 1
    assert {error["kind"] for error in result(done)["errors"]} <= {"surplus", "mismatch"}


def test_server_that_never_ends_a_connection() -> None:
    """If a server never closes, no message is lost, and a silence is counted for each connection."""
    # With only one message, nothing is outstanding at the end, which could be late instead of silent.
    words = ["--timeout", "1", "--rate", "0.001"]
    with serving_all(endless) as port, loading(port, *words, until=lambda interval: interval["messages"]) as process:
        total, _ = interrupted(process)
    assert (process.returncode, total["messages"], total["lost"], total["sent"] - total["received"]) == (1, 1, 0, 0)
    assert total["errors"] == [{"kind": "silence", "reason": None, "count": 2}]


def test_bytes_of_another_connection() -> None:
    """A server that returns each message on the other connection is detected, although all bytes come back."""
    pair: list[socket.socket] = []
    both = threading.Event()

    def cross(connection: socket.socket, over: threading.Event) -> None:
        if not connection.recv(1, socket.MSG_PEEK):  # the first connection of the load
            return
        pair.append(connection)
        if len(pair) == 2:
            both.set()
        assert both.wait(DEADLINE)
        while data := connection.recv(65536):
            pair[connection is pair[0]].sendall(data)

    with serving_all(cross) as port:
        done = load(port, "--json", "--size", "1000")
    assert done.returncode == 1
    assert {error["kind"] for error in result(done)["errors"]} == {"mismatch"}


def test_nobody_listens_any_more() -> None:
    """A server that disappears is counted as refusing; its earlier echoes still count."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            listener.accept()[0].close()  # the first connection of the load
            connection = listener.accept()[0]
            listener.close()
            with connection:
                faulty(closing)(connection, threading.Event())

        thread = threading.Thread(target=serve)
        thread.start()
        with loading(listener.getsockname()[1], "--connections", "1") as process:
            wait_for(process, lambda interval: any(error["kind"] == "connect" for error in interval["errors"]))
            total, _ = interrupted(process)
        thread.join(DEADLINE)
    assert (process.returncode, total["messages"]) == (1, 3)
    assert [(error["kind"], error["reason"]) for error in total["errors"]] == [
        ("shortfall", None),
        ("connect", "Connection refused"),
    ]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_full_queue(family: socket.AddressFamily, tmp_path: Path) -> None:
    """Connections to a full accept queue are given up and counted."""
    with socket.socket(family) as listener:
        listener.bind(f"{tmp_path}/echo" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen(0)  # room for one: the first connection of the load
        name = listener.getsockname()
        target = f"unix:{name}" if family == socket.AF_UNIX else f"127.0.0.1:{name[1]}"
        words = [*COMMAND, target, "--duration", "0.05", "--connections", "2", "--connect-timeout", "0.05", "--json"]
        done = subprocess.run(words, capture_output=True, timeout=60)
    total = result(done)
    ((kind, reason),) = {(error["kind"], error["reason"]) for error in total["errors"]}
    assert (done.returncode, kind, reason, total["sent"]) == (1, "connect", "timed out", 0)


def test_no_port_is_left() -> None:
    """A lack of local ports is reported as such."""
    prefix = own_network("echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range")
    with Daemon("--host", "127.0.0.1", prefix=prefix) as daemon, inside(daemon.pid):
        done = load(daemon.port, "--json", "--connections", "8")
    errors = {(error["kind"], error["reason"]) for error in result(done)["errors"]}
    assert errors == {("connect", "no local port is left (Cannot assign requested address)")}
    assert done.returncode == 1


def test_nobody_listens() -> None:
    """If no connection is possible, the load prints one sentence, also in its result, and exits with 2."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = load(port)
        as_json = load(port, "--json")
    sentence = f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", f"echoc: {sentence}\n".encode())
    assert (as_json.returncode, as_json.stderr) == (2, done.stderr)
    assert (result(as_json)["ok"], result(as_json)["error"]["message"]) == (False, sentence)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mode", "stream"],
        ["--mode", "churn"],
        ["--mode", "churn", "--rate", "100"],
        ["--rate", "100"],
        ["--size", "1M"],
    ],
    ids=" ".join,
)
def test_identical(arguments: list[str]) -> None:
    """In every mode every byte comes back and is compared."""
    with serving_all(faithful()) as port:
        total = result(load(port, "--json", *arguments))
    assert (total["ok"], total["lost"], total["errors"]) == (True, 0, [])
    assert total["sent"] == total["received"] > 0
    if "--rate" in arguments:
        assert total["messages"] == int(total["rate"] * 0.05)
    if "churn" in arguments:
        assert total["messages"] == total["connections_made"]


@pytest.mark.parametrize(
    ("rate", "arguments"),
    [(1000, ["--processes", "3", "--connections", "7"]), (2_000_000, ["--size", "1"])],
    ids=["shared", "too much"],
)
def test_rate(rate: int, arguments: list[str]) -> None:
    """All due messages are sent, however they are shared, or counted as unsent if there were too many."""
    with serving_all(faithful()) as port:
        total = result(load(port, "--json", "--rate", str(rate), *arguments))
    assert (total["messages"] + total["unsent"], total["rate"]) == (rate // 20, rate)
    assert (total["lost"], total["outstanding"], total["ok"]) == (0, 0, not total["unsent"])
    assert rate > 1000 or not total["unsent"]


def test_unix_socket(tmp_path: Path) -> None:
    """A unix socket can be loaded; a temporarily full accept queue is not an error."""
    with Daemon("--host", f"unix:{tmp_path}/echo") as daemon:
        words = [*COMMAND, daemon.addresses[0], "--duration", "0.05", "--connections", "300", "--json"]
        done = subprocess.run(words, capture_output=True, timeout=60)
    total = result(done)
    assert (done.returncode, total["connections_made"], total["errors"]) == (0, 300, [])


def test_the_latency_is_the_servers() -> None:
    """The p50 is the time that a server waits before each echo, by the server's clock."""
    waits: list[float] = []
    turns: list[float] = []
    began = time.monotonic()

    def delaying(connection: socket.socket, over: threading.Event) -> None:
        returning, came = [began], []
        while data := connection.recv(65536):
            came.append(time.monotonic())
            over.wait(0.01)
            returning.append(time.monotonic())
            connection.sendall(data)
        came.append(time.monotonic())
        # Whichever process is delayed, a message was outstanding for at least the time from its arrival to its return,
        # and at most for the time from the return of the previous one to the arrival of the next.
        waits.extend(then - now for now, then in zip(came, returning[1:], strict=False))
        turns.extend(then - now for now, then in zip(returning, came[1:], strict=False))

    with serving_all(delaying) as port:
        p50 = result(load(port, "--json", "--connections", "1", "--duration", "0.25"))["latency"]["p50"]
    assert statistics.median_low(waits) * 0.95 <= p50 <= statistics.median_high(turns) * 1.05


def test_a_stall_does_not_hide() -> None:
    """In an open loop the latencies include the whole wait of all messages due during a stall."""
    stalls = []

    def stalling(connection: socket.socket, over: threading.Event) -> None:
        count = 0
        while data := connection.recv(64):
            count += 1
            if count == 10:
                began = time.monotonic()
                over.wait(0.15)
                stalls.append(time.monotonic() - began)
            connection.sendall(data)

    with serving_all(stalling) as port:
        total = result(load(port, "--json", "--connections", "1", "--duration", "0.3", "--rate", "200"))
    assert (total["ok"], total["messages"]) == (True, 60)
    assert total["latency"]["max"] >= stalls[0]
    # 30 of the 60 were due in those 0.15 s, one every 5 ms: the last of them hardly had to wait.
    assert total["latency"]["p90"] >= 0.15 - 0.005 * 60 * 0.1 - 0.005


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_early(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a load with the result so far, after the outstanding messages have come back."""
    with serving_all(faithful()) as port, loading(port, "--processes", "2") as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE)
    total = validated(output)[-1]
    assert (process.returncode, errors, total["kind"], total["ok"]) == (0, b"", "load", True)
    assert total["seconds"] < 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_wait_ended_early(number: signal.Signals) -> None:
    """The second signal ends the wait for a mute server, with a result that counts the echoes as outstanding."""
    with serving_all(faulty(silent)) as port, loading(port, "--drain", "60") as process:
        process.send_signal(number)
        # The interval that the signal has cut short shows that it was handled.
        wait_for(process, lambda interval: interval["seconds"] < 0.0499)
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE)
    total = validated(output)[-1]
    assert (process.returncode, total["ok"], total["outstanding"], total["lost"]) == (1, False, 2, 0)
    assert total["errors"] == []
    assert errors.endswith(b"not everything came back as it was sent: 2 outstanding\n")


@pytest.mark.parametrize("drain", ["0", "50ms"])
def test_bounded_wait(drain: str) -> None:
    """The wait for outstanding echoes lasts no longer than --drain."""
    with serving_all(faulty(silent)) as port:
        total = result(load(port, "--json", "--drain", drain, "--rate", "200"))
    # The mute server got one message more than it returned, and later ones.
    assert (total["messages"], total["outstanding"], total["unsent"], total["ok"]) == (6, 4, 0, False)


def test_no_wait_for_the_close() -> None:
    """A server that has returned everything, and not yet closed its side, is not an error without a wait."""
    with serving_all(endless) as port:
        done = load(port, "--json", "--drain", "0", "--mode", "message", "--rate", "40")
    assert (done.returncode, result(done)["messages"], result(done)["errors"]) == (0, 2, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_connecting(number: signal.Signals) -> None:
    """A signal before there is a connection ends the load with a sentence, also in its result, and with 2."""
    with deaf() as port, terminal() as (screen, program):
        words = [*COMMAND, "127.0.0.1", str(port), "--json"]
        with subprocess.Popen(words, stdin=program, stdout=subprocess.PIPE, stderr=program) as process:
            seen(screen, 1)  # what is being tried, after a second
            process.send_signal(number)
            output, _ = process.communicate(timeout=DEADLINE)
    (total,) = validated(output)
    assert (process.returncode, total["ok"]) == (2, False)
    assert total["error"]["message"] == "interrupted before there was a connection, so nothing was tested"


@pytest.mark.parametrize("arguments", [[], ["--mode", "churn"], ["--rate", "1000"]], ids=["closed", "churn", "open"])
def test_count(arguments: list[str]) -> None:
    """--count ends the load after exactly that number of messages, however they are shared."""
    words = ["--count", "31", "--connections", "3", "--processes", "2", "--duration", "60", *arguments]
    with serving_all(faithful()) as port:
        total = result(load(port, "--json", *words))
    assert (total["ok"], total["messages"], total["unsent"], total["count"]) == (True, 31, 0, 31)
    assert 0 < total["seconds"] < 60


def test_warmup() -> None:
    """The times of messages that began during the warm-up are not recorded, but the messages count."""

    def delaying(connection: socket.socket, over: threading.Event) -> None:
        if data := connection.recv(65536):
            over.wait(0.15)
            connection.sendall(data)
            faithful()(connection, over)

    words = ["--connections", "1", "--warmup", "0.1", "--duration", "0.2"]
    with serving_all(delaying) as port:
        total = result(load(port, "--json", *words))
    assert (total["ok"], total["seconds"], total["warmup"]) == (True, 0.2, 0.1)
    assert sum(row["count"] for row in total["histogram"]) == total["messages"] - 1 > 0
    assert total["messages_per_second"] <= total["messages"] / 0.2


def test_percentiles() -> None:
    """The percentiles of --percentiles are reported, and no others."""
    with serving_all(faithful()) as port:
        total = result(load(port, "--json", "--percentiles", "75,99.99"))
        lines = load(port, "--percentiles", "75,99.99").stdout.splitlines()
    assert [name for name in total["latency"] if name.startswith("p")] == ["p75", "p99_99"]
    assert [line.split()[0] for line in lines if re.match(rb"p\d|max", line)] == [b"p75", b"p99.99", b"max"]


@pytest.mark.parametrize("arguments", [[], ["--rate", "500"]], ids=["closed", "open"])
def test_stopped(arguments: list[str]) -> None:
    """The time for which echoc was stopped is reported as echoc's own, and an open loop was that late."""
    with serving_all(faithful()) as port, loading(port, *arguments) as process:
        (child,) = children(process.pid)
        os.kill(child, signal.SIGSTOP)
        assert not threading.Event().wait(0.3)
        os.kill(child, signal.SIGCONT)
        wait_for(process, lambda interval: interval["seconds"] <= 0.051)
        total, _ = interrupted(process)
    assert (process.returncode, total["ok"]) == (0, True)
    assert total["stopped"] >= 0.2
    assert total["warnings"][0].startswith("echoc itself was stopped, or had no processor, for ")
    assert total["late"] is None if not arguments else total["late"]["max"] >= 0.2


def test_intermediate_result() -> None:
    """Ctrl-\\ prints what is known so far on standard error, and the load continues."""
    with serving_all(faithful()) as port, loading(port, until=lambda interval: interval["messages"]) as process:
        process.send_signal(signal.SIGQUIT)
        assert process.stderr is not None
        line = process.stderr.readline()
        total, errors = interrupted(process)
    assert re.fullmatch(rb"\r\d+\.\d s, \d+ messages?, \d+/s, p50 [\d.]+ [mu]?s, max [\d.]+ [mu]?s\n", line)
    assert (process.returncode, total["ok"], errors) == (0, True, b"")


def children(pid: int) -> list[int]:
    """The processes of a load."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")])
def test_a_process_dies(number: int, name: str) -> None:
    """A killed process is reported, the others continue to the end, and the exit code is 1."""
    with serving_all(faithful()) as port, loading(port, "--processes", "2") as process:
        victim = children(process.pid)[0]
        os.kill(victim, number)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
    total = validated(output)[-1]
    assert (process.returncode, total["ok"], total["lost"]) == (1, False, 0)
    sentence = f"load process {victim} was killed by {name}; its results since its last report are lost"
    assert (total["deaths"], errors) == ([sentence], f"echoc: {sentence}\n".encode())


def test_the_parent_dies() -> None:
    """When the parent is killed, its processes exit."""
    with serving_all(faithful()) as port, loading(port, "--processes", "2") as process:
        pidfds = [os.pidfd_open(pid) for pid in children(process.pid)]
        process.kill()
        try:
            assert len(pidfds) == 2
            for pidfd in pidfds:
                assert select.select([pidfd], [], [], DEADLINE)[0]
        finally:
            for pidfd in pidfds:
                os.close(pidfd)


def test_head() -> None:
    """`echoc load --json | head -1` prints nothing more, and exits with 141."""
    with serving_all(faithful()) as port, loading(port) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_progress() -> None:
    """On a terminal one line shows the progress; it fits the width, and is erased at the end."""
    with serving_all(faithful()) as port, terminal() as (screen, program):
        words = [*COMMAND, "127.0.0.1", str(port), "--duration", "60", "--connections", "2", "--interval", "0.1"]
        with subprocess.Popen(words, stdin=program, stdout=subprocess.DEVNULL, stderr=program) as process:
            try:
                shown = b""
                while b", p50 " not in shown:  # in the first interval there may be no echo
                    shown += seen(screen, 1)
                process.send_signal(signal.SIGINT)
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()
        while select.select([screen], [], [], 0)[0]:
            shown += os.read(screen, 1000)
    lines = shown.partition(b"echoc: warning")[0].split(b"\r")  # a busy machine is the limit
    assert lines[1].startswith(b"0.1 s, ")
    full = rb"\d+\.\d s, \d+ messages/s, [\d.]+ MB/s, p50 [\d.]+ [mu]?s, max [\d.]+ [mu]?s *\x08*"
    assert any(re.fullmatch(full, line) for line in lines)
    assert all(len(line.rstrip(b"\b")) < 80 for line in lines)
    assert (lines[-2].strip(b" "), lines[-1]) == (b"", b"")


@pytest.mark.parametrize("columns", [60, 120])
def test_waiting_line(columns: int) -> None:
    """On a terminal the line says what the load waits for, no text is wider, and the end leaves none of it."""
    with serving_all(faulty(silent)) as port, terminal() as (screen, program):
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        words = [*COMMAND, "127.0.0.1", str(port), "--duration", "0.05", "--connections", "2", "--drain", "60"]
        with subprocess.Popen(words, stdin=program, stdout=subprocess.DEVNULL, stderr=program) as process:
            try:
                shown = b""
                while b"waiting for 2 echoes, Ctrl-C to stop waiting" not in shown:
                    shown += seen(screen, 1)
                process.send_signal(signal.SIGINT)
                assert process.wait(DEADLINE) == 1
            finally:
                process.kill()
        while select.select([screen], [], [], 0)[0]:
            shown += os.read(screen, 1000)
    status, erased, result = shown.partition(b"\r" + b" " * 10)
    assert all(len(line.rstrip(b"\b")) < columns for line in status.split(b"\r"))
    assert erased
    assert result.lstrip(b" ").startswith(b"\rechoc: for example, ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "17M"], "argument -s/--size: '17M' is not a size; give bytes, from 1 to 16M, as in 64 or 64K"),
        (["--rate", "nan"], "argument --rate: 'nan' is not a rate; give messages per second, from 0.001 to 10000000"),
        (["--interval", "1e-9"], "argument -i/--interval: '1e-9' is too short; give at least 10ms"),
        (
            ["--count", "3", "--warmup", "1s"],
            "--count cannot be combined with --warmup; give one of them",
        ),
        (
            ["--count", "3", "--mode", "stream"],
            "--count cannot be combined with --mode stream, which has no messages",
        ),
        (
            ["--percentiles", "50,101"],
            (
                "argument --percentiles: '50,101' is not a list of percentiles; give up to 20 numbers, more than 0 and "
                "at most 100, as in 50,99.9"
            ),
        ),
        (["--processes", "3"], "--processes: 3 cannot share 2 connections; give fewer"),
        (
            ["--mode", "stream", "--rate", "1"],
            "--rate cannot be combined with --mode stream, which is as fast as possible",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(arguments: list[str], sentence: str) -> None:
    """Invalid usage is reported in one sentence that says what is valid."""
    done = load(1, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().removesuffix(" (see echoc load --help)\n").rstrip() == f"echoc: {sentence}"


def test_descriptors() -> None:
    """The soft limit on descriptors is raised as far as needed; a hard limit that is too low is reported."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))

    with Daemon() as daemon:
        done = load(daemon.port, "--connections", "150", preexec_fn=limit)
        assert done.returncode == 0
        done = load(daemon.port, "--connections", "1000", preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr == (
        b"echoc: --connections: 1000 need 1033 descriptors in a process, and the limit (ulimit -Hn) is 200; give "
        b"fewer, or more --processes\n"
    )


def test_lossy_path() -> None:
    """If packets are dropped no message is lost, and the slowest shows a retransmission (RFC 6298)."""
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    rules = (
        "add table inet lossy; add chain inet lossy in { type filter hook input priority 0; }; "
        "add rule inet lossy in tcp flags & syn == 0 numgen random mod 100 < 5 drop"
    )
    prefix = own_network(f"nft '{rules}'")
    # With nothing else outstanding, only TCP's time-out repairs a loss: at least 200 ms in Linux.
    with (
        Daemon(prefix=prefix) as daemon,
        inside(daemon.pid),
        loading(
            daemon.port, until=lambda interval: interval["messages"] and interval["latency"]["max"] >= 0.2
        ) as process,
    ):
        total, errors = interrupted(process)
    assert (process.returncode, total["lost"], total["errors"], errors) == (0, 0, [], b"")


def test_narrow_path() -> None:
    """The throughput is at most the path's rate, and not much less."""
    if not shutil.which("tc"):
        pytest.skip("tc is not installed")
    rate, burst = 10e6 / 8, 64 * 1024  # bytes per second, and the most that may pass at once
    prefix = own_network(
        "ip link set lo mtu 1500", f"tc qdisc add dev lo root tbf rate 10mbit burst {burst} latency 50ms"
    )
    with Daemon(prefix=prefix) as daemon, inside(daemon.pid):
        began = time.monotonic()
        # Both directions use the same device.  An interval may be reported late, but never before its end.
        with loading(
            daemon.port, "--size", "16K", until=lambda interval: 2 * interval["bytes_per_second"] >= 0.3 * rate
        ) as process:
            wait_for(process, lambda interval: interval["began"] >= 0.5)
            total, _ = interrupted(process)
        took = time.monotonic() - began
    assert (process.returncode, total["sent"] - total["received"]) == (0, 0)
    assert 2 * total["received"] <= rate * took + burst


def test_source_ports_are_all_for_the_load() -> None:
    """The connection that finds the address has a port of its own, since its port is in TIME_WAIT afterwards."""
    ports: list[int] = []

    def note(connection: socket.socket, over: threading.Event) -> None:
        ports.append(connection.getpeername()[1])
        faithful()(connection, over)

    with serving_all(note) as port:
        done = load(port, "--source-port", "20000-20999", "--json")
    assert done.returncode == 0
    first, *others = sorted(ports, key=lambda number: number in range(20000, 21000))
    assert first not in range(20000, 21000)
    assert len(others) == 2
    assert set(others) <= set(range(20000, 21000))


def test_verbose() -> None:
    """-v prints each address before it is tried, and the result."""
    with serving_all(faithful()) as port:
        done = load(port, "-v", "-s", "1K", "-i", "50ms")
    trying = f"trying 127.0.0.1:{port}\n127.0.0.1:{port}: connected after "
    assert (done.returncode, done.stderr.startswith(trying.encode())) == (0, True)
