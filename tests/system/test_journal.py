"""The events of echod in the journal."""

import json
from typing import Any

import pytest

from tests.system.machine import Machine
from tests.system.service import CONFIG, UNIT, Service

# The priorities of syslog(3), which the journal uses.
PRIORITY = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


def entries(machine: Machine, *selection: str) -> list[dict[str, Any]]:
    """The journal's entries with all their fields, the oldest first."""
    listing = machine.journaled("--all", "--output=json", *selection)
    return [json.loads(line) for line in listing.splitlines()]


@pytest.fixture
def restarted(served: Service) -> Service:
    """A service whose `ready` is in the journal."""
    with served.machine.journal(f"--unit={UNIT}") as journal:
        served.machine.run("systemctl", "restart", UNIT)
        journal.wait_for_event("ready")
    return served


def test_one_json_object_an_entry(restarted: Service) -> None:
    """Each entry of the daemon is one JSON object, and those of a start are in its order."""
    names = [event["event"] for event in restarted.events()]
    assert names[0] == "starting"
    assert names.count("listening") == 2
    assert names.index("listening") < names.index("ready")


def test_jq_reads_what_echod_says(restarted: Service) -> None:
    """Every line of `journalctl -t echod -o cat` is JSON, so jq can read it."""
    others = "journalctl -t echod -o verbose --no-pager --grep '^[^{]'"
    command = f"journalctl -t echod -o cat | jq -r .event || {{ {others}; false; }}"
    names = restarted.machine.output("bash", "-o", "pipefail", "-c", command).splitlines()
    assert {"starting", "ready", "stopped"} <= set(names)


def test_a_closed_pipe_is_no_message(machine: Machine, service: Service) -> None:
    """A command of a script that systemd has killed dies of its closed pipe, and writes nothing among the events."""
    service.configure(ExecStartPre="-+/bin/sh -c 'kill -s PIPE $$$$; echo write error: Broken pipe >&2'")
    service.start()
    assert "Broken pipe" not in machine.journaled("--output=cat", service.invocation())


def test_the_sentence_comes_first(restarted: Service) -> None:
    """systemctl status and journalctl truncate a line at the width of the terminal, after the sentence."""
    told = entries(restarted.machine, restarted.invocation(), "ECHOD_EVENT=ready")
    assert [entry["MESSAGE"].startswith('{"message": "Ready: accepting connections on ') for entry in told] == [True]


def test_a_level_is_a_priority(machine: Machine, service: Service) -> None:
    """journalctl -p warning shows the warnings and nothing below."""
    # What Kubernetes injects for a service of this name; ignored with a warning.
    service.configure(Environment="ECHOD_PORT=tcp://192.0.2.1:10000")
    service.start()
    events = service.events()
    assert [event["PRIORITY"] for event in events] == [PRIORITY[event["level"]] for event in events]
    warnings = [entry["ECHOD_EVENT"] for entry in entries(machine, "--priority=warning", service.invocation())]
    assert warnings == ["config_warning"]


def test_a_connection_is_found_by_its_fields(served: Service) -> None:
    """Each field of an event is a field of the journal, by which entries can be selected."""
    with served.machine.journal("ECHOD_EVENT=connection_closed") as journal:
        assert served.echoes()
        closed = journal.wait_for_event("connection_closed")
    peer = f"ECHOD_PEER={closed['peer']}"
    (entry,) = entries(served.machine, served.invocation(), "ECHOD_EVENT=connection_closed", peer)
    fields = {"SYSLOG_IDENTIFIER": "echod", "ECHOD_REASON": "eof", "ECHOD_WORKER": "0", "_SYSTEMD_UNIT": UNIT}
    assert fields.items() <= entry.items()
    assert json.loads(entry["MESSAGE"]) == closed
    for name in ("connection", "peer", "local", "bytes_received", "bytes_sent", "chunks", "duration"):
        assert entry[f"ECHOD_{name.upper()}"] == str(closed[name])


def test_the_story_of_a_connection_is_told_by_its_id(machine: Machine, service: Service) -> None:
    """ECHOD_CONNECTION selects all events of one connection, from its acceptance to its end."""
    machine.write(CONFIG, '[log]\nlevel = "debug"\n')
    service.start()
    with machine.journal("ECHOD_EVENT=connection_closed") as journal:
        machine.run("echoc", "-m", "a sentence")
        machine.run("echoc", "-m", "another")
        first, _ = (journal.wait_for_event("connection_closed") for _ in range(2))
    story = entries(machine, service.invocation(), f"ECHOD_CONNECTION={first['connection']}")
    assert [entry["ECHOD_EVENT"] for entry in story] == [
        "connection_accepted",
        "connection_opened",
        "chunk_received",
        "chunk_sent",
        "connection_closed",
    ]


def test_an_entry_is_from_the_process_that_made_it(served: Service) -> None:
    """A worker's events have the worker's pid, which journald gets from the kernel."""
    with served.machine.journal("ECHOD_EVENT=connection_closed") as journal:
        assert served.echoes()
        entry = journal.wait_for(lambda entry: True)
    assert {int(entry["_PID"])} == served.workers()


def test_a_restart_of_journald_is_survived(restarted: Service) -> None:
    """After a restart of journald, later events are in the journal, and none was lost meanwhile."""
    restarted.machine.run("systemctl", "restart", "systemd-journald")
    with restarted.machine.journal("ECHOD_EVENT=connection_closed") as journal:
        assert restarted.echoes()
        journal.wait_for_event("connection_closed")
    assert entries(restarted.machine, restarted.invocation(), "ECHOD_EVENT=log_dropped") == []


# One process, so that it brings more than the limit on a slow machine, too. Where the disk has space, that is up to six
# times the burst.
FLOOD = """
import socket
for _ in range(500):
    with socket.create_connection(("127.0.0.1", 10000), 60) as client:
        client.sendall(b"x")
        client.recv(1)
"""


def test_a_flood_is_limited_and_counted(machine: Machine, service: Service) -> None:
    """journald drops events above the unit's rate limit, and says how many."""
    service.configure(LogRateLimitBurst="5", LogRateLimitIntervalSec="2s")
    service.start()
    suppressed: list[dict[str, Any]] = []
    # journald reports it with the first entry that it accepts after an interval, so one flood may not be enough.
    while not suppressed:
        machine.run("python3", "-c", FLOOD)
        told = entries(machine, "--identifier=systemd-journald")
        suppressed = [entry for entry in told if f"messages from {UNIT}" in entry["MESSAGE"]]
    assert "Suppressed" in suppressed[0]["MESSAGE"]


def test_a_failed_start_is_an_event_with_its_sentence(machine: Machine, service: Service) -> None:
    """The reason of a failed start is JSON too, with the priority of an error."""
    machine.write(CONFIG, "prot = 7\n")
    # Not by its invocation: journald looks that up when it reads the entry, and the process may have exited by then.
    with machine.journal("ECHOD_EVENT=cannot_start") as journal:
        assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
        entry = journal.wait_for(lambda entry: True)
    assert entry["PRIORITY"] == PRIORITY["error"]
    assert entry["ECHOD_PROBLEM"] == "/etc/echod.toml: unknown key 'prot'; did you mean 'port'?"
    assert json.loads(entry["MESSAGE"])["message"] == entry["ECHOD_PROBLEM"]
