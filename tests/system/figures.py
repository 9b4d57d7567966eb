"""The figures that show whether echod, or what others hold for it, grows."""

import json

from tests.system.service import Service

# Of the unit: processes, threads, descriptors, and KiB of private memory, where memory that parent and workers share is
# counted once. Of systemd: its descriptors, and those of echod's files in memory. Of the kernel: sockets,
# including those without a descriptor, because they are in a queue. argv: the unit's control group.
FIGURES = """
import contextlib, json, os, sys
def lines(path):
    with open(path) as file:
        return file.read().splitlines()
def numbers(path, *names):
    return sum(int(line.split()[1]) for line in lines(path) if line.partition(":")[0] in names)
def opened(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return names
pids = lines(f"/sys/fs/cgroup{sys.argv[1]}/cgroup.procs")
tcp = next(line.split() for line in lines("/proc/net/sockstat") if line.startswith("TCP:"))
print(json.dumps({
    "processes": len(pids),
    "threads": sum(numbers(f"/proc/{pid}/status", "Threads") for pid in pids),
    "descriptors": sum(len(opened(pid)) for pid in pids),
    "memory": sum(numbers(f"/proc/{pid}/smaps_rollup", "Pss_Anon", "Pss_Shmem", "SwapPss") for pid in pids),
    "descriptors of systemd": len(opened(1)),
    "files in memory of systemd": sum(name.startswith("/memfd:echod") for name in opened(1)),
    "unix sockets": len(lines("/proc/net/unix")),
    "TCP sockets": int(tcp[tcp.index("inuse") + 1]),
}))
"""


def figures(service: Service) -> dict[str, int]:
    """The figures of everything that may grow."""
    held: dict[str, int] = json.loads(service.machine.output("python3", "-c", FIGURES, service.show("ControlGroup")))
    return held | {"stored": int(service.show("NFileDescriptorStore"))}
