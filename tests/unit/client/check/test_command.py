"""echod.client.check.command, in this process."""

import _thread
import errno
import re
import resource
import socket
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from echod import __version__
from echod.client.check import command as verb
from echod.client.cli import main
from echod.client.exchange import exchange
from tests.unit.client.clock import Clock
from tests.unit.client.peers import (
    Behaviour,
    altering,
    deaf,
    endless,
    faithful,
    greeting,
    receive_all,
    resetting,
    returning,
    serving,
    serving_unix,
    silent,
    standing_in,
    stuck_resolver,
)
from tests.unit.client.schema import validated

Capture = pytest.CaptureFixture[bytes]

TCP_DATA = r"rtt=\d+\.\d{6}s;;;0 retransmits=\d+;;;0"
DATA = r"time=\d+\.\d{6}s;;;0;10 connect=\d+\.\d{6}s;;;0;10 size=64B;;;0 " + TCP_DATA
LOCAL = r"local 127\.0\.0\.1:\d+"
FLIPPED = (
    r"the echo is wrong at byte 9 \(counted from 0\): sent 0x[0-9a-f]{2}, received 0x[0-9a-f]{2}; from there on sent "
    r'"[^|\n]*", received "[^|\n]*"'
)


def flip(data: bytes) -> bytes:
    """The data with a changed byte at offset 9."""
    return data[:9] + bytes([data[9] ^ 0xFF]) + data[10:]


def trickling(connection: socket.socket, over: threading.Event) -> None:
    """Return one byte every 0.1 s."""
    message = receive_all(connection)
    for number in range(len(message)):
        connection.sendall(message[number : number + 1])
        over.wait(0.1)


def check(capture: Capture, *words: object) -> tuple[int, str]:
    """The exit code and the only line of `echoc check`, which prints nothing on standard error."""
    try:
        code: int = main(["check", *map(str, words)])
    except SystemExit as exit_:  # argparse exits in this way
        code = cast("int", exit_.code)
    out, err = capture.readouterr()
    assert err == b""
    assert out.endswith(b"\n")
    assert out.count(b"\n") == 1
    return code, out.decode().removesuffix("\n")


def test_ok(capfdbinary: Capture) -> None:
    """An identical echo is OK, with its time as text and as performance data."""
    with serving(faithful()) as port:
        code, line = check(capfdbinary, "localhost", port)
    assert code == 0
    words = rf"ECHO OK - 64 bytes back from localhost \(127\.0\.0\.1:{port}, {LOCAL}\) in \d+\.\d{{3}} ms"
    assert re.fullmatch(rf"{words} \| {DATA}", line)


