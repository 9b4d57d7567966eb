"""The Debian packages, built by `make deb` and installed as an administrator would."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.system.machine import Machine

CHECKOUT = Path(__file__).parents[2]
MACHINE = platform.machine()
WHEELS = CHECKOUT / "build/wheels" / MACHINE
"""The directory that `make wheels` has filled before the tests."""

BUILD_TIMEOUT = 500.0  # seconds
PARTS = ("echod", "etc", "packaging", "Makefile", "pyproject.toml", "CHANGELOG.md", "README.md", "LICENSE")
"""The parts of the checkout that are needed to build and to install."""

VERSION = "0.1.0"


def copy_checkout(into: Path) -> Path:
    """Copy these parts of the checkout to a new directory `into`."""
    into.mkdir()
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, into / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / part, into)
    return into


def substitute(file: Path, old: str, new: str) -> None:
    """Replace a text in a file. Raises AssertionError if the file does not have it."""
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new))


def build(
    scratch: Path,
    version: str = VERSION,
    change: Callable[[Path], None] | None = None,
    *,
    machine: str = MACHINE,
    umask: int = 0o022,
    **environment: str,
) -> list[Path]:
    """Both packages, of the checkout as it is, or of another `version` that `change` may alter.

    `machine` is what they are for, whose wheels must be there; `umask` and `environment` are what they are built under.

    Raises AssertionError with what was printed if it fails.
    """
    source = copy_checkout(scratch / "source")
    if version != VERSION:
        substitute(source / "echod/__init__.py", VERSION, version)
        substitute(source / "packaging/debian/changelog", VERSION, version)
    if change is not None:
        change(source)
    command = ("sh", str(source / "packaging/deb.sh"), str(WHEELS.parent / machine), machine)
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        umask=umask,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((source / "dist").glob("*.deb"))


def copy_packages(machine: Machine, packages: list[Path], into: str = "/root/dist") -> list[str]:
    """Put the files into the machine, and return their names there."""
    machine.run("mkdir", "--parents", into)
    for package in packages:
        with package.open("rb") as file:
            machine.put(file, f"{into}/{package.name}")
    return [f"{into}/{package.name}" for package in packages]


def install(machine: Machine, packages: list[Path], *options: str) -> str:
    """Install, upgrade or downgrade without a network, and return what was printed."""
    names = copy_packages(machine, packages)
    apt = ("apt-get", "install", "--yes", "--option=Dpkg::Options::=--force-confold", *options, *names)
    done = machine.run("env", "DEBIAN_FRONTEND=noninteractive", *apt)
    return done.stdout + done.stderr
