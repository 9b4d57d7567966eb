"""echoc and a name server that never answers, in a network and with a resolv.conf(5) of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.network import own_network

PROGRAM = """
import os, signal, socket, sys, threading
from echod.client.cli import main

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))

def interrupt():
    server.recv(512)
    os.kill(os.getpid(), signal.SIGINT)

if sys.argv.pop(1) == "interrupted":
    threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main())
"""


def echoc(directory: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    """Run echoc, whose query for echo.example is never answered; the word "interrupted" has SIGINT follow the query."""
    configuration = directory / "resolv.conf"
    configuration.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")
    prefix = own_network(f"mount --bind '{configuration}' /etc/resolv.conf")
    command = ["unshare", "--mount", *prefix, sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, timeout=60)


@pytest.mark.parametrize("verb", ["send", "ping", "check"])
def test_interrupted_while_it_resolves(verb: str, tmp_path: Path) -> None:
    """Ctrl-C works while the resolver waits for an answer."""
    done = echoc(tmp_path, "interrupted", verb, "echo.example")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_load_interrupted_while_it_resolves(tmp_path: Path) -> None:
    """Ctrl-C also works in a load, which says why it has no result."""
    done = echoc(tmp_path, "interrupted", "load", "echo.example")
    sentence = b"echoc: interrupted before there was a connection, so nothing was tested\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", sentence)


def test_check_is_over_in_time(tmp_path: Path) -> None:
    """The process exits in time, although the resolver's thread still runs."""
    done = echoc(tmp_path, "bounded", "check", "echo.example", "-t", "0.1")
    assert (done.returncode, done.stderr) == (2, b"")
    assert done.stdout == b"ECHO CRITICAL - cannot connect to echo.example:10000: the name was not resolved in time\n"


def test_ping_is_over_in_time(tmp_path: Path) -> None:
    """-w limits resolving as well."""
    done = echoc(tmp_path, "bounded", "ping", "echo.example", "-w", "1")
    assert done.returncode == 2
    assert done.stderr == b"echoc: cannot connect to echo.example:10000: the name was not resolved in time\n"
