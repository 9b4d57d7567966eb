"""echod.client.cli, in this process."""

import os
import resource
import signal
import socket
import threading
from pathlib import Path

import pytest

from echod import __version__
from echod.client.cli import SENTENCE, main, parse_arguments
from tests.unit.client.peers import (
    altering,
    faithful,
    greeting,
    receive_exactly,
    serving,
    serving_unix,
    silent,
    standing_in,
    stepping,
)

Capture = pytest.CaptureFixture[bytes]


def test_sentence(capfdbinary: Capture) -> None:
    """Without more, the tutorial's sentence is sent, and its echo alone is printed."""
    assert SENTENCE == "This is the message.  It will be repeated."
    with serving(faithful()) as port:
        assert main(["localhost", str(port)]) == 0
    assert capfdbinary.readouterr() == (SENTENCE.encode(), b"")


def test_defaults() -> None:
    """It is localhost, port 10000, and ten seconds of patience."""
    options = parse_arguments([])
    assert (options.host, options.port, options.timeout) == ("localhost", 10000, 10.0)


def test_message(capfdbinary: Capture) -> None:
    """-m sends the bytes of its argument, also when they are no text."""
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-m", "caf\xe9 \udcff"]) == 0
    assert capfdbinary.readouterr().out == b"caf\xc3\xa9 \xff"


def test_file(tmp_path: Path, capfdbinary: Capture) -> None:
    """-f sends a file."""
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-f", str(tmp_path / "file")]) == 0
    assert capfdbinary.readouterr().out == data


def test_standard_input(capfdbinary: Capture) -> None:
    """`-f -` sends standard input."""
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    with serving(faithful()) as port, standing_in(0, reading):
        os.close(reading)
        assert main(["127.0.0.1", str(port), "-f", "-"]) == 0
    assert capfdbinary.readouterr().out == b"from a pipe"


def test_what_is_piped_in_is_sent(capfdbinary: Capture) -> None:
    """`echo hello | echoc` sends what it was given, without a word more."""
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    os.close(writing)
    with serving(faithful()) as port, standing_in(0, reading):
        os.close(reading)
        assert main(["127.0.0.1", str(port)]) == 0
    assert capfdbinary.readouterr().out == b"hello"


def test_a_file_that_is_redirected_is_sent(tmp_path: Path, capfdbinary: Capture) -> None:
    """`echoc <file` sends the file."""
    (tmp_path / "file").write_bytes(b"from a file")
    with serving(faithful()) as port, (tmp_path / "file").open("rb") as file, standing_in(0, file.fileno()):
        assert main(["127.0.0.1", str(port)]) == 0
    assert capfdbinary.readouterr().out == b"from a file"


def test_a_message_leaves_standard_input_alone(capfdbinary: Capture) -> None:
    """With -m, as a loop over a list of hosts needs it, a standard input that holds something is not eaten."""
    reading, writing = os.pipe()
    os.write(writing, b"the next host")
    with serving(faithful()) as port, standing_in(0, reading):
        assert main(["127.0.0.1", str(port), "-m", "hi"]) == 0
    assert capfdbinary.readouterr().out == b"hi"
    assert os.read(reading, 100) == b"the next host"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("options", [["-f", "/dev/null"], ["-m", ""]])
def test_empty_input(options: list[str], capfdbinary: Capture) -> None:
    """To have sent nothing proves nothing, and does not pass for an identical echo."""
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), *options]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        b"echoc: the input was empty: nothing was sent, so nothing was tested; give -m TEXT\n",
    )


def test_unix(tmp_path: Path, capfdbinary: Capture) -> None:
    """A unix socket is a HOST that needs no PORT."""
    with serving_unix(faithful(), str(tmp_path / "echo")):
        assert main([f"unix:{tmp_path}/echo"]) == 0
    assert capfdbinary.readouterr().out == SENTENCE.encode()


def test_verbose(capfdbinary: Capture) -> None:
    """-v tells on standard error what the tutorial's client prints, and leaves standard output alone."""
    printed, output = os.pipe()
    with serving(stepping(16, printed)) as port, standing_in(1, output):
        assert main(["127.0.0.1", str(port), "-v"]) == 0
    os.close(output)
    assert os.read(printed, 1) == b""
    os.close(printed)
    lines = capfdbinary.readouterr().err.decode().splitlines()
    assert lines[3].startswith("Local   : 127.0.0.1:")
    assert [*lines[:3], *lines[4:]] == [
        "Family  : AF_INET",
        "Type    : SOCK_STREAM",
        "Protocol: IPPROTO_TCP",
        f"Remote  : 127.0.0.1:{port}",
        "",
        'sending "This is the message.  It will be repeated."',
        'received "This is the mess"',
        'received "age.  It will be"',
        'received " repeated."',
        "closing socket",
    ]


