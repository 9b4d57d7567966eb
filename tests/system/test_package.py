"""The life of the packages on a machine: installed, upgraded, downgraded, removed, purged."""

from pathlib import Path

import pytest

from tests.system import package
from tests.system.machine import Machine
from tests.system.service import CONFIG, PORT, UNIT, Service

NEW_PORT = 10001


def test_installing_leaves_a_running_service(fresh: Machine, packages: list[Path]) -> None:
    """Without a network or a question, apt leaves echod enabled, running and echoing on both loopback addresses."""
    package.install(fresh, packages)
    assert fresh.output("systemctl", "is-active", UNIT) == "active"
    assert fresh.output("systemctl", "is-enabled", UNIT) == "enabled"
    assert fresh.listening() == {f"127.0.0.1:{PORT}", f"[::1]:{PORT}"}
    assert fresh.run("nc", "-N", "127.0.0.1", str(PORT), stdin="hello\n").stdout == "hello\n"
    assert fresh.run("nc", "-N", "::1", str(PORT), stdin="hello\n").stdout == "hello\n"
    assert fresh.output("echoc", "-m", "a sentence") == "a sentence"


def test_the_client_works_alone(fresh: Machine, packages: list[Path]) -> None:
    """The package echoc does not need the package echod, compiles its modules, and removes them at a purge."""
    before = files(fresh)
    package.install(fresh, [path for path in packages if path.name.startswith("echoc_")])
    assert fresh.output("echoc", "--version") == f"echoc {package.VERSION}"
    assert fresh.output("sh", "-c", "ls /usr/lib/echoc/echod/client/__pycache__/cli.*.pyc")
    fresh.run("apt-get", "purge", "--yes", "echoc")
    assert files(fresh) - before == set()


def test_the_client_heeds_no_python_variables(fresh: Machine, packages: list[Path]) -> None:
    """The environment cannot replace a module of echoc or of Python by another one of the same name."""
    package.install(fresh, packages)
    for name in ("echod", "socket", "sitecustomize"):
        fresh.write(f"/root/others/{name}.py", "raise SystemExit('not me')\n")
    command = "cd /root/others && PYTHONPATH=/root/others PYTHONHOME=/root PYTHONSTARTUP=socket.py echoc --version"
    assert fresh.output("sh", "-c", command) == f"echoc {package.VERSION}"


def test_bash_finds_the_completions(machine: Machine) -> None:
    """With the package bash-completion, they are loaded as soon as the name of the command has been typed."""
    assert completion(machine, "echod") == "complete -F _echod echod"
    assert completion(machine, "echoc") == "complete -F _echoc echoc"


def completion(machine: Machine, name: str) -> str:
    """How bash completes the arguments of a command, after bash-completion has looked for its file."""
    look = 'source /usr/share/bash-completion/bash_completion; set -- $(complete -p -D); "$3"'
    return machine.output("bash", "-c", f"{look} {name}; complete -p {name}")


def test_nobody_is_made_for_it(fresh: Machine, packages: list[Path]) -> None:
    """No user and no group is created."""
    before = fresh.output("cat", "/etc/passwd", "/etc/group")
    package.install(fresh, packages)
    assert fresh.output("cat", "/etc/passwd", "/etc/group") == before


def test_an_installation_survives_a_taken_port(fresh: Machine, packages: list[Path]) -> None:
    """If the service cannot start, the package is installed nevertheless; between two attempts the status says why."""
    taken = f"--socket-property=ListenStream=127.0.0.1:{PORT}"
    fresh.run("systemd-run", "--unit=taker", taken, "sleep", "infinity")
    package.install(fresh, packages)
    assert fresh.output("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", "echod") == "ii "
    Service(fresh).wait_for_status("the address is in use")


