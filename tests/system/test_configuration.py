"""/etc/echod.toml and `systemctl edit`, each seen with ss(8), in the status, and by a client."""

import signal

import pytest

from tests.system.machine import PATIENCE, Machine, kill
from tests.system.service import CONFIG, PORT, UNIT, Service
from tests.system.test_failures import send


def check(service: Service, addresses: set[str]) -> None:
    """Check that echod listens on exactly these addresses, shows them in its status, and echoes on each."""
    assert service.machine.listening() == addresses
    for address in addresses:
        assert address in service.show("StatusText")
        host, _, port = address.rpartition(":")
        reached = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
        assert service.echoes(reached, int(port))


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("", {f"0.0.0.0:{PORT}", f"[::]:{PORT}"}),
        ("0.0.0.0", {f"0.0.0.0:{PORT}"}),
        ("localhost", {f"127.0.0.1:{PORT}", f"[::1]:{PORT}"}),
        ("::1", {f"[::1]:{PORT}"}),
    ],
)
def test_the_host_of_the_file_is_where_it_listens(
    machine: Machine, service: Service, host: str, addresses: set[str]
) -> None:
    """echod listens where `host` says: every address, every IPv4 address, a name, one address."""
    machine.write(CONFIG, f'host = "{host}"\n')
    service.start()
    check(service, addresses)


def test_a_name_of_etc_hosts(machine: Machine, service: Service) -> None:
    """A host name is looked up, in the daemon's sandbox too."""
    machine.write("/etc/hosts", "127.0.0.2 echo.example\n")
    machine.write(CONFIG, 'host = "echo.example"\n')
    service.start()
    check(service, {f"127.0.0.2:{PORT}"})


def test_port_7_by_the_drop_in(machine: Machine, service: Service) -> None:
    """privileged-port.conf and `port = 7`: the port of RFC 862, with one capability."""
    machine.write(CONFIG, "port = 7\n")
    service.use("privileged-port.conf")
    service.start()
    check(service, {"127.0.0.1:7", "[::1]:7"})
    status = machine.output("cat", f"/proc/{service.parent}/status")
    assert "CapBnd:\t0000000000000400" in status


def test_port_7_without_the_drop_in_says_what_is_missing(machine: Machine, service: Service) -> None:
    """The status has the sentence with the remedy."""
    machine.write(CONFIG, "port = 7\n")
    service.configure(Restart="no")  # a restart would begin with an empty status
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert "port 7 is privileged" in service.show("StatusText")
    assert "port 7 is privileged" in service.status()


def test_the_environment_by_systemctl_edit(machine: Machine, service: Service) -> None:
    """A variable in a drop-in, as `systemctl edit` writes it, overrides the file."""
    machine.write(CONFIG, "port = 10001\n")
    machine.edit_unit(UNIT, "[Service]\nEnvironment=ECHOD_PORT=10002\n")
    service.start()
    check(service, {"127.0.0.1:10002", "[::1]:10002"})


def test_a_reload_that_fails(machine: Machine, served: Service) -> None:
    """systemctl reload fails, and the status says so and why until a reload succeeds; the same process continues."""
    parent = served.parent
    machine.write(CONFIG, 'port = "ten thousand"\n')
    for number in ("1 reload", "2 reloads"):
        assert machine.run("systemctl", "reload", UNIT, check=False).returncode == 1
        assert f"; {number}; last reload failed: {CONFIG}: port is 'ten thousand'" in served.show("StatusText")
    assert all(served.echoes() for _ in range(6))
    status = served.status()
    assert "status=78" in status
    assert "last reload failed: /etc/echod.toml: port is 'ten thousand'" in status
    problems = [event["problem"] for event in served.events() if event["event"] == "reload_refused"]
    assert len(problems) == 2
    assert "ten thousand" in problems[1]
    assert served.parent == parent
    machine.write(CONFIG, "")
    machine.run("systemctl", "reload", UNIT)
    assert served.show("StatusText").endswith(" echoed; 3 reloads.")


def test_a_reload_that_cannot_bind(machine: Machine, served: Service) -> None:
    """The daemon judges in its own sandbox: a port that root could bind, but the service cannot, fails the reload."""
    machine.write(CONFIG, "port = 7\n")
    assert machine.run("systemctl", "reload", UNIT, check=False).returncode == 1
    assert "; 1 reload; last reload failed: " in served.show("StatusText")
    assert "port 7 is privileged" in served.show("StatusText")
    assert served.echoes()


