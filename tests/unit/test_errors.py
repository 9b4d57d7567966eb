"""errors: sentences for a person, and exit statuses."""

import os

import pytest

from echod.errors import EX_INTERRUPTED, EX_SOFTWARE, CannotListen, CannotWrite, ConfigError, EchodError, UsageError


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError, 64), (CannotListen, 69), (EchodError, 70), (CannotWrite, 74), (ConfigError, 78)]
)
def test_exit_codes(error: type[EchodError], code: int) -> None:
    """Each kind of error has its status from sysexits.h, the same on every system."""
    assert error.exit_code == code


def test_an_interrupt_has_the_status_that_shells_use() -> None:
    """The status is 128 plus the number of SIGINT."""
    assert EX_INTERRUPTED == 130


def test_a_bug_is_ex_software() -> None:
    """Any other exception ends echod with the status of a bare `EchodError`."""
    assert EchodError.exit_code == EX_SOFTWARE == os.EX_SOFTWARE


def test_problems_are_kept_apart() -> None:
    """Several problems are several sentences; the text of the error has one per line."""
    error = ConfigError("This is wrong.", "That too.")
    assert error.problems == ("This is wrong.", "That too.")
    assert str(error) == "This is wrong.\nThat too."