def test_an_upgrade_restarts_what_runs(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """After an upgrade the new version serves, and an edited configuration is unchanged."""
    package.install(fresh, packages)
    edit(fresh)
    fresh.run("systemctl", "restart", UNIT)
    package.install(fresh, newer)
    assert running_version(fresh) == "0.2.0"
    assert fresh.output("cat", CONFIG) == f"port = {NEW_PORT}"
    assert Service(fresh).echoes(port=NEW_PORT)


def test_a_downgrade_restarts_what_runs(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """A downgrade works as an upgrade does: the older version serves."""
    package.install(fresh, newer)
    package.install(fresh, packages, "--allow-downgrades")
    assert running_version(fresh) == package.VERSION
    assert Service(fresh).echoes()


def test_an_upgrade_starts_nothing_that_was_stopped(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """A service that an administrator has stopped stays stopped."""
    package.install(fresh, packages)
    fresh.run("systemctl", "stop", UNIT)
    package.install(fresh, newer)
    assert fresh.properties(UNIT, "ActiveState") == {"ActiveState": "inactive"}


def test_an_upgrade_without_room_in_run(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """If systemd refuses to reload its units, the package is upgraded nevertheless, and the service keeps running."""
    package.install(fresh, packages)
    fresh.run("mount", "-o", "remount,size=10M", "/run")
    package.install(fresh, newer)
    assert fresh.output("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", "echod") == "ii "
    assert Service(fresh).echoes()


def test_an_upgrade_restarts_the_instances(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """An instance of the template is upgraded as the service itself is."""
    package.install(fresh, packages)
    fresh.write("/etc/echod/blue.toml", "port = 10002\n")
    fresh.run("systemctl", "start", "echod@blue")
    package.install(fresh, newer)
    assert running_version(fresh, "echod@blue.service") == "0.2.0"


@pytest.fixture(scope="session")
def pickier(prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A next version that does not accept a port above 20000."""

    def change(source: Path) -> None:
        package.substitute(source / "echod/config/types.py", "Field(ge=0, le=65535)", "Field(ge=0, le=20000)")

    return package.build(tmp_path_factory.mktemp("pickier"), "0.2.0", change)


def test_a_version_that_refuses_the_configuration_is_not_started(
    fresh: Machine, packages: list[Path], pickier: list[Path]
) -> None:
    """If the new version rejects the configuration, the old one keeps running, and apt and the journal say why."""
    package.install(fresh, packages)
    fresh.edit_unit(UNIT, "[Service]\nEnvironment=ECHOD_PORT=30000\n")
    fresh.run("systemctl", "restart", UNIT)
    service = Service(fresh)
    before = service.parent
    said = package.install(fresh, pickier)
    assert "so the old version keeps running" in said
    assert f"then: systemctl restart {UNIT}" in said
    assert service.parent == before
    assert service.echoes(port=30000)
    assert "ECHOD_PORT is '30000', but must be" in fresh.journaled("--output=cat", f"--unit={UNIT}")


def test_removing_stops_it_and_keeps_the_configuration(fresh: Machine, packages: list[Path]) -> None:
    """A removal stops everything and keeps the edited configuration; a new installation serves it, instances too."""
    package.install(fresh, packages)
    edit(fresh)
    fresh.write("/etc/echod/blue.toml", "port = 10002\n")
    fresh.run("systemctl", "enable", "--now", "echod@blue")
    fresh.run("apt-get", "remove", "--yes", "echod", "echoc")
    assert fresh.listening() == set()
    assert fresh.output("cat", CONFIG) == f"port = {NEW_PORT}"
    package.install(fresh, packages)
    assert Service(fresh).echoes(port=NEW_PORT)
    assert Service(fresh).echoes(port=10002)


def test_purging_leaves_nothing(fresh: Machine, packages: list[Path]) -> None:
    """After a purge the machine has no file that it did not have before."""
    before = files(fresh)
    package.install(fresh, packages)
    edit(fresh)
    fresh.run("apt-get", "purge", "--yes", "echod", "echoc")
    assert files(fresh) - before == set()
    assert fresh.run("systemctl", "cat", UNIT, check=False).returncode != 0


def test_purging_leaves_no_dangling_link(fresh: Machine, packages: list[Path]) -> None:
    """The links by which an administrator enabled instances, the socket and the drop-ins go with the package."""
    before = files(fresh)
    package.install(fresh, packages)
    fresh.write("/etc/echod/lab.toml", "port = 10002\n")
    fresh.run("systemctl", "enable", "--now", "echod@lab")
    fresh.run("systemctl", "enable", "echod.socket")
    fresh.run("mkdir", "/etc/systemd/system/echod.service.d", "/etc/systemd/system/echod@lab.service.d")
    for directory in ("echod.service.d", "echod@lab.service.d"):
        for name in ("privileged-port.conf", "socket-activated.conf"):
            fresh.run("ln", "-s", f"/usr/share/echod/{name}", f"/etc/systemd/system/{directory}/")
    fresh.run("apt-get", "purge", "--yes", "echod", "echoc")
    # The administrator's files stay, and systemctl created this directory.
    assert files(fresh) - before - {"/etc/systemd/system/sockets.target.wants"} == {"/etc/echod", "/etc/echod/lab.toml"}


def test_purging_keeps_what_still_leads_somewhere(fresh: Machine, packages: list[Path]) -> None:
    """An instance of another installation, as by make install, stays enabled; so does an administrator's drop-in."""
    package.install(fresh, packages)
    unit = "/usr/local/lib/systemd/system/echod@.service"
    link = "/etc/systemd/system/multi-user.target.wants/echod@lab.service"
    drop_in = "/etc/systemd/system/echod.service.d/privileged-port.conf"
    fresh.run("install", "-D", "-m", "644", "/usr/lib/systemd/system/echod@.service", unit)
    fresh.run("ln", "-s", unit, link)
    fresh.write(drop_in, "[Service]\n")
    fresh.run("apt-get", "purge", "--yes", "echod", "echoc")
    assert fresh.output("readlink", link) == unit
    assert fresh.output("cat", drop_in) == "[Service]"


def test_a_package_comes_and_goes_without_a_warning(fresh: Machine, packages: list[Path], newer: list[Path]) -> None:
    """dpkg, debhelper's scripts and systemd have nothing to warn of, from the installation to the purge."""
    said = package.install(fresh, packages)
    said += package.install(fresh, newer)
    for step in ("remove", "purge"):
        done = fresh.run("apt-get", step, "--yes", "echod", "echoc")
        said += done.stdout + done.stderr
    assert [line for line in said.splitlines() if "warn" in line.lower()] == []


def edit(machine: Machine) -> None:
    """A local change of the configuration file."""
    machine.write(CONFIG, f"port = {NEW_PORT}\n")


def running_version(machine: Machine, unit: str = UNIT) -> str:
    """The version that the unit's process logged at its start."""
    return str(next(event["version"] for event in Service(machine, unit).events() if event["event"] == "starting"))


# What a machine, apt, dpkg and these tests themselves write while they run.
OTHERS = ("/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log")


def files(machine: Machine) -> set[str]:
    """The paths of all files of the machine."""
    pruned = " -o ".join(f"-path {path}" for path in OTHERS)
    return set(machine.output("sh", "-c", f"find / \\( {pruned} \\) -prune -o -print").splitlines())
