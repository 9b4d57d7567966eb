"""The processes of a load: started, told when to begin and to stop, and listened to until the last is gone.

The parent sends no byte to the server while they do.  A process that leaves without its result has died, which is
counted; the others go on.  If the parent dies, so do they, since the socket to it ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from echod.client.faults import UntestableError, reason
from echod.client.load.flow import Mode
from echod.client.load.generator import GO, INTERVAL, READY, RESULT, STOP, Generator
from echod.client.load.loop import clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Tally, unpacked
from echod.client.pattern import Pattern

_LEAD = 1_000_000
"""Nanoseconds from the order to begin until they begin, so that none is late."""

_LARGEST_REPORT = 1024 * 1024

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Crew:
    """`processes` processes, which share the connections of a `plan` in `mode`; as a context, they are ended at the
    end of the block, if they are still there.  Raises UntestableError when the system does not let one start.

    `within` is what came back while the load lasted, `total` that and what was waited for afterwards; `seconds` how
    long the load lasted, and `deaths` how processes died, as sentences.
    """

    def __init__(self, plan: Plan, mode: Mode, pattern: Pattern, processes: int) -> None:
        self.within, self.total = Tally(), Tally()
        self.deaths: list[str] = []
        self._plan, self._processes = plan, processes
        self._begin = self._end = 0
        self._is_stopped = False
        self._members: dict[int, _Member] = {}
        self._interval = Tally()
        self._intervals = 0
        try:
            for first in range(processes):
                self._start(mode, pattern, first, processes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """How long the load lasted; without what was waited for afterwards."""
        return (self._end - self._begin) / 1e9 if self._begin else 0.0

    @property
    def busy(self) -> float:
        """In what share of that time a process had something to do, on average: where that is near 1, the numbers
        tell what echoc can do, not what the server can."""
        available = (self._end - self._begin) * self._processes
        return min(self.total.busy / available, 1.0) if available else 0.0

    def run(self, on_interval: Callable[[float, float, Tally], None]) -> None:
        """Load until all is over; `on_interval` is told of what was seen from one second of the load to another."""
        poll = select.poll()
        for descriptor in self._members:
            poll.register(descriptor, select.POLLIN)
        while self._members:
            for descriptor, _ in poll.poll():
                member = self._members[descriptor]
                try:
                    packet = member.socket.recv(_LARGEST_REPORT)
                except ConnectionResetError:  # it left an order unread; what it had reported comes next, then the end
                    continue
                if packet:
                    self._on_report(member, packet)
                else:
                    poll.unregister(descriptor)
                    self._bury(self._members.pop(descriptor))
            if self._members and not self._begin and all(member.is_ready for member in self._members.values()):
                self._go()
            self._tell(on_interval)

    def stop(self) -> None:
        """End the load early: begin nothing new, and wait for what is under way.

        Raises KeyboardInterrupt before the load has begun, and the second time.
        """
        if not self._begin or self._is_stopped:
            raise KeyboardInterrupt
        self._is_stopped = True
        now = clock()
        if now < self._end:
            self._end = max(now, self._begin)
            self._order(STOP)

    def close(self) -> None:
        """End what processes there still are, at once."""
        for member in self._members.values():
            member.socket.close()
            os.kill(member.pid, signal.SIGKILL)
            os.waitpid(member.pid, 0)
        self._members.clear()

    def _start(self, mode: Mode, pattern: Pattern, first: int, step: int) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            # A signal must not find the child still with the handlers of the parent.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    ends = [near, *(member.socket for member in self._members.values())]
                    _work(ends, lambda: Generator(self._plan, mode, pattern, far, first, step).run())
                self._members[near.fileno()] = _Member(pid, near)  # before a signal can end this, to be ended with it
            except OSError as error:
                near.close()
                raise UntestableError(f"cannot start a load process: {reason(error)}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _go(self) -> None:
        begin = clock() + _LEAD
        self._end = begin + self._plan.duration
        self._order(GO + begin.to_bytes(8, "big"))
        self._begin = begin  # last: from now on a signal sends the order to stop, which must come second

    def _order(self, order: bytes) -> None:
        for member in self._members.values():
            try:
                member.socket.send(order)
            except OSError:
                pass  # it has died, or is done, which its socket tells as well

    def _on_report(self, member: _Member, packet: bytes) -> None:
        if packet.startswith(READY):
            member.is_ready = True
            return
        if packet.startswith(INTERVAL):
            member.intervals = int.from_bytes(packet[1:5], "big")
            tally = unpacked(packet[5:])
            self.within.add(tally)
            self._interval.add(tally)
        else:
            member.is_done = True
            tally = unpacked(packet.removeprefix(RESULT))
        self.total.add(tally)

    def _tell(self, on_interval: Callable[[float, float, Tally], None]) -> None:
        """Tell of an interval that all have reported on."""
        reported = min((member.intervals for member in self._members.values() if not member.is_done), default=0)
        if reported > self._intervals:
            every = self._plan.interval
            began = self._intervals * every
            # An interval may have ended between the order to stop and its arrival.
            ended = max(min(reported * every, self._end - self._begin), began)
            on_interval(began / 1e9, ended / 1e9, self._interval)
            self._interval = Tally()
            self._intervals = reported

    def _bury(self, member: _Member) -> None:
        member.socket.close()
        _, status = os.waitpid(member.pid, 0)
        if not member.is_done:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {_name(-code)}" if code < 0 else f"ended with {code}"
            self.deaths.append(f"load process {member.pid} {how}; what it had seen since its last report is lost")


class _Member:
    """A process, the socket to it, and what it has reported."""

    def __init__(self, pid: int, socket: socket.socket) -> None:
        self.pid, self.socket = pid, socket
        self.is_ready = self.is_done = False
        self.intervals = 0


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have no name
        return f"signal {number}"


def _work(ends: list[socket.socket], run: Callable[[], None]) -> NoReturn:
    """Be one of the processes; `ends` are the parent's of all sockets to processes so far."""
    code = 1
    try:
        # Ctrl-C reaches all processes of a terminal: what it means is for the parent to say.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for end in ends:
            end.close()  # else they would stay open when the parent dies
        run()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except BaseException:  # noqa: BLE001  a bug, which no caller of this will see
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
