"""The command echod as a process: its standard descriptors, its exit status, and what keeps it from serving."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import echod
from tests.integration.daemon import DEADLINE, FOR_DAEMONS, Daemon, until_gone

COMMAND = [sys.executable, "-m", "echod"]
CLOSED = {"standard input": "0<&-", "standard output": "1>&-", "standard error": "2>&-", "all": "0<&- 1>&- 2>&-"}


def environment() -> dict[str, str]:
    """This process's variables, without those for a daemon, and with an empty configuration."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOR_DAEMONS)}
    return environ | {"ECHOD_CONFIG": os.devnull}


def run(
    *arguments: str, pass_fds: tuple[int, ...] = (), variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run echod to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment() | dict(variables),
        pass_fds=pass_fds,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )


def sentence(daemon: Daemon, code: int) -> str:
    """The one sentence with which a daemon that can't serve ends, with that exit status and without a traceback."""
    assert daemon.read_to_end() == code
    assert daemon.of("bug") == []
    assert len(daemon.words) == 1
    return daemon.words[0]


def test_version() -> None:
    """`python -m echod` is echod."""
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"echod {echod.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "words"),
    [
        (["--prot", "7"], {}, 64, ["echod: unknown argument '--prot'; did you mean '--port'?"]),
        (["--port", "70000"], {"ECHOD_PROT": "1"}, 78, ["echod: ECHOD_PROT: unknown variable", "echod: --port is "]),
        (["--host", "a..b"], {}, 69, ["echod: host 'a..b' does not resolve: "]),
        (["--check-config", "--host", "a..b"], {}, 69, ["echod: host 'a..b' does not resolve: "]),
        (
            ["--check-config"],
            {"ECHOD_HOST": "192.0.2.1"},
            69,
            ["echod: cannot listen on 192.0.2.1:10000: this machine does not have that address"],
        ),
    ],
)
def test_bad_input(arguments: list[str], variables: dict[str, str], code: int, words: list[str]) -> None:
    """An error that the user can mend is a sentence without a traceback, and the status says its kind."""
    done = run(*arguments, variables=variables)
    assert (done.returncode, done.stdout) == (code, "")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == len(words)
    assert all(line.startswith(begin) for line, begin in zip(lines, words, strict=True)), lines
    assert "Traceback" not in done.stderr


def test_process_substitution() -> None:
    """A configuration may come from a pipe, as from the shell's `<(...)`."""
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "w") as pipe:
        pipe.write('port = 7\nhost = "::1"\n')
        pipe.close()
        done = run("--config", f"/dev/fd/{reading}", "--print-config", pass_fds=(reading,))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"port = 7  # file /dev/fd/{reading}" in done.stdout.splitlines()


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED.keys())
@pytest.mark.parametrize(
    ("argument", "code"),
    [("--version", 0), ("--print-config", 0), ("--check-config", 0), ("--bogus", 64), ("--port=x", 78)],
)
def test_closed_descriptors(closed: str, argument: str, code: int) -> None:
    """Whichever standard descriptor is closed, the status is the same, and what can be said is."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    done = subprocess.run(
        [*shell, *COMMAND, argument],
        capture_output=True,
        env=environment(),
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == code
    assert bool(done.stdout) == (not code and "1>&-" not in closed)
    assert bool(done.stderr) == (bool(code) and "2>&-" not in closed)


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--print-config", 0), ("--bogus", 64)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads(argument: str, code: int, unbuffered: str) -> None:
    """`echod --help | head -1` is quiet: a reader that has seen enough is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, argument],
            stdout=pipe,
            stderr=subprocess.PIPE if not code else pipe,
            env=environment() | {"PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    assert (done.returncode, done.stderr or b"") == (code, b"")


@pytest.mark.parametrize("closed", ["", "0<&-"])
def test_without_dev_null(closed: str) -> None:
    """A machine without /dev/null is no problem, whether or not a standard descriptor is closed."""
    script = f'mount -t tmpfs none /dev && exec "$@" {closed}'
    prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this user may not take /dev away")
    done = subprocess.run(
        [*prefix, *COMMAND, "--check-config", "--port", "0"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


@pytest.mark.parametrize("argument", ["--help", "--version", "--print-config", "--check-config"])
def test_full_output(argument: str) -> None:
    """Output that cannot be written leads to one sentence, and status 74."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, argument],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    expected = b"echod: cannot write to standard output: No space left on device; redirect it elsewhere\n"
    assert (done.returncode, done.stderr) == (os.EX_IOERR, expected)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--bogus"], os.EX_USAGE),
        (["--port=x"], os.EX_CONFIG),
        (["--host=a..b"], os.EX_UNAVAILABLE),
        (["--print-config", "--check-config"], os.EX_OK),
    ],
)
def test_full_errors(arguments: list[str], code: int) -> None:
    """A standard error that cannot be written does not change the status."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=full,
            env=environment(),
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == code


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, os.EX_OK)])
def test_signal_before_serving(tmp_path: Path, signum: signal.Signals, status: int) -> None:
    """A signal while echod still reads its configuration ends it, without a word and with nothing left behind."""
    fifo = tmp_path / "echod.toml"
    os.mkfifo(fifo)
    with Daemon("--config", str(fifo), wait=False) as daemon:
        with open(open_once_read(fifo), "wb"):
            daemon.process.send_signal(signum)
        # Only now can it read to the end: a signal that comes just before read(2) does not interrupt that.
        assert daemon.read_to_end() == status
        assert (daemon.words, daemon.events) == ([], [])


def open_once_read(fifo: Path) -> int:
    """The writing end of a FIFO, as soon as the daemon opens it to read."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            os.sched_yield()


def test_signal_while_getting_ready(tmp_path: Path) -> None:
    """Ctrl-C at any time once the sockets are open drains, however early: the unix socket's file is removed."""
    path = tmp_path / "socket"
    with Daemon("--host", f"unix:{path}", "--workers", "4", wait=False) as daemon:
        daemon.wait_for("worker_started")
        with until_gone(daemon.pid):
            assert daemon.stop(signal.SIGINT) == os.EX_OK
        assert not path.exists()
