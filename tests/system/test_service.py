"""What an administrator sees of echod under systemd: start, status, journal, stop."""

from tests.system.machine import Machine, kill
from tests.system.service import CONFIG, PORT, UNIT, Service


def test_it_runs_once_started(served: Service) -> None:
    """systemctl start ends well, and the unit is active."""
    assert served.show("ActiveState") == "active"
    assert served.show("Result") == "success"


def test_localhost_is_both_loopback_addresses(served: Service) -> None:
    """By default it listens on 127.0.0.1 and ::1 port 10000 and nowhere else, though there is no /etc/hosts."""
    assert served.machine.listening() == {f"127.0.0.1:{PORT}", f"[::1]:{PORT}"}


def test_it_echoes_on_both(served: Service) -> None:
    """A client gets its bytes back over IPv4 and over IPv6."""
    assert served.echoes("127.0.0.1")
    assert served.echoes("::1")


def test_echoc_agrees(served: Service) -> None:
    """The installed echoc finds the daemon without arguments, and gets its sentence back."""
    assert served.machine.output("echoc", "-m", "a sentence") == "a sentence"


def test_the_status_is_a_sentence_with_the_addresses(served: Service) -> None:
    """systemctl status shows the addresses in a sentence."""
    status = served.show("StatusText")
    assert f"127.0.0.1:{PORT}" in status
    assert f"[::1]:{PORT}" in status
    assert len(status.split()) > 3
    assert status in served.status()


def test_the_status_counts_what_was_served(served: Service) -> None:
    """The sentence changes after a connection: how many there have been, and how many bytes were echoed."""
    before = last = served.show("StatusText")
    assert served.echoes()
    # While a connection lasts, a worker counts its bytes once a second; the status may be sent in between.
    while "1 in total; 21.5 KiB" not in last:
        last = served.machine.wait_for_change(UNIT, "StatusText", last)
    assert "0 in total; 0 bytes" in before


def test_started_means_served(machine: Machine, service: Service) -> None:
    """When systemctl start returns, a connection is served at once; every time."""
    for _ in range(5):
        assert machine.run("sh", "-c", f"systemctl start {UNIT} && exec echoc 127.0.0.1 {PORT} -m now").stdout
        machine.run("systemctl", "stop", UNIT)


def test_the_plain_command_works_as_a_transient_unit(machine: Machine, service: Service) -> None:
    """echod runs by systemd-run -p Type=notify, without anything from the unit file."""
    plain = "echod-plain.service"
    machine.run("systemd-run", f"--unit={plain}", "-p", "Type=notify", "echod", "--port", "10001")
    assert machine.output("systemctl", "is-active", plain) == "active"
    assert service.echoes(port=10001)
    machine.run("systemctl", "stop", plain)
    # A transient unit that failed would stay; systemd removes one that ended well when it has time for that.
    assert machine.wait_for_change(plain, "LoadState", "loaded") == "not-found"


def test_stop_is_clean(served: Service) -> None:
    """systemctl stop lets echod drain: exit status 0, `stopped` is the last event, and no process is left to kill."""
    with served.machine.journal(f"--unit={UNIT}") as journal:
        served.machine.run("systemctl", "stop", UNIT)
        journal.wait_for_event("stopped")
    assert served.show("Result") == "success"
    assert served.show("ExecMainStatus") == "0"
    assert not any("SIGKILL" in str(entry.get("MESSAGE")) for entry in journal.seen)
    left = served.machine.run("cat", f"/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs", check=False)
    assert left.stdout == ""


def test_a_broken_configuration_fails_once_and_says_why(machine: Machine, service: Service) -> None:
    """Exit status 78 is not retried, and systemctl status shows it with the sentence that names the file."""
    machine.write("/etc/echod.toml", 'port = "ten thousand"\n')
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    found = machine.properties(UNIT, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert found == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0"}
    status = service.status()
    assert "status=78/CONFIG" in status
    assert "/etc/echod.toml" in status
    assert "ten thousand" in status


# A client that never reads its echo. It prints a line once the daemon reads no more from it, although its loop has run
# several times since, as the echoes of another client show.
DEAF = """
import socket, sys
client, other = (socket.create_connection(("127.0.0.1", 10000), 60) for _ in range(2))
client.setblocking(False)
turns = 0
while turns < 10:
    try:
        client.send(bytes(1 << 16))
        turns = 0
    except BlockingIOError:
        other.sendall(b"x")
        turns += len(other.recv(1))
other.shutdown(socket.SHUT_WR)
assert other.recv(1) == b""
print("full", flush=True)
sys.stdin.readline()
"""


def test_draining_may_take_longer_than_systemd_allows(machine: Machine, service: Service) -> None:
    """echod requests the time of limits.drain_timeout (EXTEND_TIMEOUT_USEC=), and is not killed before that."""
    assert service.show("TimeoutStopUSec") == "10s"
    machine.write(CONFIG, "[limits]\ndrain_timeout = 12\n")
    service.start()
    client = machine.start("python3", "-c", DEAF, stdin=-1)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "full\n"
        machine.run("systemctl", "stop", UNIT)
    finally:
        kill(client)
    assert [event["reason"] for event in service.events() if event["event"] == "connection_closed"] == ["eof", "cut"]
    assert service.show("Result") == "success"
