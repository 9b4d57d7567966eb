"""How each step of the plan is carried out, on the machine."""

from collections import Counter
from collections.abc import Callable

from tests.system.machine import Machine
from tests.system.service import CONFIG, UNIT
from tests.system.soak.plan import BASE, Step

TIMEOUT = 100.0
"""Seconds that one command may take."""
EXHAUST = """
limit=$(prlimit --pid "$0" --nofile --noheadings --output SOFT) && opened=$(ls "/proc/$0/fd" | wc -l) || exit
prlimit --pid "$0" --nofile="$((opened + 3)):"
sleep "$1"
prlimit --pid "$0" --nofile="$((limit)):"
"""
"""The process may open three more descriptors than it has."""
FLOOD = """
kill -STOP "$0"
trap 'kill -CONT "$0"' EXIT
systemctl reload echod.service
sleep "$1"
"""
"""While journald reads nothing, every chunk is an event."""


class Actions:
    """The administrator, and the misfortunes, of one soak."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._configuration = BASE
        """The last valid configuration."""
        self._under_way = False
        """Whether a job may be under way that was not waited for."""
        self.done: Counter[str] = Counter()
        self.unexpected: list[str] = []
        """The commands whose exit status was not the expected one."""

    def take(self, step: Step) -> None:
        """Carry out one step."""
        self.done[step.kind] += 1
        KINDS[step.kind](self, step)

    def end(self) -> None:
        """Return to the configuration of the beginning."""
        self._configure(BASE)
        self._systemctl("reload", waits=True)

    def restart(self, step: Step) -> None:
        """Restart the service."""
        self._systemctl("restart", waits=step.waits)

    def reload(self, step: Step) -> None:
        """Reload another valid configuration."""
        self._configuration = step.text
        self._configure(step.text)
        self._systemctl("reload", waits=step.waits)

    def reload_with_an_error(self, step: Step) -> None:
        """Reload a configuration with an error, and write the valid one again.

        With systemd's answer not waited for, echod may find either of the two.
        """
        self._configure(step.text)
        self._systemctl("reload", waits=step.waits, fails=True)
        self._configure(self._configuration)

    def restart_with_an_error(self, step: Step) -> None:
        """Restart with a configuration by which no echod can serve, so that it continues with the last one."""
        self._configure(step.text)
        self._systemctl("restart", waits=step.waits)
        self._configure(self._configuration)

    def kill(self, step: Step) -> None:
        """kill -9 of a worker."""
        self._run("sh", "-c", 'kill -9 "$0"', self._chosen(step, self._workers()))

    def freeze(self, step: Step) -> None:
        """SIGSTOP of a worker, for a while or until its parent kills it."""
        script = f'kill -STOP "$0"; sleep {step.hold:.1f}; kill -CONT "$0"' if step.hold else 'kill -STOP "$0"'
        self._run("sh", "-c", script, self._chosen(step, self._workers()))

    def exhaust(self, step: Step) -> None:
        """Let a process, parent or worker, open hardly any more descriptors for a while."""
        pids = [self._show(UNIT, "MainPID"), *self._workers()]
        self._run("sh", "-c", EXHAUST, self._chosen(step, pids), f"{step.hold:.1f}")

    def reexecute(self, step: Step) -> None:
        """systemctl daemon-reexec, during which systemd answers nothing."""
        self._run("systemctl", "daemon-reexec")

    def fill_the_log(self, step: Step) -> None:
        """Log every chunk at debug while journald is frozen, so that events have to be dropped."""
        self._configure(f"log.level = 'debug'\n{self._configuration}")
        self._run("sh", "-c", FLOOD, self._show("systemd-journald", "MainPID"), f"{step.hold:.1f}")
        self._configure(self._configuration)
        self._systemctl("reload", waits=True)

    def _configure(self, text: str) -> None:
        self._machine.write(CONFIG, text)

    def _systemctl(self, verb: str, *, waits: bool, fails: bool = False) -> None:
        options = () if waits else ("--no-block",)
        done = self._machine.run("systemctl", *options, verb, UNIT, check=False, timeout=TIMEOUT)
        # systemd merges a reload into a restart that is under way, and then the status is the restart's.
        if waits and not self._under_way and (done.returncode != 0) != fails:
            self.unexpected.append(f"systemctl {verb}: exit status {done.returncode} {done.stderr.strip()}")
        self._under_way = not waits

    def _run(self, *command: str) -> str:
        """What a command wrote; it may fail, since the process that it is for may have ended."""
        return self._machine.run(*command, check=False, timeout=TIMEOUT).stdout

    def _show(self, unit: str, name: str) -> str:
        """A property of a unit; empty while systemd does not answer."""
        return self._run("systemctl", "show", "--property", name, "--value", unit).strip()

    def _workers(self) -> list[str]:
        """The processes of the unit except its parent; none while there are none."""
        found = self._run("cat", f"/sys/fs/cgroup{self._show(UNIT, 'ControlGroup')}/cgroup.procs")
        return sorted(set(found.split()) - {self._show(UNIT, "MainPID")}, key=int)

    @staticmethod
    def _chosen(step: Step, pids: list[str]) -> str:
        """One of the processes; 'none' if there is none, for which each script does nothing."""
        return pids[int(step.choice * len(pids))] if pids else "none"


KINDS: dict[str, Callable[[Actions, Step], None]] = {
    "restart": Actions.restart,
    "reload": Actions.reload,
    "reload with an error": Actions.reload_with_an_error,
    "restart with an error": Actions.restart_with_an_error,
    "kill a worker": Actions.kill,
    "freeze a worker": Actions.freeze,
    "exhaust descriptors": Actions.exhaust,
    "re-execute systemd": Actions.reexecute,
    "fill the log": Actions.fill_the_log,
}
"""How each kind of step is carried out."""
