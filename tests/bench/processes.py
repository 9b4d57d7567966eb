"""What the kernel knows of the processes of a server: CPU time and memory."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A server, the compiler or the load generator did not do its part; the message is a sentence."""


def family(pid: int) -> list[int]:
    """A process and all its descendants; each is a child of the main thread of its parent."""
    found = [pid]
    for each in found:
        lines = _lines(Path(f"/proc/{each}/task/{each}/children"))
        found.extend(int(child) for line in lines for child in line.split())
    return found


def cpu_ns(pids: Iterable[int], parent: int) -> int:
    """CPU time, user and system, of these processes and of the ended children of `parent`, in nanoseconds.

    From each process's CPU clock; its identifier is made of the pid as clock_getcpuclockid(3) does.  The counters in
    /proc/PID/stat step by 10 ms, so only the ended children, which have no clock any more, are taken from there.
    Raises OSError if one of the processes has ended.
    """
    fields = Path(f"/proc/{parent}/stat").read_text().rpartition(") ")[2].split()
    ended = sum(map(int, fields[13:15])) * _TICK_NS  # cutime and cstime, proc_pid_stat(5)
    return ended + sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def peak_memory(pids: Iterable[int]) -> int:
    """The most memory that the processes have occupied so far, in bytes: the sum of VmHWM, proc_pid_status(5)."""
    return sum(_kib(Path(f"/proc/{pid}/status"), "VmHWM") for pid in pids)


def proportional_memory(pids: Iterable[int]) -> int:
    """The memory of the processes in bytes, what they share counted once: the sum of Pss, proc_pid_smaps(5)."""
    return sum(_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in pids)


def listening_port(pid: int) -> int:
    """The TCP port of 127.0.0.1 on which a process listens (proc_pid_net(5)), or 0 if there is none."""
    try:
        own = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:  # a descriptor that was closed just now
        return 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in own:  # TCP_LISTEN
            return int(words[1].partition(":")[2], 16)
    return 0


def _kib(path: Path, field: str) -> int:
    for line in _lines(path):
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) << 10
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # a process that ended just now
        return []
