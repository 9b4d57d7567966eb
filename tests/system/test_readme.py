"""README.md: every command in it is run, from its own text and in its order, as its reader would run it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system import package
from tests.system.machine import PATIENCE, RUN_TIMEOUT, Machine
from tests.system.package import CHECKOUT
from tests.system.service import UNIT
from tests.system.test_make_install import SOURCE

README = (CHECKOUT / "README.md").read_text()

ON_THE_HOST = {"make run", ".venv/bin/echoc localhost", "echo hello | nc -N localhost 10000"}
BY_CI = {"make test"}
WITHOUT_THE_PACKAGE = {"make wheels", "sudo make install"}

# What these print differs from machine to machine, and from time to time.
CAPTURES = ("systemctl", "make", "echoc ping", "echoc load", "echoc check")

# What these find depends on how fast the machine is; one that is busy may have to be asked again.
TIMED = ("echoc ping", "echoc load", "echoc check")


class Command(NamedTuple):
    """A command of the README, and what it says that it prints."""

    text: str
    shown: list[str]


def commands() -> Iterator[Command]:
    """The commands after a prompt in the README's examples."""
    for example in re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        for entry in re.split(r"^\$ ", example, flags=re.MULTILINE)[1:]:
            text, *shown = entry.splitlines()
            yield Command(text, shown)


def words_in_text() -> list[str]:
    """The commands in the middle of a sentence that can be run unchanged."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    spans = dict.fromkeys(re.findall(r"`([^`\n]+)`", prose))
    first = ("journalctl ", "ss ", "systemctl cat", "systemctl status", "systemd-analyze ")
    return [span for span in spans if span.startswith(first)]


def check(machine: Machine, command: Command) -> None:
    """Run a command in the checkout, and compare what it prints."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = machine.run("bash", "-c", f"cd {SOURCE}; {command.text}", check=False)
        if done.returncode == 0 or not command.text.startswith(TIMED) or time.monotonic() > deadline:
            break
    printed = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, f"{command.text}: {done.returncode}\n{done.stdout}{done.stderr}"
    if command.shown and not command.text.startswith(CAPTURES):
        assert printed == command.shown, command.text


def test_every_command_has_its_place() -> None:
    """The commands that are run elsewhere than on a machine with the package are in the README."""
    assert {command.text for command in commands()} >= ON_THE_HOST | BY_CI | WITHOUT_THE_PACKAGE
    for text in BY_CI:
        assert f"step {text}\n" in (CHECKOUT / ".ci/run").read_text()


@pytest.fixture
def installed(fresh: Machine, packages: list[Path]) -> Machine:
    """A machine with what `make deb` has made in its dist/, and with the names that every real one has."""
    fresh.write("/etc/hosts", "127.0.0.1 localhost echod-test\n::1 localhost\n")
    package.copy_packages(fresh, packages, f"{SOURCE}/dist")
    return fresh


def test_from_the_installation_on(installed: Machine) -> None:
    """Install, check, configure, reload, port 7, echoc, exposure: in the order of the README, on one machine."""
    elsewhere = ON_THE_HOST | BY_CI | WITHOUT_THE_PACKAGE | {"make deb"}
    for command in commands():
        if command.text not in elsewhere:
            check(installed, command)
    for text in words_in_text():
        check(installed, Command(text, []))


def test_without_the_package(fresh: Machine, carried: bytes) -> None:
    """make wheels, where they are at hand already, and make install."""
    fresh.run("mkdir", SOURCE)
    fresh.unpack(carried, SOURCE)
    for command in commands():
        if command.text in WITHOUT_THE_PACKAGE:
            check(fresh, command)
    assert fresh.output("systemctl", "is-active", UNIT) == "active"


def test_two_commands(prepared: dict[str, Path], tmp_path: Path) -> None:
    """make run in one terminal, the clients in another; in a network of their own, since the port is a fixed one."""
    checkout = package.copy_checkout(tmp_path / "echod")
    made = ("sh", "packaging/requirements/venv.sh", ".venv", "runtime")
    subprocess.run(made, cwd=checkout, check=True, timeout=package.BUILD_TIMEOUT, capture_output=True)
    serving = subprocess.Popen(
        ("unshare", "--net", "--", "sh", "-c", "ip link set lo up && exec make run"),
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert serving.stderr is not None
        assert any('"event": "ready"' in line for line in serving.stderr)
        for command in commands():
            if command.text in ON_THE_HOST - {"make run"}:
                entered = ("nsenter", "--target", str(serving.pid), "--net", "--", "sh", "-c", command.text)
                with open(os.devnull) as nothing:
                    done = subprocess.run(
                        entered, cwd=checkout, stdin=nothing, capture_output=True, timeout=RUN_TIMEOUT, text=True
                    )
                assert (done.stdout.splitlines(), done.returncode) == (command.shown, 0), done.stderr
    finally:
        os.killpg(serving.pid, signal.SIGINT)
        serving.communicate(timeout=RUN_TIMEOUT)


def test_make_deb() -> None:
    """The command that builds the packages puts them where the next command expects them."""
    subprocess.run(("make", "deb"), cwd=CHECKOUT, check=True, timeout=package.BUILD_TIMEOUT, capture_output=True)
    (install,) = [command.text for command in commands() if command.text.startswith("sudo apt install")]
    for pattern in install.split()[3:]:
        assert len(list(CHECKOUT.glob(pattern))) == 1, pattern
