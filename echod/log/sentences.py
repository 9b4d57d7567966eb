"""The sentences of events that depend on more than their fields' values; each function has the name of its event."""

from typing import Any


def handed_over(fields: dict[str, Any]) -> str:
    """Of `handed_over`."""
    rest = f"; no room for {fields['left']}, which are finished" if fields["left"] else ""
    return f"Clients handed over to the next echod: {fields['count']}{rest}."


def taken_over(fields: dict[str, Any]) -> str:
    """Of `taken_over`."""
    forgotten = f"; counters forgotten: {fields['forgotten']}" if fields["forgotten"] else ""
    lost = f"; lost: {fields['lost']}" if fields["lost"] else ""
    return f"Clients taken over from the last echod: {fields['count']}{forgotten}{lost}."


def listening(fields: dict[str, Any]) -> str:
    """Of `listening`."""
    return f"Listening on {fields['address']}" + (", passed by systemd." if fields["adopted"] else ".")


def reloaded(fields: dict[str, Any]) -> str:
    """Of `reloaded`."""
    return (
        f"Reloaded; changed: {', '.join(fields['changed'])}." if fields["changed"] else "Reloaded; nothing has changed."
    )
