"""A target -> the addresses to try."""

from __future__ import annotations

import os
import socket
import time

from echod.client.faults import ConnectError, UntestableError, reason
from echod.client.target import UNIX, Target, is_address

NEVER = float("inf")  # math.inf, without a module that costs a quarter of a millisecond
_LOOPBACK = ("127.0.0.1", "::1")

SockAddr = tuple[str, int] | tuple[str, int, int, int] | bytes
"""An address as socket(7) takes it: of IPv4, of IPv6, or of a unix socket."""


def resolve(target: Target, deadline: float = NEVER) -> list[SockAddr]:
    """The addresses of `target`, in the order in which they are to be tried; at least one.

    "localhost" is 127.0.0.1 and ::1 without asking anyone (RFC 6761, section 6.3): a system without /etc/hosts
    does not know the name.  Any other name takes as long as the resolver is configured to, but not longer than until
    `deadline` (of time.monotonic()).  Raises ConnectError where it has no address or takes longer, UntestableError
    where the resolver can't be asked.
    """
    if target.host.startswith(UNIX):
        path = os.fsencode(target.host.removeprefix(UNIX))
        return [b"\0" + path[1:] if path.startswith(b"@") else path]
    found: list[SockAddr] = []
    failure = ""
    for name in _LOOPBACK if target.host.lower() == "localhost" else (target.host,):
        try:
            found += _look_up(name, target) if is_address(name) else _ask(name, target, deadline)
        except OSError as error:
            failure = reason(error)
        except UnicodeError:
            failure = "that is not a valid host name"
    if not found:
        raise ConnectError(str(target), [("", failure)], asked=False)
    return found


def _look_up(name: str, target: Target) -> list[SockAddr]:
    # typeshed reckons with a Python that was built without IPv6.
    answers = socket.getaddrinfo(name, target.port, target.family, socket.SOCK_STREAM)
    return [address for *_, address in answers]  # type: ignore[misc]


def _ask(name: str, target: Target, deadline: float) -> list[SockAddr]:
    """Look a name up in a thread, which ends with the process: the resolver can't be interrupted, by Ctrl-C neither,
    but who waits for it can."""
    import _thread  # threading would cost more than all the rest of the start

    found: list[SockAddr] = []
    failures: list[Exception] = []
    done = _thread.allocate_lock()
    done.acquire()

    def ask() -> None:
        try:
            found.extend(_look_up(name, target))
        except (OSError, UnicodeError) as error:
            failures.append(error)
        finally:
            done.release()

    try:
        _thread.start_new_thread(ask, ())
    except RuntimeError as error:  # pthread_create(3) failed
        raise UntestableError("cannot start a thread to resolve the name in; see the limit of tasks") from error
    if not done.acquire(timeout=-1 if deadline == NEVER else max(deadline - time.monotonic(), 0)):
        raise TimeoutError("its name was not resolved in time")
    if failures:
        raise failures[0]
    return found