USER_UNIT = """\
[Service]
Type=notify
ExecStart=/usr/bin/echod --port 10000
ExecReload=/usr/lib/echod/ask-reload %n
ExecStop=/usr/lib/echod/announce-stop %n
ExecStopPost=/usr/lib/echod/back-off %n
"""


def test_reload_by_a_user_manager(machine: Machine) -> None:
    """The scripts of the unit ask the manager that runs it, also if that is a user's."""
    machine.write("/run/systemd/user/echo.service", USER_UNIT)
    # pam_systemd, which a minimal Debian lacks, would set it.
    Service(machine, "user@0.service").configure(Environment="XDG_RUNTIME_DIR=/run/user/0")
    machine.run("systemctl", "start", "user@0.service")
    try:
        run = ("env", "XDG_RUNTIME_DIR=/run/user/0", "systemctl", "--user")
        machine.run(*run, "start", "echo.service")
        machine.run(*run, "reload", "echo.service")
        machine.write(CONFIG, "prot = 7\n")
        assert machine.run(*run, "reload", "echo.service", check=False).returncode == 1
        text = machine.output(*run, "show", "--property=StatusText", "--value", "echo.service")
        assert "; 2 reloads; last reload failed: /etc/echod.toml: unknown key 'prot'" in text
        pid = machine.output(*run, "show", "--property=MainPID", "--value", "echo.service")
        machine.run(*run, "stop", "echo.service")
        # A stop that was not announced would be taken for a restart, and this unit has no store for one.
        assert machine.journaled(f"_PID={pid}", "ECHOD_EVENT=handover_impossible") == ""
        assert machine.journaled(f"_PID={pid}", "ECHOD_EVENT=stopped") != ""
    finally:
        machine.run("systemctl", "stop", "user@0.service")
        machine.run("rm", "-r", "/run/systemd/user/echo.service", "/run/systemd/system/user@0.service.d")


def test_a_reload_of_a_right_configuration_takes_effect(machine: Machine, served: Service) -> None:
    """systemctl reload returns once the new settings are in effect, and the process is the same."""
    parent = served.parent
    machine.write(CONFIG, "[limits]\nmax_connections = 5\n")
    with machine.journal(f"--unit={UNIT}") as journal:
        machine.run("systemctl", "reload", UNIT)
        assert journal.wait_for_event("reloaded")["changed"] == ["limits.max_connections"]
    assert served.parent == parent
    assert served.echoes()


def hangs_up(machine: Machine, pid: int) -> bool:
    """Whether a stopped process has a SIGHUP that it has not handled yet (ShdPnd, proc_pid_status(5))."""
    lines = machine.output("cat", f"/proc/{pid}/status").splitlines()
    pending = next(line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) & 1 << signal.SIGHUP - 1)


def test_a_reload_lasts_until_the_daemon_has_seen_it(machine: Machine, served: Service) -> None:
    """systemctl reload waits for a daemon that handles its signals late, and then for its verdict."""
    served.configure(WatchdogSec="0")
    machine.run("systemctl", "restart", UNIT)
    machine.write(CONFIG, "[limits]\nmax_connections = 5\n")
    send(served, signal.SIGSTOP, served.parent)
    reload = machine.start("systemctl", "reload", UNIT)
    try:
        while not hangs_up(machine, served.parent):
            assert reload.poll() is None, "it is over"
        assert reload.poll() is None
        send(served, signal.SIGCONT, served.parent)
        assert reload.wait(PATIENCE) == 0
    finally:
        kill(reload)
    assert served.show("SubState") == "running"


def test_each_instance_has_its_file(machine: Machine, service: Service) -> None:
    """echod@NAME serves by /etc/echod/NAME.toml, beside the others."""
    machine.write("/etc/echod/blue.toml", "port = 10001\n")
    machine.write("/etc/echod/green.toml", "port = 10002\n")
    machine.run("systemctl", "start", "echod@blue", "echod@green", "echod")
    assert all(service.echoes(port=port) for port in (10000, 10001, 10002))
    machine.write("/etc/echod/blue.toml", "prot = 10001\n")
    assert machine.run("systemctl", "reload", "echod@blue", check=False).returncode != 0
    machine.run("systemctl", "reload", "echod@green")
    assert machine.properties("echod@green", "Description") == {"Description": "TCP echo daemon (RFC 862), green"}


def test_an_instance_without_a_file_says_so(machine: Machine) -> None:
    """An instance without a file fails, and systemd does not start it again."""
    assert machine.run("systemctl", "start", "echod@none", check=False).returncode != 0
    status = Service(machine, "echod@none").status()
    assert "/etc/echod/none.toml: cannot be read: No such file or directory" in status
    assert "status=78" in status
