"""echod.client.backlog."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.client.backlog import Backlog
from echod.client.faults import UntestableError


@given(st.lists(st.binary(min_size=1, max_size=12) | st.integers(1, 40), max_size=60))
def test_is_a_queue(steps: list[bytes | int]) -> None:
    """Whatever is added and taken in whatever pieces, in memory or on disk, comes out as it went in."""
    expected = b""
    with closing(Backlog(memory=8, segment=16)) as backlog:
        for step in steps:
            if isinstance(step, bytes):
                backlog.append(step)
                expected += step
            else:
                taken = backlog.peek(step)
                assert taken == expected[:step]
                assert backlog.begins_with(taken)
                assert not backlog.begins_with(expected + b"x")
                backlog.discard(len(taken))
                expected = expected[step:]
            assert len(backlog) == len(expected)
        assert backlog.peek(len(expected) + 1) == expected


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is more than the bound lies in files without names in TMPDIR, which are closed as they are read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Backlog(memory=10, segment=100)) as backlog:
        before = _files_in(tmp_path)
        for _ in range(30):
            backlog.append(b"0123456789")
        assert before == 0
        assert _files_in(tmp_path) == 3
        assert not list(tmp_path.iterdir())
        assert backlog.peek(300) == b"0123456789" * 30
        assert _files_in(tmp_path) == 0


def test_space_is_given_back_while_it_moves_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A queue that never empties does not pile up on disk what it has already given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Backlog(memory=10, segment=100)) as backlog:
        backlog.append(b"x" * 500_000)
        for _ in range(1000):
            backlog.append(b"x" * 1000)
            assert len(backlog.peek(1000)) == 1000
            backlog.discard(1000)
        assert len(backlog) == 500_000
        assert sum(_sizes_in(tmp_path)) < 800_000


def test_no_room_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that can't keep what was sent is told in one sentence, not taken for a wrong echo."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with (
        closing(Backlog(memory=1)) as backlog,
        pytest.raises(UntestableError, match=r"cannot keep on disk .*: No such file or directory"),
    ):
        backlog.append(b"two")


def _opened_in(directory: Path) -> list[str]:
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [path for path in paths if os.path.lexists(path) and os.readlink(path).startswith(f"{directory}/")]


def _files_in(directory: Path) -> int:
    return len(_opened_in(directory))


def _sizes_in(directory: Path) -> list[int]:
    return [os.stat(path).st_size for path in _opened_in(directory)]
