"""The processes of a load: forked, ordered to begin and to stop, and their reports added up until the last has exited.

The parent sends nothing to the server meanwhile.  A process that exits without its result has died, which is reported;
the others continue.  If the parent dies, the processes exit, since their sockets to it reach end of file.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from echod.client.compare import Pattern
from echod.client.errors import UntestableError, reason
from echod.client.load.connection import Mode
from echod.client.load.generator import GIVE_UP, GO, INTERVAL, READY, RESULT, STOP, WAITING, WARM, Generator
from echod.client.load.loop import clock
from echod.client.load.plan import Plan
from echod.client.load.tally import Result, Tally, unpacked

_LEAD = 1_000_000
"""Nanoseconds from the order to begin until the load begins, so that no process is late."""

_LARGEST_REPORT = 1024 * 1024

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class ProcessPool:
    """`processes` processes, which share the connections of a `plan` in `mode`.

    It is a context manager: at the end of the block the processes that still run are killed.  Raises UntestableError
    when the system does not start a process.
    """

    def __init__(self, plan: Plan, mode: Mode, pattern: Pattern, processes: int) -> None:
        self._within, self._total = Tally(), Tally()
        self._deaths: list[str] = []
        self._plan, self._count = plan, processes
        self._begin = self._end = 0  # of what is measured, after the warm-up
        self._elapsed = 0  # from then to the end, which a limit on messages may bring forward
        self._is_stopped = False
        self._on_waiting: Callable[[int, int], None] = lambda echoes, connections: None
        self._processes: dict[int, _Process] = {}
        self._interval = Tally()
        self._intervals = 0
        try:
            for first in range(processes):
                self._start(mode, pattern, first, processes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def result(self) -> Result:
        """The result, after `run`."""
        lasted = min(self._end - self._begin, self._elapsed) if self._begin else 0
        return Result(self._within, self._total, lasted / 1e9, self._count, self._deaths)

    def run(self, on_interval: Callable[[float, float, Tally], None], on_waiting: Callable[[int, int], None]) -> None:
        """Load until everything is over.

        `on_interval` gets the tally from one second of the load to another; after the load, `on_waiting` gets the
        number of echoes and of connections that are waited for.
        """
        self._on_waiting = on_waiting
        poll = select.poll()
        for descriptor in self._processes:
            poll.register(descriptor, select.POLLIN)
        while self._processes:
            for descriptor, _ in poll.poll():
                process = self._processes[descriptor]
                try:
                    packet = process.socket.recv(_LARGEST_REPORT)
                except ConnectionResetError:  # it exited with an order unread; its reports come next, then the end
                    continue
                if packet:
                    self._on_report(process, packet)
                else:
                    poll.unregister(descriptor)
                    self._on_exit(self._processes.pop(descriptor))
            if self._processes and not self._begin and all(process.is_ready for process in self._processes.values()):
                self._go()
            self._on_intervals(on_interval)

    def stop(self) -> None:
        """End the load early: send nothing more, and wait for what is outstanding; after the load, end the wait.

        Raises UntestableError if the load has not begun.
        """
        if not self._begin:
            raise UntestableError("interrupted before the load began, so nothing was tested")
        now = clock()
        if now < self._end and not self._is_stopped:
            self._end = max(now, self._begin)
            self._order(STOP)
        else:
            self._order(GIVE_UP)
        self._is_stopped = True

    @property
    def so_far(self) -> tuple[float, Tally]:
        """The second of the load in which the last report ended, and the total of all reports."""
        return min(self._intervals * self._plan.times.interval, self._end - self._begin) / 1e9, self._total

    def close(self) -> None:
        """Kill the processes that still run."""
        for process in self._processes.values():
            process.socket.close()
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        self._processes.clear()

    def _start(self, mode: Mode, pattern: Pattern, first: int, step: int) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            # Blocked, so that no signal reaches the child while it still has the parent's handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                pid = os.fork()
                if pid == 0:
                    ends = [near, *(process.socket for process in self._processes.values())]
                    _work(ends, lambda: Generator(self._plan, mode, pattern, far, first, step).run())
                # Before a signal can raise here, so that the process is killed in that case.
                self._processes[near.fileno()] = _Process(pid, near)
            except OSError as error:
                near.close()
                raise UntestableError(f"cannot start a load process: {reason(error)}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _go(self) -> None:
        begin = clock() + _LEAD
        measured = begin + self._plan.times.warmup
        self._end = measured + self._plan.times.duration
        self._order(GO + begin.to_bytes(8, "big"))
        self._begin = measured  # last: from now on a signal sends the order to stop, which must come second

    def _order(self, order: bytes) -> None:
        for process in self._processes.values():
            try:
                process.socket.send(order)
            except OSError:
                pass  # it has died or is done; its socket reports that as well

    def _on_report(self, process: _Process, packet: bytes) -> None:
        if packet.startswith(READY):
            process.is_ready = True
            return
        if packet.startswith(INTERVAL):
            process.intervals = int.from_bytes(packet[1:5], "big")
            self._elapsed = max(self._elapsed, int.from_bytes(packet[5:13], "big"))
            tally = unpacked(packet[13:])
            self._within.add(tally)
            self._interval.add(tally)
        elif packet.startswith(WARM):
            tally = unpacked(packet[1:])
        elif packet.startswith(WAITING):
            process.waits_for = int.from_bytes(packet[1:9], "big"), int.from_bytes(packet[9:], "big")
            waiting = [each.waits_for for each in self._processes.values() if not each.is_done]
            self._on_waiting(sum(echoes for echoes, _ in waiting), sum(connections for _, connections in waiting))
            return
        else:
            process.is_done = True
            tally = unpacked(packet.removeprefix(RESULT))
        self._total.add(tally)

    def _on_intervals(self, on_interval: Callable[[float, float, Tally], None]) -> None:
        """Pass on the intervals that all processes have reported."""
        reported = min((process.intervals for process in self._processes.values() if not process.is_done), default=0)
        if reported > self._intervals:
            every = self._plan.times.interval
            began = self._intervals * every
            # An interval may have ended between the order to stop and its arrival.
            ended = max(min(reported * every, self._end - self._begin, self._elapsed), began)
            on_interval(began / 1e9, ended / 1e9, self._interval)
            self._interval = Tally()
            self._intervals = reported

    def _on_exit(self, process: _Process) -> None:
        process.socket.close()
        _, status = os.waitpid(process.pid, 0)
        if not process.is_done:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {_name(-code)}" if code < 0 else f"exited with {code}"
            self._deaths.append(f"load process {process.pid} {how}; its results since its last report are lost")


class _Process:
    """A process, the socket to it, and what it has reported."""

    def __init__(self, pid: int, socket: socket.socket) -> None:
        self.pid, self.socket = pid, socket
        self.is_ready = self.is_done = False
        self.intervals = 0
        self.waits_for = (0, 0)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _work(ends: list[socket.socket], run: Callable[[], None]) -> NoReturn:
    """Be one of the processes; `ends` are the parent's ends of the sockets to all processes so far."""
    code = 1
    try:
        # Ctrl-C reaches all processes of a terminal; only the parent decides what it means.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for end in ends:
            end.close()  # otherwise they would stay open when the parent dies
        run()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent has died
    except BaseException:  # noqa: BLE001  a bug, which no caller would see
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
