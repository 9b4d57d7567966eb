"""echod.client.cli, in this process."""

import os
import resource
import signal
import socket
import threading

import pytest

from echod import __version__
from echod.client import connect
from echod.client.cli import VERBS, main, make_parser
from tests.unit.client.peers import (
    DEADLINE,
    faithful,
    receive_exactly,
    seen,
    serving,
    standing_in,
    stuck_resolver,
    terminal,
)

Capture = pytest.CaptureFixture[bytes]


def test_verb() -> None:
    """The first argument may be a verb instead of a host; each verb has its own parser."""
    for verb in VERBS:
        assert make_parser(verb).prog == f"echoc {verb}"
    assert make_parser().prog == "echoc"


def test_without_a_verb(capfdbinary: Capture) -> None:
    """Without a verb, echoc sends."""
    with serving(faithful()) as port:
        assert main(["send", "127.0.0.1", str(port), "-m", "hi"]) == 0
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-m", "hi"]) == 0
    assert capfdbinary.readouterr().out == b"hihi"


def test_verb_that_is_not_first(capfdbinary: Capture) -> None:
    """A verb after options is an error, which shows both how to use the verb and how to reach a host of that name."""
    assert main(["-4", "ping", "7"]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        (b"echoc: 'ping' must be the first argument: echoc ping HOST; to reach a host of that name: echoc send ping\n"),
    )


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["pnig", "localhost"], "PORT: 'localhost' is not a port; give a number from 1 to 65535, or a name in "),
        (["pong", "-c", "3", "localhost"], "unrecognized arguments: -c "),
        (["pnig"], "cannot connect to pnig:10000: Name or service not known\n"),
    ],
)
def test_mistyped_verb(argv: list[str], error: str, capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first word that does not work as a host is reported with the nearest verb."""

    def no_name(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    assert main(argv) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert err.startswith(f"echoc: {argv[0]!r} is not a verb (the nearest is ping); as a host: {error}".encode())
    assert err.count(b"\n") == 1


def test_host_named_like_a_verb(capfdbinary: Capture, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    """If a host of such a name exists, its error does not speak of verbs."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed_port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    assert main(["pong", str(closed_port)]) == 2
    assert capfdbinary.readouterr().err.startswith(f"echoc: cannot connect to pong:{closed_port}: ".encode())


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
    """An invalid command line is reported in one sentence that refers to --help, and exits with 2."""
    assert main(argv) == 2
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert words.encode() in err
    assert err.startswith(b"echoc: ")
    assert err.endswith(b" (see echoc --help)\n")
    assert err.count(b"\n") == 1


def test_usage_of_a_verb(capfdbinary: Capture) -> None:
    """An error in a verb's arguments refers to the --help of that verb."""
    assert main(["send", "--nonsense"]) == 2
    assert capfdbinary.readouterr().err == b"echoc: unrecognized arguments: --nonsense (see echoc send --help)\n"


@pytest.mark.parametrize("argv", [["-V"], ["--version"], *([verb, "-V"] for verb in VERBS)])
def test_version(argv: list[str], capfdbinary: Capture) -> None:
    """-V and --version print the version, with every verb and without one."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == (3 if argv[0] == "check" else 0)
    assert capfdbinary.readouterr() == (f"echoc {__version__}\n".encode(), b"")


def test_help(capfdbinary: Capture) -> None:
    """--help explains the defaults, standard input, and the exit codes."""
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
    """`| head` ends echoc silently, with the code by which a shell reports SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    with serving(faithful()) as port, standing_in(1, writing):
        os.close(writing)
        assert main([word.format(port=port) for word in argv]) == 141
    assert capfdbinary.readouterr().err == b""


def test_interrupt(capfdbinary: Capture) -> None:
    """Ctrl-C ends echoc silently, with the code by which a shell reports SIGINT."""

    def interrupt(connection: socket.socket, over: threading.Event) -> None:
        receive_exactly(connection, 1)
        os.kill(os.getpid(), signal.SIGINT)
        over.wait()

    with serving(interrupt) as port:
        assert main(["127.0.0.1", str(port)]) == 130
    assert capfdbinary.readouterr() == (b"", b"")


def interrupt_when_asked(asked: threading.Event, screen: int) -> None:
    """Send SIGINT to this process when the resolver has a query, and the screen shows it."""
    assert asked.wait(DEADLINE)
    assert b"resolving echo.example" in seen(screen, 20)
    os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_erases_the_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal Ctrl-C leaves nothing of what was being waited for."""
    monkeypatch.setattr(connect, "_REPORT", 0.01)
    with terminal() as (screen, program), standing_in(2, program), stuck_resolver(monkeypatch) as asked:
        thread = threading.Thread(target=interrupt_when_asked, args=(asked, screen))
        thread.start()
        assert main(["send", "echo.example"]) == 130
        thread.join()
        os.write(program, b"$ ")
        shown = b""
        while not shown.endswith(b"$ "):
            shown += seen(screen, 1)
    assert shown.endswith(b"\r" + b" " * len("resolving echo.example^C") + b"\r$ ")


def test_objects_do_not_continue_the_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json on a terminal there is no status line: an object would follow it on the same line."""
    monkeypatch.setattr(connect, "_REPORT", 0.01)
    with (
        terminal() as (screen, program),
        standing_in(1, program),
        standing_in(2, program),
        stuck_resolver(monkeypatch),
    ):
        assert main(["ping", "--json", "-w", "0.1", "echo.example"]) == 2
        assert seen(screen, 20).startswith(b'{"schema": ')


def test_out_of_descriptors(capfdbinary: Capture) -> None:
    """A failing system call leads to a sentence, never to a traceback."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        code = main(["unix:/run/echod"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 2
    assert capfdbinary.readouterr().err == b"echoc: cannot connect to unix:/run/echod: Too many open files\n"
