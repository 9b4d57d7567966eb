"""packaging/systemd/ask-reload: the verdict on a reload, read from the daemon's status."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from echod.parent.status import Reloads, serving
from echod.shared.counters import Totals

ASK_RELOAD = Path(__file__).parents[2] / "packaging/systemd/ask-reload"
UNIT = "echod.service"

# In systemctl's place: each line of the file `statuses` is one answer; the last one stays. An empty one is a failure,
# as while systemd executes itself again. The arguments of each call are kept.
SYSTEMCTL = """\
#!/bin/sh
cd {directory}
echo "$@" >>calls
status=$(head -n 1 statuses)
[ "$(wc -l <statuses)" = 1 ] || sed -i 1d statuses
[ -n "$status" ] && echo "$status"
"""
# In the daemon's place: SIGHUP, and nothing earlier, makes the statuses of the file `after` the next ones.
DAEMON = """
import os, signal, sys
os.chdir(sys.argv[1])
signal.signal(signal.SIGHUP, lambda *_: os.rename("after", "statuses"))
print(flush=True)
while True:
    signal.pause()
"""
# Ten seconds pass between two looks at the clock.
DATE = "#!/bin/sh\ncd {directory}\necho $(($(cat now) + 10)) >later\nmv later now\ncat now\n"
SLEEP = "#!/bin/sh\n"


def sentence(reloads: int, *, reloading: bool = False, refused: str = "") -> str:
    """A status of the daemon."""
    totals = Totals(clients_now=1, clients_total=2, clients_refused=0, bytes_echoed=3)
    return serving(["[::1]:7"], totals, adopted=False, overruled=[], reloads=Reloads(reloads, reloading, refused))


def ask(
    directory: Path,
    before: Sequence[str],
    after: Sequence[str],
    *,
    dies: bool = False,
    clock: bool = False,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the script, with these statuses before and after SIGHUP; the clock stands still unless `clock`."""
    (directory / "statuses").write_text("".join(f"{line}\n" for line in before))
    (directory / "after").write_text("".join(f"{line}\n" for line in after))
    (directory / "now").write_text("0")
    commands = {"systemctl": SYSTEMCTL, "sleep": SLEEP, "date": DATE if clock else "#!/bin/sh\necho 0\n"}
    for name, text in commands.items():
        (directory / name).write_text(text.format(directory=directory))
        (directory / name).chmod(0o755)
    with subprocess.Popen((sys.executable, "-c", DAEMON, directory), stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            if dies:
                daemon.kill()
                daemon.wait()
            environment = {"PATH": f"{directory}:/usr/bin:/bin", "MAINPID": str(daemon.pid)} | dict(variables or {})
            return subprocess.run((ASK_RELOAD, UNIT), env=environment, capture_output=True, text=True, timeout=60)
        finally:
            daemon.kill()


@pytest.mark.parametrize("before", [0, 1, 999])
def test_accepted(tmp_path: Path, before: int) -> None:
    """It succeeds once one more reload has ended, and none has failed."""
    statuses = [sentence(before), sentence(before, reloading=True), sentence(before + 1)]
    done = ask(tmp_path, [sentence(before)], statuses)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "statuses").read_text() == f"{statuses[-1]}\n"


def test_failed_twice(tmp_path: Path) -> None:
    """The reason of an earlier failure is no verdict; the same one with another number is."""
    statuses = [
        sentence(1, refused="no; 2 reloads."),
        sentence(1, reloading=True, refused="no"),
        sentence(2, refused="no"),
    ]
    done = ask(tmp_path, statuses[:1], statuses)
    assert (done.returncode, done.stderr) == (78, "")
    assert (tmp_path / "statuses").read_text() == f"{statuses[-1]}\n"


def test_accepted_after_a_failure(tmp_path: Path) -> None:
    """An earlier failure does not make a reload fail."""
    done = ask(tmp_path, [sentence(1, refused="no")], [sentence(1, refused="no"), sentence(2)])
    assert (done.returncode, done.stderr) == (0, "")


def test_another_reload_under_way(tmp_path: Path) -> None:
    """A reload that is under way has to end first: it may have read the files before they were changed."""
    before = [sentence(1, reloading=True), sentence(2, refused="no")]
    done = ask(tmp_path, before, [sentence(2, reloading=True, refused="no"), sentence(3)])
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_does_not_answer_for_a_while(tmp_path: Path) -> None:
    """A question that systemd does not answer is repeated: before the signal, and after it."""
    done = ask(tmp_path, ["", sentence(0)], ["", "", sentence(1)])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("after", [sentence(0), sentence(0, reloading=True), "", "Stopping: draining 1 connection."])
def test_no_verdict(tmp_path: Path, after: str) -> None:
    """Without a verdict it fails after 25 s, and says so."""
    done = ask(tmp_path, [sentence(0)], [after], clock=True)
    assert done.returncode == 1
    assert done.stderr == f"echod: no verdict on the reload within 25 s; see systemctl status {UNIT}\n"


def test_the_daemon_has_ended(tmp_path: Path) -> None:
    """It does not wait for a daemon that is not there."""
    done = ask(tmp_path, [sentence(0, reloading=True)], [], dies=True)
    assert (done.returncode, done.stderr) == (1, "echod: the daemon has ended during the reload\n")


@pytest.mark.parametrize(("variables", "option"), [({}, ""), ({"MANAGERPID": "1"}, "--user ")])
def test_which_manager_is_asked(tmp_path: Path, variables: dict[str, str], option: str) -> None:
    """It asks the manager that runs the unit: the user's if systemd has set MANAGERPID, else the system's."""
    assert ask(tmp_path, [sentence(0)], [sentence(1)], variables=variables).returncode == 0
    calls = set((tmp_path / "calls").read_text().splitlines())
    assert calls == {f"{option}show -P StatusText {UNIT}"}
