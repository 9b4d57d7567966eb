"""echod.client.cli, in this process."""

import os
import resource
import signal
import socket
import threading

import pytest

from echod import __version__
from echod.client.cli import VERBS, main, make_parser
from tests.unit.client.peers import faithful, receive_exactly, serving, standing_in

Capture = pytest.CaptureFixture[bytes]


def test_verb() -> None:
    """The first word may be a verb, and then is no host; each has its own parser."""
    for verb in VERBS:
        assert make_parser(verb).prog == f"echoc {verb}"
    assert make_parser().prog == "echoc"


def test_without_a_verb(capfdbinary: Capture) -> None:
    """It is "send"."""
    with serving(faithful()) as port:
        assert main(["send", "127.0.0.1", str(port), "-m", "hi"]) == 0
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-m", "hi"]) == 0
    assert capfdbinary.readouterr().out == b"hihi"


def test_verb_that_is_not_first(capfdbinary: Capture) -> None:
    """A verb after options would be taken for a host: that is told, and how a host of that name is reached."""
    assert main(["-4", "ping", "7"]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        (b"echoc: 'ping' must be the first argument: echoc ping HOST; to reach a host of that name: echoc send ping\n"),
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a", "7", "c"], "unrecognized arguments: c"),
        (["--timeout", "soon"], "argument --timeout: 'soon' is not a valid time"),
        (["-m", "text", "-f", "file"], "argument -f/--file: not allowed with argument -m/--message"),
        (["-4", "-6"], "argument -6: not allowed with argument -4"),
        (["--time", "5"], "unrecognized arguments: --time"),
        (["-m"], "argument -m/--message: expected one argument"),
    ],
)
def test_usage(argv: list[str], words: str, capfdbinary: Capture) -> None:
    """A command line that can't be meant is told in one sentence, with where to read on, and ends with 2."""
    assert main(argv) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert words.encode() in err
    assert err.startswith(b"echoc: ")
    assert err.endswith(b" (see echoc --help)\n")
    assert err.count(b"\n") == 1


def test_usage_of_a_verb(capfdbinary: Capture) -> None:
    """It leads to the --help of that verb."""
    assert main(["send", "--nonsense"]) == 2
    assert capfdbinary.readouterr().err == b"echoc: unrecognized arguments: --nonsense (see echoc send --help)\n"


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
        b"echoc sends what is piped or redirected into it",
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
    assert capfdbinary.readouterr().err == b"echoc: cannot connect to unix:/run/echod: Too many open files\n"
