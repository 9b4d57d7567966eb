"""echod.client.spool."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.client.errors import UntestableError
from echod.client.spool import Spool


@given(st.lists(st.binary(min_size=1, max_size=12) | st.integers(1, 40), max_size=60))
def test_is_a_queue(steps: list[bytes | int]) -> None:
    """Bytes leave in the order in which they were added, in pieces of any size, in memory and on disk."""
    expected = b""
    with closing(Spool(memory=8, segment=16)) as spool:
        for step in steps:
            if isinstance(step, bytes):
                spool.append(step)
                expected += step
            else:
                taken = bytes(spool.head(step)[:step])
                assert taken == expected[:step]
                spool.discard(len(taken))
                expected = expected[step:]
            assert len(spool) == len(expected)
        assert spool.head(len(expected) + 1) == expected


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bytes beyond the bound are in unnamed files in TMPDIR, which are closed when they have been read."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Spool(memory=10, segment=100)) as spool:
        before = _files_in(tmp_path)
        for _ in range(30):
            spool.append(b"0123456789")
        assert before == 0
        assert _files_in(tmp_path) == 3
        assert not list(tmp_path.iterdir())
        assert spool.head(300) == b"0123456789" * 30
        assert _files_in(tmp_path) == 0


def test_space_is_given_back_while_it_moves_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A queue that is never empty frees the disk space of bytes already removed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Spool(memory=10, segment=100)) as spool:
        spool.append(b"x" * 500_000)
        for _ in range(1000):
            spool.append(b"x" * 1000)
            assert len(spool.head(1000)) >= 1000
            spool.discard(1000)
        assert len(spool) == 500_000
        assert sum(_sizes_in(tmp_path)) < 800_000


def test_no_room_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full disk is reported in one sentence, not as a wrong echo."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with (
        closing(Spool(memory=1)) as spool,
        pytest.raises(UntestableError, match=r"cannot store the bytes sent on disk.*: No such file or directory"),
    ):
        spool.append(b"two")


def _opened_in(directory: Path) -> list[str]:
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [path for path in paths if os.path.lexists(path) and os.readlink(path).startswith(f"{directory}/")]


def _files_in(directory: Path) -> int:
    return len(_opened_in(directory))


def _sizes_in(directory: Path) -> list[int]:
    return [os.stat(path).st_size for path in _opened_in(directory)]
