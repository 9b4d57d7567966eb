"""HOST and PORT -> a connected stream socket."""

import os
import socket

from echod.client.faults import UntestableError, reason

UNIX = "unix:"
"""What a HOST begins with that names a unix socket: unix:/path, or unix:@name for an abstract one."""

_LOOPBACK = ("127.0.0.1", "::1")


def open_connection(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to `host`: a name or an address, at `port`, or `unix:/path` or `unix:@abstract`, which have none.

    Every address that a name resolves to is tried, for `timeout` seconds each; resolving takes as long as the
    resolver is configured to.  "localhost" is 127.0.0.1 and ::1 without asking anyone (RFC 6761, section
    6.3): a system without /etc/hosts does not know the name.  Raises UntestableError, with every reason.
    """
    if host.startswith(UNIX):
        return _open_unix(host, timeout)
    reasons: list[str] = []
    for name in _LOOPBACK if host.lower() == "localhost" else (host,):
        try:
            connection = socket.create_connection((name, port), timeout, all_errors=True)
        except ExceptionGroup as group:
            reasons += [reason(error) for error in group.exceptions if isinstance(error, OSError)]
        except OSError as error:
            reasons.append(reason(error))
        except UnicodeError:
            reasons.append("that is not a valid host name")
        else:
            if not connected_to_itself(connection):
                return connection
            connection.close()
            reasons.append("nobody listens there")
    raise UntestableError(f"cannot connect to {host!r} port {port}: {', '.join(dict.fromkeys(reasons))}")


def connected_to_itself(connection: socket.socket) -> bool:
    """Whether both ends are one socket, which returns all that it is sent and would pass for an echo server.

    Linux does that when nobody listens on a port of the ephemeral range and the kernel happens to choose
    the very same port for the local end (a simultaneous open, RFC 9293 section 3.5).
    """
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:  # ENOTCONN: accepted and already reset, so there was someone
        return False


def _open_unix(host: str, timeout: float) -> socket.socket:
    path = os.fsencode(host.removeprefix(UNIX))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(b"\0" + path[1:] if path.startswith(b"@") else path)
    except OSError as error:
        connection.close()
        raise UntestableError(f"cannot connect to {host!r}: {reason(error)}") from error
    return connection