def test_wrong_echo(capfdbinary: Capture) -> None:
    """A wrong echo is printed as it came, told in one sentence, and ends with 1."""
    with serving(altering(lambda data: data.replace(b"message", b"massage"))) as port:
        assert main(["127.0.0.1", str(port)]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b"This is the massage.  It will be repeated."
    assert err == (
        b"echoc: the echo is wrong at byte 13 (counted from 0): sent 0x65, received 0x61; "
        b'from there on sent "essage.  It will be repeated.", received "assage.  It will be repeated."; '
        b"only that byte was changed\n"
    )


def test_silent_server(capfdbinary: Capture) -> None:
    """--timeout bounds the wait for the echo."""
    with serving(silent) as port:
        assert main(["127.0.0.1", str(port), "--timeout", "0.1"]) == 1
    assert capfdbinary.readouterr().err == (
        b"echoc: the server was silent for 0.1 s: 0 of 42 bytes sent came back, 42 missing\n"
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a", "7", "c"], "unrecognized arguments: c"),
        (["localhost", "0"], "argument PORT: '0' is not a port: want a number from 1 to 65535"),
        (["localhost", "65536"], "argument PORT: '65536' is not a port"),
        (["localhost", "echo"], "argument PORT: 'echo' is not a port"),
        (["localhost", "\uff17"], "argument PORT: '\uff17' is not a port"),
        (["localhost", "9" * 5000], "is not a port"),
        ([""], "argument HOST: '' is no host: want a name, an address, unix:/path or unix:@name"),
        (["unix:"], "argument HOST: 'unix:' is no host"),
        (["unix:@"], "argument HOST: 'unix:@' is no host"),
        (["unix:/run/echod", "7"], "'unix:/run/echod' is a unix socket and has no port"),
        (["--timeout", "0"], "argument --timeout: '0' is not a time: want seconds, more than 0 and at most 86400"),
        (["--timeout", "nan"], "argument --timeout: 'nan' is not a time"),
        (["--timeout", "inf"], "argument --timeout: 'inf' is not a time"),
        (["--timeout", "soon"], "argument --timeout: 'soon' is not a time"),
        (["-m", "text", "-f", "file"], "argument -f/--file: not allowed with argument -m/--message"),
        (["--time", "5"], "unrecognized arguments: --time"),
        (["-m"], "argument -m/--message: expected one argument"),
    ],
)
def test_usage(argv: list[str], words: str, capfdbinary: Capture) -> None:
    """A command line that can't be meant is told in one sentence, and ends with 2."""
    assert main(argv) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert words.encode() in err
    assert err.startswith(b"echoc: ")
    assert err.endswith(b" (see echoc --help)\n")
    assert err.count(b"\n") == 1


def test_unreadable_file(tmp_path: Path, capfdbinary: Capture) -> None:
    """A file that can't be opened is told before anything is connected."""
    assert main(["127.0.0.1", "1", "-f", f"{tmp_path}/missing"]) == 2
    assert capfdbinary.readouterr().err == (
        f"echoc: cannot read '{tmp_path}/missing': No such file or directory\n".encode()
    )


def test_no_connection(capfdbinary: Capture) -> None:
    """No connection is told in one sentence, and ends with 2."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert main(["127.0.0.1", str(port)]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        f"echoc: cannot connect to '127.0.0.1' port {port}: Connection refused\n".encode(),
    )


def test_version(capfdbinary: Capture) -> None:
    """--version tells the version."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capfdbinary.readouterr() == (f"echoc {__version__}\n".encode(), b"")


def test_help(capfdbinary: Capture) -> None:
    """--help tells the defaults, where standard input stands, and what the exit codes mean."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = b" ".join(capfdbinary.readouterr().out.split())
    for part in (
        b"localhost",
        b"10000",
        b"what is piped into echoc or redirected to it is sent",
        b"Exit codes: 0 the echo",
    ):
        assert part in text


@pytest.mark.parametrize("argv", [["127.0.0.1", "{port}"], ["--help"], ["--version"]])
def test_reader_has_gone(argv: list[str], capfdbinary: Capture) -> None:
    """`| head` ends echoc quietly, with the code that a shell gives to SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    with serving(faithful()) as port, standing_in(1, writing):
        os.close(writing)
        assert main([word.format(port=port) for word in argv]) == 141
    assert capfdbinary.readouterr().err == b""


def test_unwritable_output(capfdbinary: Capture) -> None:
    """An echo that can't be printed is not called identical."""
    full = os.open("/dev/full", os.O_WRONLY)
    with serving(faithful()) as port, standing_in(1, full):
        os.close(full)
        assert main(["127.0.0.1", str(port)]) == 2
    assert capfdbinary.readouterr().err == b"echoc: cannot write to standard output: No space left on device\n"


def test_interrupt(capfdbinary: Capture) -> None:
    """Ctrl-C ends echoc quietly, with the code that a shell gives to SIGINT."""

    def interrupt(connection: socket.socket, over: threading.Event) -> None:
        receive_exactly(connection, 1)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait()

    with serving(interrupt) as port:
        assert main(["127.0.0.1", str(port)]) == 130
    assert capfdbinary.readouterr() == (b"", b"")


def test_out_of_descriptors(capfdbinary: Capture) -> None:
    """What the system refuses, wherever it does, is a sentence and no traceback."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        code = main(["unix:/run/echod"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 2
    assert capfdbinary.readouterr().err == b"echoc: Too many open files\n"


def test_greeting_is_told_safely(capfdbinary: Capture) -> None:
    """What a server sends reaches standard error with its control characters escaped."""
    with serving(greeting) as port:
        assert main(["127.0.0.1", str(port), "-v"]) == 1
    assert b"\\r\\n" in capfdbinary.readouterr().err
