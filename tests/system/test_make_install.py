"""`make install` and `make uninstall`: an installation without a package manager."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.system import package
from tests.system.machine import RUN_TIMEOUT, Machine
from tests.system.service import CONFIG, UNIT, Service
from tests.system.test_package import completion, files

SOURCE = "/root/echod"
COLUMNS = 100
"""The longest line in a unit, which is read in terminals."""


@pytest.fixture
def unpacked(fresh: Machine, carried: bytes) -> Machine:
    """A machine on which echod was never installed, with the checkout on it."""
    fresh.run("mkdir", SOURCE)
    fresh.unpack(carried, SOURCE)
    return fresh


def make(machine: Machine, *arguments: str) -> str:
    """Run make in the machine, and return what it printed."""
    done = machine.run("make", "--no-print-directory", "-C", SOURCE, *arguments)
    return done.stdout + done.stderr


def test_it_leaves_a_running_service(unpacked: Machine) -> None:
    """make install leaves the service enabled, running, echoing, and in the same sandbox as the package does."""
    make(unpacked, "install")
    assert unpacked.output("systemctl", "is-enabled", UNIT) == "enabled"
    assert Service(unpacked).echoes()
    assert unpacked.output("/usr/local/bin/echoc", "-m", "a sentence") == "a sentence"
    assert unpacked.output("echoc", "-m", "a sentence") == "a sentence"
    unpacked.run("systemd-analyze", "security", "--no-pager", "--threshold=11", UNIT)


def test_every_unit_is_right_for_its_place(unpacked: Machine) -> None:
    """Units and drop-ins name the files below PREFIX: the template and the socket-activated service work too."""
    make(unpacked, "install")
    unpacked.write("/etc/echod/blue.toml", "port = 10002\n")
    unpacked.run("systemctl", "start", "echod@blue")
    assert Service(unpacked).echoes(port=10002)
    unpacked.run("mkdir", "/etc/systemd/system/echod.service.d")
    unpacked.run("ln", "-s", "/usr/local/share/echod/socket-activated.conf", "/etc/systemd/system/echod.service.d/")
    unpacked.run("systemctl", "daemon-reload")
    unpacked.run("systemctl", "restart", UNIT)
    assert Service(unpacked).echoes(port=7)
    unpacked.run("systemctl", "reload", UNIT)


@pytest.mark.parametrize("prefix", ["/usr", "/opt/echo"])
def test_any_prefix_will_do(unpacked: Machine, prefix: str) -> None:
    """PREFIX applies to everything but the configuration, even where the unit could not read it by default."""
    make(unpacked, "install", f"PREFIX={prefix}")
    assert Service(unpacked).echoes()
    assert unpacked.output(f"{prefix}/bin/echoc", "-m", "a sentence") == "a sentence"
    make(unpacked, "uninstall", f"PREFIX={prefix}")
    assert unpacked.listening() == set()


def test_everything_is_compiled(unpacked: Machine) -> None:
    """All modules are compiled at the installation, because a user without write permission could not do it later."""
    make(unpacked, "install")
    for name in ("echod", "echoc"):
        assert unpacked.output("sh", "-c", f"ls /usr/local/lib/{name}/echod/__pycache__/__init__.*.pyc")
    assert unpacked.output("sh", "-c", "ls /usr/local/lib/echoc/echod/client/__pycache__/cli.*.pyc")


def test_bash_finds_the_completions(unpacked: Machine) -> None:
    """bash-completion finds the files below /usr/local too."""
    make(unpacked, "install")
    assert completion(unpacked, "echoc") == "complete -F _echoc echoc"


def test_a_second_time_it_restarts_what_runs(unpacked: Machine) -> None:
    """An update keeps the configuration, and the service runs from the new files."""
    make(unpacked, "install")
    unpacked.write(CONFIG, "port = 10001\n")
    before = Service(unpacked).parent
    make(unpacked, "install")
    assert Service(unpacked).parent != before
    assert Service(unpacked).echoes(port=10001)


def test_an_instance_is_restarted_too(unpacked: Machine) -> None:
    """An update restarts a running instance from the new files, as it does the service itself."""
    make(unpacked, "install")
    unpacked.write("/etc/echod/blue.toml", "port = 10002\n")
    unpacked.run("systemctl", "start", "echod@blue")
    before = Service(unpacked, "echod@blue").parent
    make(unpacked, "install")
    assert Service(unpacked, "echod@blue").parent != before
    assert Service(unpacked).echoes(port=10002)


def test_a_full_disk_takes_nothing_away(unpacked: Machine) -> None:
    """With room for one version and not for two, an update fails, and the old daemon and client still work."""
    unpacked.run("mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", "/opt")
    make(unpacked, "install", "PREFIX=/opt/echo")
    done = unpacked.run("make", "-C", SOURCE, "install", "PREFIX=/opt/echo", check=False)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert unpacked.output("ls", "/opt/echo/lib") == "echoc\nechod"
    unpacked.run("systemctl", "restart", UNIT)
    assert Service(unpacked).echoes()
    assert unpacked.output("/opt/echo/bin/echoc", "-m", "a sentence") == "a sentence"


def test_it_starts_nothing_that_was_stopped(unpacked: Machine) -> None:
    """An update does not start a service that an administrator has stopped."""
    make(unpacked, "install")
    unpacked.run("systemctl", "disable", "--now", UNIT)
    make(unpacked, "install")
    assert unpacked.listening() == set()


def test_it_does_not_depend_on_the_umask(unpacked: Machine) -> None:
    """Installed with the umask 077, the files can still be read by the user of the service."""
    unpacked.run("sh", "-c", f"umask 077 && make -C {SOURCE} install PREFIX=/opt/echo")
    assert Service(unpacked).echoes()


def test_a_lost_wheel_is_noticed(unpacked: Machine) -> None:
    """An incomplete directory of wheels is not installed."""
    unpacked.run("sh", "-c", f"rm {SOURCE}/build/wheels/*/sdnotify-*.whl")
    wheels = f"WHEELS={SOURCE}/build/wheels/{package.WHEELS.name}"
    done = unpacked.run("env", wheels, "sh", f"{SOURCE}/packaging/install.sh", "install", check=False)
    assert done.returncode == 1
    assert "is incomplete; run make wheels" in done.stderr
    assert unpacked.run("test", "-e", "/usr/local/lib/echod", check=False).returncode == 1


def test_a_second_time_it_leaves_running_what_would_not_start(unpacked: Machine) -> None:
    """With an invalid configuration the old process keeps running, and make fails with a sentence."""
    make(unpacked, "install")
    unpacked.write(CONFIG, "prot = 10001\n")
    before = Service(unpacked).parent
    done = unpacked.run("make", "-C", SOURCE, "install", check=False)
    assert done.returncode != 0
    assert "the old version keeps running" in done.stderr
    assert Service(unpacked).parent == before
    assert Service(unpacked).echoes()


def test_uninstalling_leaves_nothing(unpacked: Machine) -> None:
    """make uninstall stops the service, and removes every file that make install has installed."""
    before = files(unpacked)
    make(unpacked, "install")
    make(unpacked, "uninstall")
    assert unpacked.listening() == set()
    left = files(unpacked) - before
    # /usr/local has some of these directories from the start, and others not; an empty one does no harm.
    assert {path for path in left if unpacked.run("test", "-d", path, check=False).returncode} == set()


def test_uninstalling_keeps_what_somebody_wrote(unpacked: Machine) -> None:
    """A configuration that was changed stays, and make says so."""
    make(unpacked, "install")
    unpacked.write(CONFIG, "port = 10001\n")
    assert f"kept {CONFIG}, because it was changed" in make(unpacked, "uninstall")
    assert unpacked.output("cat", CONFIG) == "port = 10001"


def test_uninstalling_from_the_wrong_place_takes_nothing(unpacked: Machine) -> None:
    """With another PREFIX than that of the installation, make says so, and the installed service keeps running."""
    make(unpacked, "install")
    done = unpacked.run("make", "-C", SOURCE, "uninstall", "PREFIX=/opt/echo", check=False)
    assert done.returncode != 0
    assert "echod is not installed in /opt/echo" in done.stderr
    assert Service(unpacked).echoes()


def test_into_a_directory(packages: list[Path], tmp_path: Path) -> None:
    """With DESTDIR everything is installed below it, nothing is started, and uninstall removes everything again."""
    staged = tmp_path / "staged"
    arguments = ("make", "--no-print-directory", "-C", str(package.CHECKOUT), f"DESTDIR={staged}", "PREFIX=/usr")
    subprocess.run((*arguments, "install"), check=True, timeout=RUN_TIMEOUT, stdout=subprocess.DEVNULL)
    for name in (
        "etc/echod.toml",
        "usr/bin/echod",
        "usr/bin/echoc",
        "usr/lib/echoc/echod/client/cli.py",
        "usr/lib/systemd/system/echod@.service",
        "usr/share/man/man5/echod.toml.5",
        "usr/share/man/man7/echod-events.7",
        "usr/share/man/man7/echod-guarantees.7",
        "usr/share/echoc/echoc.schema.json",
        "usr/share/bash-completion/completions/echoc",
        "usr/share/zsh/site-functions/_echod",
    ):
        assert (staged / name).is_file(), name
    assert "ExecStart=/usr/bin/echod\n" in (staged / "usr/lib/systemd/system/echod.service").read_text()
    for unit in (staged / "usr/lib/systemd/system").iterdir():
        assert max(map(len, unit.read_text().splitlines())) <= COLUMNS, unit
    subprocess.run((*arguments, "uninstall"), check=True, timeout=RUN_TIMEOUT)
    assert [name for _, _, names in os.walk(staged) for name in names] == []


def test_every_module_is_installed(packages: list[Path], tmp_path: Path) -> None:
    """The daemon's library has all of echod/ but the client, the client's the client: new packages are found too."""
    source = package.copy_checkout(tmp_path / "source")
    for name in ("scratch/__init__.py", "scratch/deep/module.py", "client/scratch/deep/module.py"):
        (source / "echod" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "echod" / name).write_text('"""A module."""\n')
    environment = os.environ | {"WHEELS": str(package.WHEELS), "DESTDIR": str(tmp_path / "staged"), "PREFIX": "/usr"}
    command = ("sh", str(source / "packaging/install.sh"), "install")
    subprocess.run(command, check=True, timeout=RUN_TIMEOUT, env=environment)
    every = modules(source / "echod")
    client = {name for name in every if name.startswith("client/")}
    assert {"client/scratch/deep/module.py", "client/load/plan.py"} <= client
    assert modules(tmp_path / "staged/usr/lib/echod/echod") == every - client
    assert modules(tmp_path / "staged/usr/lib/echoc/echod") == client | {"__init__.py"}


def modules(directory: Path) -> set[str]:
    """The paths of all modules below a directory, relative to it."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*.py")}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("PREFIX=usr",), "PREFIX=usr must be an absolute path, such as /usr/local"),
        (("PREFIX=/home/me",), "PREFIX=/home/me is in a home directory, which the service cannot see"),
        (("PREFIX=/root",), "PREFIX=/root is in a home directory, which the service cannot see"),
        (("PREFIX=/var/lib/echo",), "PREFIX=/var/lib/echo is hidden from the service or not permanent"),
        (("PYTHON=/nowhere/python3",), "PYTHON=/nowhere/python3 does not exist"),
        (("PREFIX=/a b",), "PREFIX=/a b has characters that a unit cannot contain"),
    ],
)
def test_a_bad_place_is_refused_in_a_sentence(arguments: tuple[str, ...], sentence: str, packages: list[Path]) -> None:
    """Nothing is installed in a place where the service could not run."""
    command = ("make", "-C", str(package.CHECKOUT), "install", "DESTDIR=/nonexistent/nowhere", *arguments)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT)
    assert done.returncode != 0
    assert sentence in done.stderr
