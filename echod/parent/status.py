"""The sentence that `systemctl status` shows."""

from collections.abc import Sequence

from echod.shared.counters import Totals

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def sentence(
    addresses: Sequence[str],
    totals: Totals,
    *,
    adopted: bool,
    overruled: Sequence[str] = (),
    reload_refused: str = "",
) -> str:
    """How things are while echod serves.

    `overruled` are the settings that sockets from systemd make idle, `reload_refused` is why the last reload was not
    taken, if it was not.
    """
    by = " (sockets from systemd)" if adopted else ""
    if overruled:
        by = f" (sockets from systemd, which overrule {enumeration(overruled)})"
    again = f"; the last reload was refused: {reload_refused}" if reload_refused else ""
    refused = f", {totals.clients_refused:,} refused" if totals.clients_refused else ""
    return (
        f"Echoing on {enumeration(addresses)}{by}: {clients(totals.clients_now)} now, "
        f"{totals.clients_total:,} so far{refused}; {amount(totals.bytes_echoed)} echoed{again or '.'}"
    )


def failure(problems: Sequence[str]) -> str:
    """Why echod could not start, or reload."""
    first, *more = problems
    return f"{first} (and {len(more)} more: see the journal)" if more else first


def clients(count: int) -> str:
    """So many clients."""
    return "1 client" if count == 1 else f"{count:,} clients"


def enumeration(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def amount(count: int) -> str:
    """So many bytes, in three digits and the unit that suits them."""
    if count < 1024:
        return "1 byte" if count == 1 else f"{count} bytes"
    value, unit = float(count), "bytes"
    for unit in _UNITS:  # noqa: B007  the last one is wanted
        value /= 1024
        if value < 999.5:
            break
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
