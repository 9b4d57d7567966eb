"""`echoc check` as a process, as monitoring and container runtimes start it."""

import re
import socket
import subprocess
import sys

from tests.integration.network import inside, joined_networks, swallow
from tests.unit.client.peers import altering, faithful, serving, serving_at, silent

COMMAND = [sys.executable, "-c", "import sys; from echod.client.cli import main; sys.exit(main())", "check"]


def test_as_an_exec_probe() -> None:
    """Without terminal, standard input, environment or home directory, 0 means that the echo is identical."""
    with serving(faithful()) as port:
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "127.0.0.1", str(port)],
            env={},
            cwd="/",
            start_new_session=True,
            capture_output=True,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"ECHO OK - 64 bytes back from [^|\n]* \| [^|\n]*\n", done.stdout)


def test_exec_probe_of_a_faulty_service() -> None:
    """Any other code means that it is not."""
    with serving(altering(lambda data: data[:-1])) as port:
        done = subprocess.run([*COMMAND, "127.0.0.1", str(port)], env={}, cwd="/", capture_output=True)
    assert (done.returncode, done.stderr) == (2, b"")
    assert done.stdout.startswith(b"ECHO CRITICAL - ")


def test_no_descriptor_left_for_its_own_modules() -> None:
    """A failure to start the program is UNKNOWN, since the service is not at fault."""
    program = """
import resource, sys
from echod.client.cli import main
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
code = main()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))  # for work at exit, such as a coverage report
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program, "check", "localhost"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"echoc: Too many open files\n")


def test_without_standard_output() -> None:
    """Without a standard output the exit code is the same."""
    with serving(faithful()) as port:
        done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "127.0.0.1", str(port)])
    assert done.returncode == 0


def test_path_that_drops_large_packets() -> None:
    """--size finds a black hole of the path MTU, which the default does not, and the line says what happened."""
    with joined_networks() as (near, far):
        with inside(far.pid):
            listener = socket.create_server((far.address, 0))
        swallow(near, far, 1200)
        port = listener.getsockname()[1]
        with listener, serving_at(listener, faithful(), faithful(), silent), inside(near.pid):
            small, fitting, large = (
                subprocess.run([*COMMAND, far.address, str(port), *words, "-t", "1"], capture_output=True, text=True)
                for words in ([], ["--size", "1100"], ["--size", "4K"])
            )
    assert (small.returncode, fitting.returncode, large.returncode) == (0, 0, 2)
    assert re.fullmatch(
        rf"ECHO CRITICAL - 192\.0\.2\.2:{port} \(local 192\.0\.2\.1:\d+\): the echo was not complete in time: "
        r"sent 4096 bytes, 4096 not acknowledged: the path \(or its MTU\) drops them \(--timeout 1\)\n",
        large.stdout,
    )


def test_path_back_that_drops_large_packets() -> None:
    """If only the path back drops them, the end of the echo arrives without its beginning, and the line says so."""
    with joined_networks() as (near, far):
        with inside(far.pid):
            listener = socket.create_server((far.address, 0))
        swallow(far, near, 1200)
        port = listener.getsockname()[1]
        with listener, serving_at(listener, faithful()), inside(near.pid):
            words = ("--size", "4000", "-t", "1", far.address, str(port))
            done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    sentence = "all acknowledged, the beginning of the echo is missing: the path (or its MTU) drops it (--timeout 1)\n"
    assert done.returncode == 2
    assert done.stdout.endswith(sentence)
