"""echoc as a process, as a user runs it, against faithful, faulty and foreign servers."""

import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

import echod
from tests.unit.client.peers import (
    DEADLINE,
    Behaviour,
    altering,
    endless,
    faithful,
    greeting,
    resetting,
    returning,
    seen,
    serving,
    serving_all,
    silent,
    terminal,
)

# The same as the installed command.
COMMAND = [sys.executable, "-c", "import sys; from echod.client.cli import main; sys.exit(main())"]
ROOT = Path(echod.__file__).parent.parent
# The same in an isolated Python, which gets the package's directory as the first argument.
PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from echod.client.cli import main; sys.exit(main())"
SENTENCE = b"This is the message.  It will be repeated."


def echoc(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run echoc; standard input is /dev/null unless given."""
    command = [*COMMAND, *map(str, arguments)]
    if stdin is None:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


def test_from_cron() -> None:
    """With /dev/null as standard input, as under cron, the sentence is sent."""
    with serving(faithful()) as port:
        done = echoc("localhost", port)
    assert (done.returncode, done.stdout, done.stderr) == (0, SENTENCE, b"")


def test_byte_exact_through_pipes() -> None:
    """The input from a pipe appears on standard output byte for byte."""
    data = random.Random(7).randbytes(8 * 1024 * 1024)
    with serving(faithful()) as port:
        done = echoc("127.0.0.1", port, "-f", "-", stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_server_that_reads_everything_first(tmp_path: Path) -> None:
    """A server that returns nothing until it has read 8 MiB does not stop echoc, also with a file as input."""
    data = random.Random(7).randbytes(8 * 1024 * 1024)
    (tmp_path / "file").write_bytes(data)
    with serving(altering(bytes)) as port:
        done = echoc("127.0.0.1", port, "-f", tmp_path / "file")
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (
            altering(lambda data: data.replace(b"mess", b"mass")),
            (
                b"the echo is wrong at byte 13 (counted from 0): sent 0x65, received 0x61; from there on sent "
                b'"essage.  It will be repeated.", received "assage.  It will be repeated."; '
                b"only that byte was changed"
            ),
        ),
        (
            altering(lambda data: data.replace(b"mess", b"mss")),
            (
                b"the echo is wrong at byte 13 (counted from 0): sent 0x65, received 0x73; from there on sent "
                b'"essage.  It will be repeated.", received "ssage.  It will be repeated."; '
                b"it looks as if 1 byte had been dropped there"
            ),
        ),
        (
            altering(lambda data: data[:14] + data[13:]),
            (
                b"the echo is wrong at byte 14 (counted from 0): sent 0x73, received 0x65; from there on sent "
                b'"ssage.  It will be repeated.", received "essage.  It will be repeated."; '
                b"it looks as if 1 byte had been inserted there"
            ),
        ),
        (
            altering(lambda data: data + b"\n"),
            (
                b"the server returned more than was sent: at least 1 byte too many, from byte 42 on "
                b'(counted from 0): "\\n"'
            ),
        ),
        (
            returning(20),
            (
                b"the server closed the connection too early: 20 of 42 bytes sent came back, 22 missing from byte 20 "
                b"on (counted from 0)"
            ),
        ),
        (
            resetting(0),
            (
                b"the connection broke (Connection reset by peer): 0 of 42 bytes sent came back, 42 missing from "
                b"byte 0 on (counted from 0)"
            ),
        ),
        (
            silent,
            b"the server was silent for 0.1 s: all acknowledged, nothing came back: the server is silent",
        ),
        (endless, b"the server did not close the connection within 2 s: all 42 bytes sent came back"),
    ],
    ids=["flips", "drops", "repeats", "adds", "stops", "resets", "silent", "endless"],
)
def test_faulty_server(behaviour: Behaviour, sentence: bytes) -> None:
    """Each fault is found, reported in one sentence, and exits with 1."""
    patience: dict[Behaviour, float] = {silent: 0.1, endless: 2}  # the latter has to return everything first
    with serving(behaviour) as port:
        done = echoc("127.0.0.1", port, "--timeout", patience.get(behaviour, DEADLINE))
    assert (done.returncode, done.stderr) == (1, b"echoc: " + sentence + b"\n")


def test_slow_server() -> None:
    """A server that is slow within the --timeout is not faulty."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        over.wait(0.1)  # the delay that is tested
        faithful()(connection, over)

    with serving(behave) as port:
        done = echoc("127.0.0.1", port)
    assert (done.returncode, done.stdout, done.stderr) == (0, SENTENCE, b"")


def test_server_that_speaks_first() -> None:
    """A mail server, for example, is recognised by its greeting."""
    with serving(greeting) as port:
        done = echoc("127.0.0.1", port)
    assert done.returncode == 1
    assert b"220 ready" in done.stdout
    assert b' "220 ready\\r\\n"' in done.stderr  # whether it came before the first byte was sent, or crossed it


def test_no_server(closed_port: int) -> None:
    """A refused connection is reported in one sentence, and exits with 2."""
    done = echoc("127.0.0.1", closed_port)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"echoc: cannot connect to 127.0.0.1:{closed_port}: Connection refused\n".encode()


@contextmanager
def streaming() -> Iterator[tuple[subprocess.Popen[bytes], BinaryIO]]:
    """echoc in the middle of an endless input, and its standard output; it must print no error."""
    with serving(faithful()) as port:
        process = subprocess.Popen(
            [*COMMAND, "127.0.0.1", str(port), "-f", "/dev/zero"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            try:
                assert process.stdout.read(1) == b"\0"
                yield process, cast("BinaryIO", process.stdout)
                assert process.stderr.read() == b""
            finally:
                process.kill()
                process.wait()


def test_head() -> None:
    """`echoc ... | head -c 1` prints nothing more and exits with 141."""
    with streaming() as (process, output):
        output.close()
        assert process.wait(DEADLINE) == 141


def test_interrupt() -> None:
    """Ctrl-C prints nothing and exits with 130."""
    with streaming() as (process, output):
        process.send_signal(signal.SIGINT)
        while output.read(65536):
            pass
        assert process.wait(DEADLINE) == 130


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_closed_standard_descriptors(closed: str) -> None:
    """A connection never becomes a closed standard descriptor, which would send the echo to the server again."""
    with serving(faithful()) as port:
        words = " ".join(f"{number}>&-" for number in closed.split())
        done = subprocess.run(
            ["sh", "-c", f'"$@" {words}', "sh", *COMMAND, "127.0.0.1", str(port), "-v"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
    assert done.returncode == 0
    assert done.stdout == (b"" if "1" in closed else SENTENCE)
    assert done.stderr.endswith(b"" if "2" in closed else b"closing socket\n")


def test_on_a_terminal() -> None:
    """On a terminal the shell's prompt begins on a new line."""
    with serving(faithful()) as port, terminal() as (screen, program):
        done = subprocess.run([*COMMAND, "127.0.0.1", str(port)], stdin=program, stdout=program, stderr=program)
        assert (done.returncode, seen(screen, 44)) == (0, SENTENCE + b"\r\n")


def test_verbose_on_a_terminal() -> None:
    """Messages and the echo begin on new lines."""
    with serving(faithful()) as port, terminal() as (screen, program):
        done = subprocess.run([*COMMAND, "127.0.0.1", str(port), "-v"], stdin=program, stdout=program, stderr=program)
        text = seen(screen, 1)
        while b"closing socket\r\n" not in text:
            text += seen(screen, 1)
    assert done.returncode == 0
    quoted = SENTENCE.decode().replace(".", r"\.")
    assert re.fullmatch(
        rf"""trying 127\.0\.0\.1:{port}
127\.0\.0\.1:{port}: connected after \d+\.\d\d\d ms
Family  : AF_INET
Type    : SOCK_STREAM
Protocol: IPPROTO_TCP
Local   : 127\.0\.0\.1:\d+
Remote  : 127\.0\.0\.1:{port}

sending "{quoted}"
received "{quoted}"
{quoted}
TCP     : rtt .*
closing socket
""",
        text.decode().replace("\r\n", "\n"),
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["localhost", "PORT"], 0),
        (["ping", "-c", "1", "localhost", "PORT"], 0),
        (["load", "--duration", "0.01", "--connections", "1", "localhost", "PORT"], 0),
        (["check", "localhost", "PORT"], 0),
        (["--version"], 0),
        (["check", "--help"], 3),
    ],
)
def test_imports(words: list[str], code: int) -> None:
    """No verb imports anything but the standard library and the client, and no slow module of the standard library."""
    slow = {
        "asyncio", "dataclasses", "inspect", "json", "logging", "pydantic", "random", "subprocess", "tempfile",
        "threading", "typing",
    }  # fmt: skip
    with serving_all(faithful()) as port:  # a load makes one connection first
        # Without -S an environment may load other modules at each start, for example a coverage tool.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "importtime", "-c", PROGRAM, str(ROOT)]
            + [str(port) if word == "PORT" else word for word in words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    lines = done.stderr.splitlines()
    if words[0] == "load":  # it reports its progress, and whether the machine was busy
        lines = [line for line in lines if not re.search("messages/s|^echoc: warning", line)]
    assert (done.returncode, [line for line in lines if not line.startswith("import time:")]) == (code, [])
    names = {line.rpartition("|")[2].strip() for line in lines[1:]}
    packages = {name.partition(".")[0] for name in names}
    assert "echod.client.cli" in names
    assert packages & slow == set()
    assert packages - sys.stdlib_module_names == {"echod"}
    assert {name for name in names if name.startswith("echod.") and not name.startswith("echod.client")} == set()


@pytest.mark.parametrize("behaviour", [faithful(), altering(bytes)], ids=["at once", "at the end"])
def test_memory(behaviour: Behaviour, tmp_path: Path) -> None:
    """Sending 64 MiB takes less than 32 MiB of memory, whenever the server returns them."""
    size, last = 64 * 1024 * 1024, 1024 * 1024
    path = tmp_path / "input"
    path.touch()
    os.truncate(path, size)
    # Without -S a coverage tool would take memory of its own.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(ROOT)]
    with serving(behaviour) as port, path.open("rb") as file:
        process = subprocess.Popen([*command, "127.0.0.1", str(port)], stdin=file, stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            received = len(process.stdout.read(size - last))
            # The rest is more than the pipe holds: the process still runs.
            status = Path(f"/proc/{process.pid}/status").read_text()
            received += len(process.stdout.read())
    [peak] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    assert (process.returncode, received) == (0, size)
    assert peak < 32 * 1024


@contextmanager
def cat(directory: Path) -> Iterator[list[object]]:
    """A server like inetd: a program whose standard input and output are the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = (
            "import os, socket, sys; c = socket.socket(fileno=int(sys.argv[1])).accept()[0];"
            "os.dup2(c.fileno(), 0); os.dup2(c.fileno(), 1); os.execlp('cat', 'cat')"
        )
        with started(sys.executable, "-c", program, str(listener.fileno()), pass_fds=[listener.fileno()]):
            yield list(listener.getsockname())


@contextmanager
def socat(directory: Path) -> Iterator[list[object]]:
    """socat, with the echo service of its manual."""
    with socat_to("PIPE") as port:
        yield ["127.0.0.1", port]


@contextmanager
def socat_exec(directory: Path) -> Iterator[list[object]]:
    """socat, with a program whose standard input and output are the connection's bytes."""
    with socat_to("EXEC:cat") as port:
        yield ["127.0.0.1", port]


@contextmanager
def socat_to(address: str) -> Iterator[int]:
    """socat between clients and a socat address; it waits ten seconds for the last bytes of either side."""
    with started("socat", "-d", "-d", "-t10", "TCP-LISTEN:0,bind=127.0.0.1,fork", address) as process:
        assert process.stderr is not None
        yield int(process.stderr.readline().split(b":")[-1])


@contextmanager
def xinetd(directory: Path) -> Iterator[list[object]]:
    """xinetd, with its built-in echo service."""
    (directory / "xinetd.conf").write_text(
        f"""
        service echo
        {{
            type = INTERNAL UNLISTED
            socket_type = stream
            protocol = tcp
            wait = no
            user = {pwd.getpwuid(os.getuid()).pw_name}
            bind = 127.0.0.1
            port = 0
        }}
        """
    )
    options = ["-dontfork", "-filelog", "/dev/stderr", "-f", f"{directory}/xinetd.conf"]
    with started("xinetd", *options, "-pidfile", f"{directory}/pid") as process:
        assert process.stderr is not None
        words = b""
        while b"Started working: 1 available service" not in words:
            words = process.stderr.readline()
            assert words, "xinetd does not start"
        yield ["127.0.0.1", listening_port(process.pid)]


def listening_port(pid: int) -> int:
    """The only port on which a process listens (proc_pid_net(5))."""
    own = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    sockets = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    [port] = [int(words[1].split(":")[1], 16) for words in sockets if f"socket:[{words[9]}]" in own]
    return port


@contextmanager
def nc(directory: Path) -> Iterator[list[object]]:
    """OpenBSD's nc, with its output connected to its input by a named pipe; it sometimes exits too early."""
    os.mkfifo(directory / "back")
    script = 'cd "$1" && nc -v -n -l 127.0.0.1 0 <back | cat >back'
    with started("sh", "-c", script, "sh", str(directory)) as process:
        assert process.stderr is not None
        words = b""
        while not words.startswith(b"Listening on"):
            words = process.stderr.readline()
            assert words, "nc does not listen"
        yield ["127.0.0.1", words.split()[-1].decode()]


@contextmanager
def ncat(directory: Path) -> Iterator[list[object]]:
    """Nmap's ncat, which stops reading from its program at the client's half-close."""
    with started("ncat", "-v", "-l", "-U", f"{directory}/echo", "--exec", "/bin/cat") as process:
        assert process.stderr is not None
        words = b""
        while b"Listening on" not in words:
            words = process.stderr.readline()
            assert words, "ncat does not listen"
        yield [f"unix:{directory}/echo"]


@contextmanager
def started(*command: str, pass_fds: list[int] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that serves one client.  It is killed at the end: ncat may never exit by itself."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=pass_fds or [], process_group=0
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group exists until its leader is waited for
        process.communicate()


Program = Callable[[Path], AbstractContextManager[list[object]]]


@pytest.mark.parametrize("size", [42, 4_000_000])
@pytest.mark.parametrize("program", [cat, socat, socat_exec, xinetd], ids=["cat", "socat PIPE", "socat EXEC", "xinetd"])
def test_foreign_server(program: Program, size: int, tmp_path: Path) -> None:
    """The echo of other programs is identical."""
    done, data = with_foreign(program, size, tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


@pytest.mark.parametrize("size", [42, 4_000_000])
@pytest.mark.parametrize("program", [nc, ncat], ids=["nc", "ncat"])
def test_lossy_foreign_server(program: Program, size: int, tmp_path: Path) -> None:
    """For programs that may lose bytes at a half-close, or stop reading while they write, the verdict and the offset
    agree with a comparison of the output."""
    done, data = with_foreign(program, size, tmp_path, "--timeout", "2")
    assert data.startswith(done.stdout)
    if done.stdout == data:
        assert (done.returncode, done.stderr) == (0, b"")
    else:
        count = len(done.stdout)
        assert done.returncode == 1
        assert re.search(
            rb": %d of \d+ bytes sent came back, \d+ missing from byte %d on" % (count, count), done.stderr
        )


@pytest.mark.parametrize("program", [nc, ncat], ids=["nc", "ncat"])
def test_lossy_foreign_server_without_half_close(program: Program, tmp_path: Path) -> None:
    """With --no-half-close these programs return everything."""
    done, data = with_foreign(program, 42, tmp_path, "--no-half-close")
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def with_foreign(
    program: Program, size: int, directory: Path, *options: str
) -> tuple[subprocess.CompletedProcess[bytes], bytes]:
    """The completed echoc after `size` random bytes, and the bytes."""
    name = program.__name__.partition("_")[0]
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed, or not in PATH")
    data = random.Random(7).randbytes(size)
    with program(directory) as address:
        return echoc(*address, *options, "-f", "-", stdin=data), data