@pytest.mark.parametrize(
    ("words", "code", "status", "range_", "thresholds"),
    [
        (["-w", "60", "-c", "61"], 0, "OK", "", "60;61"),
        (["-w", "0"], 1, "WARNING", ", outside the range of -w 0", "0;"),
        (["-w", "0", "-c", "@0:60"], 2, "CRITICAL", ", inside the range of -c @0:60", "0;@0:60"),
        (["--warning", "60:", "--critical", "60"], 1, "WARNING", ", outside the range of -w 60:", "60:;60"),
        (["-w", "1m:", "-c", "@500ms:1h"], 1, "WARNING", ", outside the range of -w 1m:", "60:;@0.5:3600"),
    ],
)
def test_thresholds(
    words: list[str], code: int, status: str, range_: str, thresholds: str, capfdbinary: Capture
) -> None:
    """-w and -c are compared with the time; the worse status counts, and both ranges are in the performance data."""
    with serving(faithful()) as port:
        done = check(capfdbinary, "127.0.0.1", port, "-t", "62.5", *words)
    assert done[0] == code
    assert re.fullmatch(
        rf"ECHO {status} - 64 bytes back from 127\.0\.0\.1:{port} \({LOCAL}\) in \d+\.\d{{3}} ms{re.escape(range_)} \| "
        rf"time=\d+\.\d{{6}}s;{re.escape(thresholds)};0;62\.5 connect=\d+\.\d{{6}}s;;;0;62\.5 size=64B;;;0 {TCP_DATA}",
        done[1],
    )


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (altering(flip), FLIPPED + "; only that byte was changed"),
        (altering(lambda data: data[:9] + data[10:]), ".*; it looks as if 1 byte had been dropped there"),
        (altering(lambda data: data[:9] + data[8:]), ".*; it looks as if 1 byte had been inserted there"),
        (
            altering(lambda data: data + b"a|b\n"),
            (
                r"the server returned more than was sent: at least 4 bytes too many, from byte 64 on "
                r'\(counted from 0\): "a\\x7cb\\n"'
            ),
        ),
        (
            returning(20),
            (
                r"the server closed the connection too early: 20 of 64 bytes sent came back, 44 missing from byte 20 "
                r"on \(counted from 0\)"
            ),
        ),
        (
            resetting(0),
            (
                r"the connection broke \(Connection reset by peer\): 0 of 64 bytes sent came back, 64 missing from "
                r"byte 0 on \(counted from 0\)"
            ),
        ),
        (greeting, ".*220 ready.*"),
    ],
    ids=["flips", "drops", "repeats", "adds", "stops", "resets", "greets"],
)
def test_faulty_server(behaviour: Behaviour, sentence: str, capfdbinary: Capture) -> None:
    """Each fault is CRITICAL, with its offset and kind; received bytes never look like performance data."""
    with serving(behaviour) as port:
        code, line = check(capfdbinary, "127.0.0.1", port)
    assert code == 2
    assert re.fullmatch(rf"ECHO CRITICAL - 127\.0\.0\.1:{port} \({LOCAL}\): {sentence}", line)
    assert "|" not in line


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (silent, r"the echo was not complete in time: all acknowledged, nothing came back: the server is silent"),
        (
            trickling,
            r"the echo was not complete in time: \d+ of 64 bytes sent came back, \d+ missing from byte \d+ on .*",
        ),
        (endless, r"(the server did not close the connection in time: all 64 bytes sent came back|the echo was .*)"),
    ],
    ids=["silent", "trickles", "endless"],
)
def test_late_server(
    behaviour: Behaviour, sentence: str, capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """-t limits the whole probe, whatever the server does, and a late echo is CRITICAL."""

    def begin(*arguments: Any, **options: Any) -> int:
        clock.run()  # only after connecting, which takes no time in this test
        return exchange(*arguments, **options)

    monkeypatch.setattr(verb, "exchange", begin)
    with serving(behaviour) as port:
        code, line = check(capfdbinary, "127.0.0.1", port, "-t", "0.5")
    assert code == 2
    assert re.fullmatch(rf"ECHO CRITICAL - 127\.0\.0\.1:{port} \({LOCAL}\): {sentence} \(--timeout 0\.5\)", line)


def test_slow_server(capfdbinary: Capture) -> None:
    """A delay of the server is part of the time compared."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        over.wait(0.1)  # the delay that is tested
        faithful()(connection, over)

    with serving(behave) as port:
        code, line = check(capfdbinary, "127.0.0.1", port, "-w", "0.09")
    assert (code, line.split()[1]) == (1, "WARNING")


def test_no_half_close(capfdbinary: Capture) -> None:
    """--no-half-close accepts a server that never closes the connection."""
    with serving(endless) as port:
        assert check(capfdbinary, "127.0.0.1", port, "--no-half-close")[0] == 0


def test_no_server(capfdbinary: Capture, closed_port: int) -> None:
    """A refused connection is CRITICAL, with the reason, and without performance data."""
    assert check(capfdbinary, "127.0.0.1", closed_port) == (
        2,
        f"ECHO CRITICAL - cannot connect to 127.0.0.1:{closed_port}: Connection refused",
    )


def test_server_that_does_not_accept(capfdbinary: Capture, clock: Clock) -> None:
    """-t limits connecting as well."""
    clock.on_look = lambda: clock.leap(0.001)
    with deaf() as port:
        assert check(capfdbinary, "127.0.0.1", port, "-t", "0.1", "--connect-timeout", "3600") == (
            2,
            f"ECHO CRITICAL - cannot connect to 127.0.0.1:{port}: timed out",
        )


@pytest.mark.parametrize(
    ("words", "code"), [([], 2), (["-r", "crit"], 2), (["-r", "warn"], 1), (["--refuse", "ok"], 0)]
)
def test_refused(words: list[str], code: int, capfdbinary: Capture, closed_port: int) -> None:
    """-r sets the status of a refusal, as in check_tcp."""
    sentence = f"cannot connect to 127.0.0.1:{closed_port}: Connection refused"
    status = ("OK", "WARNING", "CRITICAL")[code]
    assert check(capfdbinary, "127.0.0.1", closed_port, *words) == (code, f"ECHO {status} - {sentence}")


def test_not_refused(capfdbinary: Capture, tmp_path: Path) -> None:
    """-r does not change any other failure."""
    assert check(capfdbinary, f"unix:{tmp_path}/none", "-r", "ok")[0] == 2


def test_size(capfdbinary: Capture) -> None:
    """--size is the number of bytes sent."""
    with serving(faithful()) as port:
        code, line = check(capfdbinary, "127.0.0.1", port, "--size", "64K")
    assert code == 0
    assert line.startswith("ECHO OK - 65536 bytes back from ")
    assert " size=65536B;;;0 " in line


def test_name_without_an_address(capfdbinary: Capture) -> None:
    """A name that cannot be resolved is CRITICAL, as in check_tcp: the service cannot be reached by it."""
    assert check(capfdbinary, "a..b", "7", "-r", "ok") == (
        2,
        "ECHO CRITICAL - cannot connect to a..b:7: not a valid host name",
    )


def test_resolver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capfdbinary: Capture) -> None:
    """-t limits resolving as well, which cannot be interrupted."""
    with stuck_resolver(monkeypatch):
        assert check(capfdbinary, "echo.example", "7", "-t", "0.1") == (
            2,
            "ECHO CRITICAL - cannot connect to echo.example:7: the name was not resolved in time",
        )


def test_resolver_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, capfdbinary: Capture) -> None:
    """A limit on this machine's tasks is UNKNOWN."""

    def start(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", start)
    assert check(capfdbinary, "echo.example", "7") == (
        3,
        "ECHO UNKNOWN - cannot start a thread to resolve the name; check the limit on tasks",
    )


def test_own_trouble(capfdbinary: Capture) -> None:
    """A failure of this machine, before it contacts the service, is UNKNOWN."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        code = main(["check", "unix:/run/echod"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == verb.UNKNOWN
    assert capfdbinary.readouterr().out == b"ECHO UNKNOWN - cannot connect to unix:/run/echod: Too many open files\n"


def test_no_local_port(monkeypatch: pytest.MonkeyPatch, capfdbinary: Capture) -> None:
    """So is a lack of local ports, at which connect(2) fails before it sends anything."""

    # The real error needs all of ip_local_port_range in use, which would disturb other tests.
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *arguments: errno.EADDRNOTAVAIL)
    assert check(capfdbinary, "127.0.0.1", "7") == (
        3,
        "ECHO UNKNOWN - cannot connect to 127.0.0.1:7: no local port is left (Cannot assign requested address)",
    )


def test_wrong_source(capfdbinary: Capture) -> None:
    """So is a --source address that this machine does not have."""
    assert check(capfdbinary, "127.0.0.1", "7", "--source", "192.0.2.1") == (
        3,
        (
            "ECHO UNKNOWN - cannot connect to 127.0.0.1:7: cannot use --source 192.0.2.1: "
            "Cannot assign requested address"
        ),
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense (see echoc check --help)"),
        (["-t", "0"], "argument -t/--timeout: '0' is not a valid time; give seconds, or a unit as in 100ms, 2s, "),
        (["-w", "1e3"], "argument -w/--warning: '1e3' is not a range of times; give MAX, "),
        (["localhost", "0"], "PORT: '0' is not a port; give a number from 1 to 65535"),
        (["-p", "0"], "PORT: '0' is not a port; give a number from 1 to 65535"),
        (["-H", "one", "two"], "HOST is given twice, 'two' and 'one'; give it once"),
        (["-p", "7", "one", "8"], "PORT is given twice, '8' and '7'; give it once"),
        (["a|b\n:7:"], "HOST: 'a\\x7cb\\n:7:' is not a host"),
    ],
)
def test_usage(words: list[str], sentence: str, capfdbinary: Capture) -> None:
    """An invalid command line is UNKNOWN, on standard output, which monitoring reads."""
    code, line = check(capfdbinary, *words)
    assert code == 3
    assert line.startswith(f"ECHO UNKNOWN - {sentence}")
    assert "|" not in line


def test_options_of_the_convention(capfdbinary: Capture) -> None:
    """-H and -p name the service, as in every plugin."""
    with serving(faithful()) as port:
        assert check(capfdbinary, "-H", "127.0.0.1", "-p", port)[0] == 0


def test_environment(monkeypatch: pytest.MonkeyPatch, capfdbinary: Capture) -> None:
    """ECHOC_HOST and ECHOC_PORT are the defaults."""
    with serving(faithful()) as port:
        monkeypatch.setenv("ECHOC_HOST", f"127.0.0.1:{port}")
        assert check(capfdbinary)[0] == 0


def test_unix(tmp_path: Path, capfdbinary: Capture) -> None:
    """A unix socket is probed as a TCP port is."""
    with serving_unix(faithful(), f"{tmp_path}/echo"):
        code, line = check(capfdbinary, f"unix:{tmp_path}/echo")
    assert code == 0
    assert line.startswith(f"ECHO OK - 64 bytes back from unix:{tmp_path}/echo in ")


def test_verbose(capfdbinary: Capture) -> None:
    """-v adds lines after the first."""
    with serving(faithful()) as port:
        assert main(["check", "127.0.0.1", str(port), "-v"]) == 0
    first, attempt, *lines = capfdbinary.readouterr().out.decode().splitlines()
    assert first.startswith("ECHO OK - ")
    assert re.fullmatch(rf"127\.0\.0\.1:{port}: connected after \d+\.\d{{3}} ms", attempt)
    assert lines[:3] == ["Family  : AF_INET", "Type    : SOCK_STREAM", "Protocol: IPPROTO_TCP"]
    assert lines[3].startswith("Local   : 127.0.0.1:")
    assert lines[4] == f"Remote  : 127.0.0.1:{port}"
    assert lines[5].startswith("TCP     : rtt ")
    assert not lines[6:]


@pytest.mark.parametrize(("word", "text"), [("-h", "usage: echoc check "), ("-V", f"echoc {__version__}\n")])
def test_nothing_checked(word: str, text: str, capfdbinary: Capture) -> None:
    """--help and --version are UNKNOWN, according to the guidelines, since no service was checked."""
    with pytest.raises(SystemExit) as caught:
        main(["check", word])
    assert caught.value.code == 3
    assert capfdbinary.readouterr().out.decode().startswith(text)


def test_json(capfdbinary: Capture) -> None:
    """--json prints an object in place of the line."""
    with serving(faithful()) as port:
        assert main(["check", "127.0.0.1", str(port), "--json", "-v", "-w", "@0:60"]) == 1
    [reported] = validated(capfdbinary.readouterr().out)
    assert (reported["kind"], reported["status"], reported["error"]) == ("check", "WARNING", None)
    assert (reported["target"], reported["size"], reported["warning"], reported["critical"]) == (
        f"127.0.0.1:{port}",
        64,
        "@0:60",
        None,
    )
    assert reported["message"].endswith("ms, inside the range of -w @0:60")
    assert reported["seconds"] > reported["attempts"][0]["seconds"] > 0
    assert reported["tcp"]["mss"] > 0


def test_json_of_a_wrong_echo(capfdbinary: Capture) -> None:
    """A failure after connecting has the connection, with its local address, and what TCP knows."""
    with serving(returning(20)) as port:
        assert main(["check", "127.0.0.1", str(port), "--json"]) == 2
    [reported] = validated(capfdbinary.readouterr().out)
    assert reported["connection"]["local"] in reported["message"]
    assert reported["tcp"]["mss"] > 0


@pytest.mark.parametrize(
    ("words", "status", "kind"), [(["127.0.0.1:{port}"], "CRITICAL", "connect"), (["a:b"], "UNKNOWN", "untestable")]
)
def test_json_of_a_fault(words: list[str], status: str, kind: str, capfdbinary: Capture, closed_port: int) -> None:
    """Unknown values are null."""
    main(["check", "--json", *(word.format(port=closed_port) for word in words)])
    [reported] = validated(capfdbinary.readouterr().out)
    assert (reported["status"], reported["error"]["kind"], reported["seconds"], reported["connection"]) == (
        status,
        kind,
        None,
        None,
    )


def test_unwritable_output(capfdbinary: Capture) -> None:
    """A failure to print the line is UNKNOWN, and reported on standard error."""
    with open("/dev/full", "wb") as full, serving(faithful()) as port, standing_in(1, full.fileno()):
        assert main(["check", "127.0.0.1", str(port)]) == 3
    assert capfdbinary.readouterr().err == b"echoc: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("words", [["--nonsense"], ["--help"], ["--version"]])
def test_unwritable_output_of_the_command_line(words: list[str], capfdbinary: Capture) -> None:
    """So is a failure to print the message about a command line: CRITICAL would blame the service."""
    with open("/dev/full", "wb") as full, standing_in(1, full.fileno()):
        assert main(["check", *words]) == 3
    assert capfdbinary.readouterr().err == b"echoc: cannot write to standard output: No space left on device\n"
