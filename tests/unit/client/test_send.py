"""echod.client.send, in this process."""

import os
import re
from pathlib import Path

import pytest

from echod.client.cli import main
from echod.client.send import SENTENCE
from tests.unit.client.peers import (
    altering,
    endless,
    faithful,
    greeting,
    serving,
    serving_unix,
    silent,
    standing_in,
    stepping,
)
from tests.unit.client.schema import validated

Capture = pytest.CaptureFixture[bytes]


def test_sentence(capfdbinary: Capture) -> None:
    """Without options the tutorial's sentence is sent, and only its echo is printed."""
    assert SENTENCE == "This is the message.  It will be repeated."
    with serving(faithful()) as port:
        assert main(["localhost", str(port)]) == 0
    assert capfdbinary.readouterr() == (SENTENCE.encode(), b"")


def test_message(capfdbinary: Capture) -> None:
    """-m sends the bytes of its argument, also if they are not text."""
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-m", "caf\xe9 \udcff"]) == 0
    assert capfdbinary.readouterr().out == b"caf\xc3\xa9 \xff"


def test_file(tmp_path: Path, capfdbinary: Capture) -> None:
    """-f sends a file."""
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "-f", str(tmp_path / "file")]) == 0
    assert capfdbinary.readouterr().out == data


def test_standard_input(capfdbinary: Capture) -> None:
    """`-f -` sends standard input."""
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    with serving(faithful()) as port, standing_in(0, reading):
        os.close(reading)
        assert main(["127.0.0.1", str(port), "-f", "-"]) == 0
    assert capfdbinary.readouterr().out == b"from a pipe"


def test_what_is_piped_in_is_sent(capfdbinary: Capture) -> None:
    """`echo hello | echoc` sends standard input."""
    reading, writing = os.pipe()
    os.write(writing, b"hello")
    os.close(writing)
    with serving(faithful()) as port, standing_in(0, reading):
        os.close(reading)
        assert main(["127.0.0.1", str(port)]) == 0
    assert capfdbinary.readouterr().out == b"hello"


def test_a_file_that_is_redirected_is_sent(tmp_path: Path, capfdbinary: Capture) -> None:
    """`echoc <file` sends the file."""
    (tmp_path / "file").write_bytes(b"from a file")
    with serving(faithful()) as port, (tmp_path / "file").open("rb") as file, standing_in(0, file.fileno()):
        assert main(["127.0.0.1", str(port)]) == 0
    assert capfdbinary.readouterr().out == b"from a file"


def test_a_message_leaves_standard_input_alone(capfdbinary: Capture) -> None:
    """With -m standard input is not read, so that echoc works in a loop over a list of hosts."""
    reading, writing = os.pipe()
    os.write(writing, b"the next host")
    with serving(faithful()) as port, standing_in(0, reading):
        assert main(["127.0.0.1", str(port), "-m", "hi"]) == 0
    assert capfdbinary.readouterr().out == b"hi"
    assert os.read(reading, 100) == b"the next host"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("options", [["-f", "/dev/null"], ["-m", ""]])
def test_empty_input(options: list[str], capfdbinary: Capture) -> None:
    """An empty input is an error, since nothing was tested."""
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), *options]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        b"echoc: the input was empty: nothing was sent, so nothing was tested; give -m TEXT\n",
    )


def test_unix(tmp_path: Path, capfdbinary: Capture) -> None:
    """A unix socket is a HOST without a PORT."""
    with serving_unix(faithful(), str(tmp_path / "echo")):
        assert main([f"unix:{tmp_path}/echo"]) == 0
    assert capfdbinary.readouterr().out == SENTENCE.encode()


def test_verbose(capfdbinary: Capture) -> None:
    """-v prints on standard error what the tutorial's client prints, and nothing more on standard output."""
    printed, output = os.pipe()
    with serving(stepping(16, printed)) as port, standing_in(1, output):
        assert main(["127.0.0.1", str(port), "-v"]) == 0
    os.close(output)
    assert os.read(printed, 1) == b""
    os.close(printed)
    trying, first, *lines = capfdbinary.readouterr().err.decode().splitlines()
    assert trying == f"trying 127.0.0.1:{port}"
    assert re.fullmatch(rf"127.0.0.1:{port}: connected after \d+\.\d{{3}} ms", first)
    assert lines[3].startswith("Local   : 127.0.0.1:")
    assert lines.pop(-2).startswith("TCP     : rtt ")
    assert [*lines[:3], *lines[4:]] == [
        "Family  : AF_INET",
        "Type    : SOCK_STREAM",
        "Protocol: IPPROTO_TCP",
        f"Remote  : 127.0.0.1:{port}",
        "",
        'sending "This is the message.  It will be repeated."',
        'received "This is the mess"',
        'received "age.  It will be"',
        'received " repeated."',
        "closing socket",
    ]


