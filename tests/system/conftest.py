"""Machines to test on: each test runs on every Debian in roots.SUITES, and begins and ends without a running echod."""

import faulthandler
import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system import package, roots
from tests.system.boot import boot
from tests.system.machine import Machine
from tests.system.service import Service

# The state after an installation, except that echod does not run. /etc/hosts is removed: a minimal Debian has none, and
# echod must find localhost without it.
CLEAN = """
systemctl stop 'echod*.socket' 'echod*.service'
systemctl --quiet disable echod.socket
rm -rf /etc/systemd/system/echod*.d /run/systemd/system/echod* /etc/echod /etc/echod.toml.d /etc/hosts /run/echod
cp /usr/share/echod/echod.toml /etc/echod.toml
systemctl daemon-reload
systemctl reset-failed
"""


@pytest.fixture(scope="session")
def prepared() -> dict[str, Path]:
    """All suites' roots; skips where no machine can be booted."""
    reason = roots.missing()
    if reason:
        pytest.skip(f"no machine can be booted here: {reason}")
    # The first time this takes minutes, and it has time limits of its own, so pytest's is disabled.
    faulthandler.cancel_dump_traceback_later()
    with ThreadPoolExecutor() as pool:
        return dict(zip(roots.SUITES, pool.map(roots.create, roots.SUITES), strict=True))


@pytest.fixture(scope="session")
def packages(prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packages of the checkout as it is, the same for every suite."""
    return package.build(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def newer(prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packages of the next version, which differs in everything that is no interface between versions."""
    return package.build(tmp_path_factory.mktemp("newer"), "0.2.0", differ)


def differ(source: Path) -> None:
    """Change a checkout: the state of connections, what is stored, the messages to workers, a script's name."""
    state, queue = source / "echod/handover/state.py", source / "echod/handover/queue.py"
    survived = '"""The number of restarts that the connection has survived."""\n'
    package.substitute(state, survived, f"{survived}    upgrades: int = 0\n")
    package.substitute(
        state, "        restarts=", '        upgrades=_count(values.get("upgrades", 0)) + 1,\n        restarts='
    )
    package.substitute(queue, "BATCH = _FDS_MAX - 1", "BATCH = 7")
    messages, listening = source / "echod/shared/messages.py", source / "echod/parent/listening.py"
    package.substitute(messages, 'HANDED_OVER = b"handed over"', 'HANDED_OVER = b"passed on"')
    package.substitute(messages, '_HAND_OVER = b"hand over "', '_HAND_OVER = b"pass on "')
    store = "        self._store.put(STORED_AS,"
    package.substitute(listening, store, f'        self._store.put("echod-later", [0])\n{store}')
    scripts = source / "packaging/systemd"
    (scripts / "announce-stop").rename(scripts / "announce-end")
    for file in (scripts / "echod.service", source / "packaging/install.sh"):
        package.substitute(file, "announce-stop", "announce-end")


@pytest.fixture(scope="session")
def carried(prepared: dict[str, Path]) -> bytes:
    """A tar archive of the checkout with the wheels at hand, as it is carried to a machine that is off the network."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for part in (*package.PARTS, str(package.WHEELS.relative_to(package.CHECKOUT))):
            tar.add(package.CHECKOUT / part, part)
    return archive.getvalue()


@pytest.fixture(scope="session", params=roots.SUITES)
def booted(
    request: pytest.FixtureRequest,
    prepared: dict[str, Path],
    packages: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    """A machine with the packages installed, shared by all tests, which pytest therefore runs suite by suite."""
    suite: str = request.param
    with boot(suite, prepared[suite], tmp_path_factory.mktemp(suite)) as machine:
        package.install(machine, packages)
        yield machine


@pytest.fixture(params=roots.SUITES)
def fresh(request: pytest.FixtureRequest, prepared: dict[str, Path], tmp_path: Path) -> Iterator[Machine]:
    """A machine on which echod was never installed; each test that needs it gets its own."""
    with boot(request.param, prepared[request.param], tmp_path) as machine:
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine with the packages installed; no echod runs, and nothing is configured."""
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
