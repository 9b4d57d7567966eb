"""Whether echod could listen at its endpoints, without listening there: for `--check-config`.

Each endpoint is bound for a moment, in the same way as by the daemon.  An echod that runs already has its addresses, so
an address in use is no problem if an echod has it, which the names of the processes show (`holders`).  Another instance
of echod cannot be distinguished from the one whose configuration is checked.
"""

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from echod.net import address, listeners, unixfile
from echod.net.address import Endpoint
from echod.net.holders import holders

_OWN = "echod"
"""How the names of echod's processes begin."""
_MANAGER = "systemd"


@dataclass(slots=True)
class Findings:
    """Sentences: `problems` would prevent a start, `warnings` may do so."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_endpoints(endpoints: Iterable[Endpoint], port: int) -> Findings:
    """What would prevent listening at these endpoints."""
    findings = Findings()
    lacking: list[tuple[Endpoint, str]] = []
    usable = free = 0
    for endpoint in endpoints:
        try:
            _try(endpoint, port)
        except OSError as error:
            if listeners.may_be_left_out(endpoint, error):
                lacking.append((endpoint, listeners.explain(endpoint, port, error)))
                continue
            if error.errno == errno.EADDRINUSE:
                _judge_use(endpoint, port, findings)
            else:
                findings.problems.append(listeners.explain(endpoint, port, error))
        else:
            free += endpoint.family != socket.AF_UNIX
        usable += 1
    if usable:
        findings.warnings += [listeners.nothing_listens(endpoint) for endpoint, _ in lacking if not endpoint.optional]
    else:
        findings.problems += [problem for _, problem in lacking[:1]]
    if free and os.geteuid() == 0 and _is_privileged(port):
        findings.warnings.append(
            f"port {port} is privileged: root may open it, but the service may do so only with the drop-in "
            "privileged-port.conf; check that the service has it, or choose a port from 1024 up"
        )
    return findings


def _is_privileged(port: int) -> bool:
    """Whether a process without capabilities may not open the port."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as first:
            return 0 < port < int(first.read())
    except OSError:
        return 0 < port < 1024


def _try(endpoint: Endpoint, port: int) -> None:
    """Bind as the daemon would, and close the socket again; a unix socket is not bound, since that makes a file."""
    if endpoint.family == socket.AF_UNIX:
        unixfile.check(endpoint.address)
        if holders(endpoint, 0):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return
    with socket.socket(endpoint.family, socket.SOCK_STREAM) as probe:
        listeners.bind(probe, endpoint, port)


def _judge_use(endpoint: Endpoint, port: int, findings: Findings) -> None:
    """Find out whether the program that has the address in use is echod."""
    where = address.show(endpoint.sockaddr(port))
    # Without any socket found, one is bound that does not listen yet, or that is in another network namespace.
    unknown, stored = not (sockets := holders(endpoint, port)), False
    for held in sockets:
        names = {process.name for process in held.processes}
        # The processes of the service are in a user namespace of their own, and not even their user may see them.
        unknown = unknown or not (names or held.uid == os.geteuid())
        stored = stored or names == {_MANAGER}
        if names and names != {_MANAGER} and not any(name.startswith(_OWN) for name in names):
            first = held.processes[0]
            findings.problems.append(
                f"cannot listen on {where}: {first.name} (process {first.pid}) listens there; "
                "stop it, or choose another address or port"
            )
            return
    if unknown:
        findings.warnings.append(
            f"{where} is in use by a program that this user may not see; a start fails unless it is echod itself"
        )
    elif stored:
        findings.warnings.append(
            f"{where} is in use by systemd; a start fails unless the socket belongs to echod's own units"
        )
