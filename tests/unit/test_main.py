"""__main__: what the command does around the daemon."""

import gc

import pytest

from echod import __main__, cli


def test_garbage_is_collected_after_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon runs with the collector on, and with what was imported excluded from it."""
    seen: list[tuple[bool, bool]] = []
    monkeypatch.setattr(cli, "main", lambda: seen.append((gc.isenabled(), gc.get_freeze_count() > 0)))
    try:
        __main__.main()
    finally:
        gc.unfreeze()
    assert seen == [(True, True)]
