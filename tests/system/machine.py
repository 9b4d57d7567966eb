"""A booted machine from inside: run commands, put files, follow the journal."""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

RUN_TIMEOUT = 180.0
"""Seconds that a command may take: twenty times as long as apt, in case the machine is busy."""
PATIENCE = 60.0
"""Seconds within which an awaited event must happen."""
POLL = 0.05

# The variables of a login on a fresh system, and none of the host's.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "cat",
    "SYSTEMD_COLORS": "0",
}


# systemctl passes the file as the last argument, after options for the editor.
EDITOR = """\
#!/bin/sh
for file; do :; done
exec sed -i '/^### Anything between/r /run/text' "$file"
"""


class Machine:
    """A running machine, made by boot(); `leader` is the PID that its process 1 has on the host."""

    def __init__(self, leader: int) -> None:
        self._enter = ("nsenter", "--target", str(leader), "--all", "--")

    def start(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command inside, as root, in a process group of its own.

        nsenter forks into the PID namespace, so killing it alone would leave the command running: kill() the group.
        """
        return subprocess.Popen(
            (*self._enter, *command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *command: str, check: bool = True, stdin: str = "", timeout: float = RUN_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end. Raises AssertionError if it fails and `check` is set, TimeoutExpired."""
        process = self.start(*command, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout)
        finally:
            kill(process)
        if check:
            assert process.returncode == 0, f"{' '.join(command)}: {process.returncode}\n{out}{err}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def output(self, *command: str) -> str:
        """What a command that must succeed wrote to standard output, without the last newline."""
        return self.run(*command).stdout.rstrip("\n")

    def write(self, path: str, text: str) -> None:
        """Put a file into the machine, readable by all, with the directories above it."""
        self.run("install", "-D", "-m", "644", "/dev/stdin", path, stdin=text)

    def put(self, file: IO[bytes], path: str) -> None:
        """Copy a file of the host's into the machine, readable by all."""
        command = (*self._enter, "install", "-m", "644", "/dev/stdin", path)
        subprocess.run(command, stdin=file, env=ENVIRONMENT, check=True, timeout=RUN_TIMEOUT)

    def unpack(self, archive: bytes, into: str) -> None:
        """Extract a tar archive inside."""
        command = (*self._enter, "tar", "-x", "--no-same-owner", "-C", into)
        subprocess.run(command, input=archive, env=ENVIRONMENT, check=True, timeout=RUN_TIMEOUT)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit as `systemctl show` writes them."""
        listing = self.output("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in listing.splitlines())

    def listening(self) -> set[str]:
        """The TCP addresses of listening sockets, as ss(8) writes them."""
        listeners = self.output("ss", "--no-header", "--listening", "--tcp", "--numeric")
        return {line.split()[3] for line in listeners.splitlines()}

    def edit_unit(self, unit: str, text: str) -> None:
        """Enter `text` by `systemctl edit`, which needs a terminal and an editor."""
        self.write("/run/text", text)
        self.write("/run/editor", EDITOR)
        self.run("chmod", "755", "/run/editor")
        self.run("script", "--quiet", "--return", "--command", f"SYSTEMD_EDITOR=/run/editor systemctl edit {unit}")

    def wait_for_change(self, unit: str, name: str, old: str) -> str:
        """The new value of a property that was `old`. Raises AssertionError if it does not change within PATIENCE.

        It polls, because systemd announces only some of its properties on the bus.
        """
        deadline = time.monotonic() + PATIENCE
        while (value := self.properties(unit, name)[name]) == old:
            assert time.monotonic() < deadline, f"{name} of {unit} is still {old!r} after {PATIENCE} s"
            time.sleep(POLL)
        return value

    def journaled(self, *arguments: str) -> str:
        """The output of journalctl, including everything that was sent to the journal before this call."""
        # journald answers once it has processed its queues; until then an entry may still be in them.
        self.run("journalctl", "--sync")
        return self.output("journalctl", "--quiet", *arguments)

    @contextmanager
    def journal(self, *selection: str) -> Iterator["Journal"]:
        """Follow the journal from now on, with journalctl's arguments `selection`."""
        # Only an empty journal has no cursor, and a booted machine's is not.
        shown = self.journaled("--lines=0", "--show-cursor")
        cursor = shown.removeprefix("-- cursor: ")
        follow = ("journalctl", "--follow", "--no-tail", f"--after-cursor={cursor}", "--output=json", "--all")
        process = self.start(*follow, *selection)
        try:
            yield Journal(process)
        except AssertionError as error:
            error.add_note(self.journaled("--lines=30"))  # it may have what the follower did not show
            raise
        finally:
            kill(process)


class Journal:
    """The journal's entries, one after the other; made by Machine.journal()."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.seen: list[dict[str, Any]] = []
        self._descriptor = process.stdout.fileno()
        self._pending = b""

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE) -> dict[str, Any]:
        """The next entry that `wanted` accepts. After `timeout` s, raises AssertionError with the other entries."""
        deadline = time.monotonic() + timeout
        while True:
            entry = self._next(deadline)
            if entry is None:
                last = "\n".join(str(entry.get("MESSAGE")) for entry in self.seen[-40:])
                raise AssertionError(f"not what was awaited, within {timeout} s:\n{last}")
            if wanted(entry):
                return entry

    def wait_for_event(self, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next JSON event of this name."""
        return event_of(self.wait_for(lambda entry: event_of(entry).get("event") == name, timeout))

    def _next(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._pending:
            if not readable(self._descriptor, deadline):
                return None
            chunk = os.read(self._descriptor, 65536)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        entry: dict[str, Any] = json.loads(line)
        self.seen.append(entry)
        return entry


def event_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object in a journal entry's message; empty for messages of other programs, such as systemd."""
    message = entry.get("MESSAGE")
    if not isinstance(message, str) or not message.startswith("{"):
        return {}
    event: dict[str, Any] = json.loads(message)
    return event


def readable(descriptor: int, deadline: float) -> bool:
    """Whether there is something to read before the deadline (time.monotonic())."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, deadline - time.monotonic())))


def kill(process: subprocess.Popen[str]) -> None:
    """End a command of Machine.start() and its children, which may have exited already, and close the pipes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
