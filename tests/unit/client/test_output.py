"""echod.client.output, on real descriptors."""

import fcntl
import os
import struct
import termios
import threading

import pytest

from echod.client.errors import UntestableError
from echod.client.output import Screen, fill_standard_descriptors, folded, print_bytes
from tests.unit.client.peers import seen, standing_in, terminal


@pytest.mark.parametrize("number", [0, 1, 2])
def test_fills_closed_descriptors(number: int) -> None:
    """A closed standard descriptor becomes /dev/null, so that no connection can take its place."""
    with standing_in(number, None):
        fill_standard_descriptors()
        assert os.readlink(f"/proc/self/fd/{number}") == os.devnull


def test_leaves_open_descriptors() -> None:
    """Open standard descriptors are not changed."""
    before = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    fill_standard_descriptors()
    assert [os.readlink(f"/proc/self/fd/{number}") for number in range(3)] == before


def test_prints_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Bytes are printed as they are."""
    print_bytes(bytes(range(256)))
    assert capfdbinary.readouterr().out == bytes(range(256))


def test_prints_to_a_pipe_that_does_not_block() -> None:
    """Nothing is lost on a standard output in non-blocking mode."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taken: list[bytes] = []

    def take() -> None:
        with open(reading, "rb") as pipe:
            taken.append(pipe.read())

    thread = threading.Thread(target=take)
    with standing_in(1, writing):
        os.close(writing)
        thread.start()
        print_bytes(b"x" * 1_000_000)
    thread.join()
    assert taken == [b"x" * 1_000_000]


def test_reader_has_gone() -> None:
    """A closed pipe is distinguished from every other failure, since it is not an error."""
    reading, writing = os.pipe()
    os.close(reading)
    with standing_in(1, writing), pytest.raises(BrokenPipeError):
        print_bytes(b"x")
    os.close(writing)


def test_unwritable() -> None:
    """A full disk is reported in one sentence."""
    full = os.open("/dev/full", os.O_WRONLY)
    with (
        standing_in(1, full),
        pytest.raises(UntestableError, match=r"^cannot write to standard output: No space left on device$"),
    ):
        print_bytes(b"x")
    os.close(full)


def test_byte_exact_where_nobody_looks(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A pipe or a file gets the echo byte for byte; messages go to standard error."""
    screen = Screen()
    screen.echo(b"half a ")
    screen.message("note")
    screen.echo(b"line")
    screen.end_line()
    assert capfdbinary.readouterr() == (b"half a line", b"note\n")


def test_lines_on_a_terminal() -> None:
    """On a terminal an open line is ended before a message and at the end, but only once."""
    with terminal() as (screen_end, written), standing_in(1, written), standing_in(2, written):
        screen = Screen()
        screen.message("first")
        screen.echo(b"open")
        screen.message("second")
        screen.echo(b"closed\n")
        screen.message("third")
        screen.echo(b"open")
        screen.end_line()
        screen.end_line()
        text = b"first\r\nopen\r\nsecond\r\nclosed\r\nthird\r\nopen\r\n"
        assert seen(screen_end, len(text)) == text


def test_lines_on_a_terminal_without_the_errors(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """If only standard output is a terminal, messages do not break its lines."""
    with terminal() as (screen_end, written), standing_in(1, written):
        screen = Screen()
        screen.echo(b"one ")
        screen.message("note")
        screen.echo(b"line")
        screen.end_line()
        assert seen(screen_end, 10) == b"one line\r\n"
    assert capfdbinary.readouterr().err == b"note\n"


def test_tells_any_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A message is printed in any locale, even with names that are not text."""
    Screen().message("caf\xe9 \udcff")
    assert capfdbinary.readouterr().err == b"caf\xc3\xa9 \\udcff\n"


def test_tells_when_there_is_room() -> None:
    """A full standard error in non-blocking mode loses nothing."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = os.write(writing, bytes(1 << 20))
    line = b"x" * filled + b"\n"  # more than fits at once
    came = bytearray()

    def read() -> None:
        while data := os.read(reading, 65536):
            came.extend(data)

    reader = threading.Thread(target=read)
    with standing_in(2, writing):
        os.close(writing)
        reader.start()
        Screen().message("x" * filled)
    reader.join()
    os.close(reading)
    assert came[filled:] == line


def test_nobody_to_tell() -> None:
    """A failure to write to standard error is ignored."""
    full = os.open("/dev/full", os.O_WRONLY)
    with standing_in(2, full):
        Screen().message("note")
    os.close(full)


def test_status_line() -> None:
    """The status line is replaced, without a rest of a longer one, cut to the terminal, and erased before a message."""
    with terminal() as (screen, program), standing_in(2, program):
        fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
        output = Screen()
        output.status.show("connecting to a long name")
        output.status.show("connected")
        output.message("done")
        text = seen(screen, 67)
        # Two columns are left for the "^C" of the terminal, and overwritten.
        assert text == b"\rconnecting to a l\rconnected          \b\b\b\b\b\b\b\b\b\b\r           \rdone\r\n"


def test_messages_are_folded() -> None:
    """On a terminal a message continues on the next line, indented, and breaks at spaces only."""
    with terminal() as (screen, program), standing_in(2, program):
        termios.tcsetwinsize(program, (24, 20))
        Screen().message("echoc: for example, the server was silent")
        text = seen(screen, 47)
    assert text == b"echoc: for example,\r\n  the server was\r\n  silent\r\n"


def test_a_word_is_not_folded() -> None:
    """What has no spaces is left to the terminal, so that it can be copied."""
    assert folded("x" * 30, 20) == ["x" * 30]


def test_no_status_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Without a terminal there is no status line."""
    Screen().status.show("connecting")
    assert capfdbinary.readouterr().err == b""
