"""echod.errors: what a person is told, and the status that a program leaves with."""

import os

import pytest

from echod.errors import EX_INTERRUPTED, EX_SOFTWARE, CannotListen, CannotWrite, ConfigError, EchodError, UsageError


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError, 64), (CannotListen, 69), (EchodError, 70), (CannotWrite, 74), (ConfigError, 78)]
)
def test_exit_codes(error: type[EchodError], code: int) -> None:
    """Each kind of error has its status of sysexits.h, the same on every system."""
    assert error.exit_code == code


def test_an_interrupt_looks_as_the_shell_would_say_it() -> None:
    """128 and the number of SIGINT."""
    assert EX_INTERRUPTED == 130


def test_a_bug_is_ex_software() -> None:
    """What is no `EchodError` leaves with the status that a bare one has."""
    assert EchodError.exit_code == EX_SOFTWARE == os.EX_SOFTWARE


def test_problems_are_kept_apart() -> None:
    """Several problems are several sentences, and one a line where the error itself is shown."""
    error = ConfigError("This is wrong.", "That too.")
    assert error.problems == ("This is wrong.", "That too.")
    assert str(error) == "This is wrong.\nThat too."