def test_verbose_about_every_address(capfdbinary: Capture, closed_port: int) -> None:
    """-v prints each address before and after it is tried, also one that fails."""
    assert main(["127.0.0.1", str(closed_port), "-v"]) == 2
    lines = capfdbinary.readouterr().err.decode().splitlines()
    assert lines[0] == f"trying 127.0.0.1:{closed_port}"
    assert re.fullmatch(rf"127.0.0.1:{closed_port}: Connection refused after \d+\.\d{{3}} ms", lines[1])
    assert lines[2:] == [f"echoc: cannot connect to 127.0.0.1:{closed_port}: Connection refused"]


def test_no_half_close(capfdbinary: Capture) -> None:
    """--no-half-close accepts a server that returns everything and then waits for more."""
    with serving(endless) as port:
        assert main(["127.0.0.1", str(port), "--no-half-close"]) == 0
    assert capfdbinary.readouterr() == (SENTENCE.encode(), b"")


def test_json(capfdbinary: Capture) -> None:
    """--json prints one object in place of the echo."""
    with serving(faithful()) as port:
        assert main(["127.0.0.1", str(port), "--json"]) == 0
    out, err = capfdbinary.readouterr()
    [reported] = validated(out)
    assert err == b""
    assert (reported["kind"], reported["ok"], reported["error"], reported["target"]) == (
        "send",
        True,
        None,
        f"127.0.0.1:{port}",
    )
    assert (reported["sent"], reported["received"]) == (42, 42)
    assert [(attempt["address"], attempt["failure"]) for attempt in reported["attempts"]] == [
        (f"127.0.0.1:{port}", None)
    ]
    assert reported["connection"]["remote"] == f"127.0.0.1:{port}"


def test_json_of_a_fault(capfdbinary: Capture) -> None:
    """The object has the sentence printed on standard error, and the offset."""
    with serving(altering(lambda data: data[:20])) as port:
        assert main(["127.0.0.1", str(port), "--json"]) == 1
    out, err = capfdbinary.readouterr()
    [reported] = validated(out)
    assert (reported["ok"], reported["sent"], reported["received"]) == (False, 42, 20)
    assert (reported["error"]["kind"], reported["error"]["offset"]) == ("shortfall", 20)
    assert err.decode() == f"echoc: {reported['error']['message']}\n"


def test_json_without_a_connection(capfdbinary: Capture, closed_port: int) -> None:
    """Without a connection its fields are null."""
    assert main(["127.0.0.1", str(closed_port), "--json"]) == 2
    [reported] = validated(capfdbinary.readouterr().out)
    assert (reported["connection"], reported["seconds"], reported["error"]["kind"]) == (None, None, "connect")


def test_usage_is_no_object(capfdbinary: Capture) -> None:
    """An invalid command line prints no object."""
    assert main(["127.0.0.1", "0", "--json"]) == 2
    assert capfdbinary.readouterr().out == b""


def test_wrong_echo(capfdbinary: Capture) -> None:
    """A wrong echo is printed as received, reported in one sentence, and exits with 1."""
    with serving(altering(lambda data: data.replace(b"message", b"massage"))) as port:
        assert main(["127.0.0.1", str(port)]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b"This is the massage.  It will be repeated."
    assert err == (
        b"echoc: the echo is wrong at byte 13 (counted from 0): sent 0x65, received 0x61; "
        b'from there on sent "essage.  It will be repeated.", received "assage.  It will be repeated."; '
        b"only that byte was changed\n"
    )


def test_silent_server(capfdbinary: Capture) -> None:
    """--timeout limits the wait for the echo."""
    with serving(silent) as port:
        assert main(["127.0.0.1", str(port), "--timeout", "0.1"]) == 1
    assert capfdbinary.readouterr().err == (
        b"echoc: the server was silent for 0.1 s: all acknowledged, nothing came back: the server is silent\n"
    )


def test_unreadable_file(tmp_path: Path, capfdbinary: Capture) -> None:
    """An unreadable file is reported before echoc connects."""
    assert main(["127.0.0.1", "1", "-f", f"{tmp_path}/missing"]) == 2
    assert capfdbinary.readouterr().err == (
        f"echoc: cannot read '{tmp_path}/missing': No such file or directory\n".encode()
    )


def test_no_connection(capfdbinary: Capture, closed_port: int) -> None:
    """A failed connection is reported in one sentence, and exits with 2."""
    assert main(["127.0.0.1", str(closed_port)]) == 2
    assert capfdbinary.readouterr() == (
        b"",
        f"echoc: cannot connect to 127.0.0.1:{closed_port}: Connection refused\n".encode(),
    )


def test_unwritable_output(capfdbinary: Capture) -> None:
    """An echo that cannot be printed is an error."""
    full = os.open("/dev/full", os.O_WRONLY)
    with serving(faithful()) as port, standing_in(1, full):
        os.close(full)
        assert main(["127.0.0.1", str(port)]) == 2
    assert capfdbinary.readouterr().err == b"echoc: cannot write to standard output: No space left on device\n"


def test_greeting_is_told_safely(capfdbinary: Capture) -> None:
    """Bytes from a server are printed on standard error with control characters escaped."""
    with serving(greeting) as port:
        assert main(["127.0.0.1", str(port), "-v"]) == 1
    assert b"\\r\\n" in capfdbinary.readouterr().err
