"""`make soak`: one Debian, booted, and echod under load and under attack; a report, and status 1 if a bound is broken.

`clients` is the load, `plan` and `actions` are the attack, and `report` compares what the clients have seen with what
echod has logged.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from echod.config.types import parse_duration
from tests.system import package, roots
from tests.system.boot import boot
from tests.system.figures import figures
from tests.system.machine import PATIENCE, POLL, Machine, event_of, kill, readable
from tests.system.service import CONFIG, UNIT, Service
from tests.system.soak.actions import Actions
from tests.system.soak.plan import BASE, steps
from tests.system.soak.report import Soak, grown

CLIENTS = Path(__file__).with_name("clients.py")
CLIENTS_FILE = "/root/clients.py"
COUNT = 200
"""Connections that stay."""
WARM_UP = 5.0
"""Seconds with clients, before the first figures."""
ENDING = 180.0
"""Seconds that the clients may take to begin, and to end; their own waits are shorter."""

EXPLAINING = ("connection_closed", "worker_exited", "taken_over", "handed_over", "log_dropped", "bug", "reloaded")
"""The events that a report needs."""
# Events are read from this file, so that it does not matter how many the journal keeps. The end of a connection by its
# client explains no loss, and there are fifty of these a second.
EVENTS_FILE = "/root/events"
FOLLOW = """
journalctl --follow --lines=all --output=json --output-fields=MESSAGE "$@" |
grep --line-buffered -vE 'reason.{1,9}eof' >"$0"
"""
CATCH_UP = 'until grep --quiet --fixed-strings "$0" "$1"; do sleep 0.1; done'


class Load:
    """The clients, which run during `with load(...)`."""

    tally: dict[str, Any]
    """What they have counted, at their end."""


@contextmanager
def load(machine: Machine, seed: int) -> Iterator[Load]:
    """Run the clients during the block, at whose beginning all that stay have had an echo."""
    clients = Load()
    process = machine.start("python3", CLIENTS_FILE, str(COUNT), str(seed), stdin=-1)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    def line() -> str:
        assert process.stdout is not None
        assert readable(process.stdout.fileno(), time.monotonic() + ENDING), f"clients: nothing for {ENDING} s"
        return process.stdout.readline()

    try:
        assert line() == "begun\n", process.stderr.read()
        yield clients
        process.stdin.close()
        answer = line()
        assert answer, process.stderr.read()
        clients.tally = json.loads(answer)
    finally:
        kill(process)


@contextmanager
def events(machine: Machine) -> Iterator[list[dict[str, Any]]]:
    """The unit's events during the block, each with the time `at`; the list is filled at the end."""
    found: list[dict[str, Any]] = []
    process = machine.start("sh", "-c", FOLLOW, EVENTS_FILE, *(f"ECHOD_EVENT={name}" for name in EXPLAINING))
    try:
        yield found
        last = machine.journaled("ECHOD_EVENT=reloaded", "--lines=1", "--output=json")
        machine.run("sh", "-c", CATCH_UP, json.loads(last)["__CURSOR"], EVENTS_FILE)
        for line in machine.output("cat", EVENTS_FILE).splitlines():
            entry = json.loads(line)
            if event := event_of(entry):
                found.append(event | {"at": int(entry["__REALTIME_TIMESTAMP"]) / 1e6})
    finally:
        kill(process)


def settled(service: Service, before: dict[str, int]) -> dict[str, int]:
    """The figures, once they are what they were; after PATIENCE whatever they are."""
    deadline = time.monotonic() + PATIENCE
    while list(grown(before, after := figures(service))) and time.monotonic() < deadline:
        time.sleep(POLL)
    return after


def attack(actions: Actions, seed: int, duration: float) -> None:
    """Take the steps of this seed, one after the other, for `duration` seconds."""
    began = time.monotonic()
    for step in steps(seed):
        if time.monotonic() + step.pause - began > duration:
            return
        time.sleep(step.pause)
        print(f"{time.monotonic() - began:7.1f} s {step}", flush=True)
        actions.take(step)


def soak(machine: Machine, seed: int, duration: float, title: str) -> Soak:
    """Run one soak on a machine with the packages installed."""
    service, actions = Service(machine), Actions(machine)
    machine.run("systemctl", "stop", UNIT)  # the package has started it
    machine.write(CLIENTS_FILE, CLIENTS.read_text())
    machine.write(CONFIG, BASE)
    # Otherwise journald would drop some of the events that explain losses.
    service.configure(LogRateLimitIntervalSec="0")
    service.start()
    with load(machine, seed):
        time.sleep(WARM_UP)
    actions.end()
    before = figures(service)
    with events(machine) as seen:
        with load(machine, seed) as clients:
            attack(actions, seed, duration)
        actions.end()
        after = settled(service, before)
    return Soak(title, actions.done, actions.unexpected, clients.tally, seen, before, after)


def main() -> None:
    """Run a soak as the command line says."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--duration", type=parse_duration, required=True)
    parser.add_argument("--seed", type=int, help="default: a new one")
    parser.add_argument("--root", choices=roots.SUITES, required=True)
    options = parser.parse_args()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    if reason := roots.missing():
        sys.exit(f"make soak: no machine can be booted here: {reason}")
    title = f"echod soak: {options.root}, seed {seed}, {options.duration:g} s"
    print(title, flush=True)
    root = roots.create(options.root)
    with tempfile.TemporaryDirectory() as scratch, boot(options.root, root, Path(scratch)) as machine:
        (Path(scratch) / "build").mkdir()
        package.install(machine, package.build(Path(scratch) / "build"))
        found = soak(machine, seed, options.duration, title)
    print("\n".join(["", *found.lines()]))
    sys.exit(bool(found.broken()))


if __name__ == "__main__":
    main()
