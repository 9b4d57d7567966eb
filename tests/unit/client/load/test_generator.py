"""One process of a load, run in a thread, against servers in this process."""

import socket
import threading
from contextlib import suppress

from echod.client.compare import Pattern
from echod.client.load.generator import GO, INTERVAL, READY, RESULT, STOP, Generator
from echod.client.load.loop import clock
from echod.client.load.modes import ClosedLoop
from echod.client.load.plan import Plan, Times
from echod.client.load.tally import unpacked
from echod.client.load.transfer import PIECE
from echod.client.transport import ANYWHERE
from tests.unit.client.peers import DEADLINE, faithful, receive_exactly, serving_all


def plan(port: int) -> Plan:
    """One connection, for as long as the test needs, reported every ten milliseconds."""
    enough = int(DEADLINE * 1e9)
    times = Times(duration=enough, interval=10**7, timeout=enough, connect_timeout=enough, drain=enough, warmup=0)
    return Plan(("127.0.0.1", port), ANYWHERE, connections=1, size=64, rate=None, times=times)


def test_last_report_to_a_parent_that_has_no_time() -> None:
    """Echoes during the load are reported as such, also if the parent reads no report until the end."""
    third, ended = threading.Event(), threading.Event()

    def echo(connection: socket.socket, over: threading.Event) -> None:
        for _ in range(3):
            connection.sendall(receive_exactly(connection, 64))
        third.set()
        faithful()(connection, over)
        ended.set()

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, serving_all(echo) as port:
        near.settimeout(DEADLINE)
        generator = Generator(plan(port), ClosedLoop, Pattern(PIECE), far, 0, 1)
        thread = threading.Thread(target=generator.run)
        thread.start()
        assert near.recv(PIECE) == READY
        with suppress(BlockingIOError):
            while True:
                far.send(b"filling")
        near.send(GO + clock().to_bytes(8, "big"))
        assert third.wait(DEADLINE)
        near.send(STOP)
        assert ended.wait(DEADLINE)
        while (report := near.recv(PIECE)) == b"filling":
            pass
        end = near.recv(PIECE)
        thread.join(DEADLINE)
    assert report.startswith(INTERVAL)
    assert unpacked(report[13:]).messages >= 2
    assert end.startswith(RESULT)
    assert unpacked(end[1:]).messages <= 1  # the message outstanding at the end


def test_last_report_of_a_process_that_is_late() -> None:
    """The last report covers all intervals that are over, also if the process had no time to report each."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, serving_all(faithful()) as port:
        near.settimeout(DEADLINE)
        late = plan(port)
        thread = threading.Thread(target=Generator(late, ClosedLoop, Pattern(PIECE), far, 0, 1).run)
        thread.start()
        assert near.recv(PIECE) == READY
        near.send(GO + (clock() - late.times.duration).to_bytes(8, "big"))
        intervals = 0
        while (report := near.recv(PIECE)).startswith(INTERVAL):
            intervals = int.from_bytes(report[1:5], "big")
        thread.join(DEADLINE)
    assert intervals == late.times.duration // late.times.interval
