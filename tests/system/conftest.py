"""Machines to test on: each test runs on every Debian in roots.PYTHON, and begins and ends without a running echod."""

import faulthandler
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system import program, roots
from tests.system.boot import boot
from tests.system.machine import Machine
from tests.system.service import Service

# Not /etc/hosts: a minimal Debian has none, and echod must find localhost without it.
CLEAN = """
systemctl stop 'echod*.socket' 'echod*.service'
systemctl reset-failed
rm -rf /etc/echod.toml /etc/echod.toml.d /run/systemd/system/echod* /etc/hosts
systemctl daemon-reload
"""


class Prepared(NamedTuple):
    """What it takes to boot a machine with echod on it."""

    root: Path
    archive: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    """All suites' roots and programs; skips where no machine can be booted."""
    reason = roots.missing()
    if reason:
        pytest.skip(f"no machine can be booted here: {reason}")
    # The first time this takes minutes. It ends by time limits of its own, so pytest's need not.
    faulthandler.cancel_dump_traceback_later()
    with ThreadPoolExecutor() as pool:
        made = {suite: pool.submit(roots.create, suite) for suite in roots.PYTHON}
        built = {
            suite: pool.submit(program.build, python, tmp_path_factory.mktemp(f"program-{suite}"))
            for suite, python in roots.PYTHON.items()
        }
        return {suite: Prepared(made[suite].result(), built[suite].result()) for suite in roots.PYTHON}


@pytest.fixture(scope="session", params=roots.PYTHON)
def booted(
    request: pytest.FixtureRequest, prepared: dict[str, Prepared], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine with echod installed; one for all tests, which pytest therefore runs suite by suite."""
    suite: str = request.param
    with boot(suite, prepared[suite].root, tmp_path_factory.mktemp(suite)) as machine:
        program.install(machine, prepared[suite].archive)
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine as a fresh installation leaves it: no echod runs, nothing is configured."""
    booted.run("sh", "-c", CLEAN, check=False)
    yield booted
    booted.run("sh", "-c", CLEAN, check=False)


@pytest.fixture
def service(machine: Machine) -> Service:
    """echod.service, not started."""
    return Service(machine)


@pytest.fixture
def served(service: Service) -> Service:
    """echod.service, started."""
    service.start()
    return service
