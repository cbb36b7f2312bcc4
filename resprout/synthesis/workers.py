"""Groups of dreams on several devices: one process each, so that none waits for another's Python.

Their starter holds nothing on a device. It deals the groups out one by one, so that all are done at about the same
time, hears how far each is, and keeps what they made. A process ends with its starter, however that ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

import torch

from resprout.errors import DeviceError
from resprout.synthesis.groups import Group, GroupResult, Keep
from resprout.synthesis.methods import Work

Told = Callable[[Group, int, Mapping[str, float]], None]
"""(a group, its iterations that are done, the losses there)"""
# sys.path as it is here, since a script's folder or a test's may be on it; and no __main__ of anybody's is imported
PROGRAM = "import sys; sys.path[:] = {path!r}; from resprout.synthesis.workers import serve; serve({descriptor})"


def spread(work: Work, devices: Sequence[torch.device], groups: Sequence[Group], told: Told, keep: Keep) -> None:
    """Make groups on several devices at once; the images are those that one device of the kind makes.

    Args:
        work: what they are made from.
        devices: one process each; on CPUs each has as many threads as this one, since bits differ with their number.
        groups: at least as many as devices.
        told: is called here, whichever process is how far.
        keep: is called here with each group as it is done.

    Raises:
        DeviceError: a process ended before its work did.
        Exception: what was raised in a process is raised here.
    """
    waiting = deque(groups)
    with _started(work, devices) as workers:
        busy = {worker.connection: worker for worker in workers}
        for worker in workers:
            worker.send(waiting.popleft())
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # only these were waited for
                said = worker.receive()
                if isinstance(said, _At):
                    told(said.group, said.done, said.losses)
                    continue
                if isinstance(said, _Raised):
                    said.again()
                if waiting:  # before what was made is kept, which can take a while
                    worker.send(waiting.popleft())
                else:
                    del busy[worker.connection]
                keep(*said)


@dataclass(frozen=True)
class _At:
    group: Group
    done: int
    losses: Mapping[str, float]


@dataclass(frozen=True)
class _Raised:
    error: Exception
    trace: str

    def again(self) -> NoReturn:
        raise self.error from _ThereError(f"\n{self.trace}")


class _ThereError(Exception):
    """Where in its process an error was raised: a traceback does not travel."""


@dataclass(frozen=True)
class _Worker:
    device: torch.device
    process: subprocess.Popen[bytes]
    connection: Connection

    def send(self, what: Any) -> None:
        try:
            self.connection.send_bytes(_packed(what))
        except OSError:
            raise self._ended() from None

    def receive(self) -> Any:
        try:
            return _unpacked(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._ended() from None

    def end(self) -> None:
        self.process.kill()  # it holds nothing that an orderly end would save
        self.process.wait()
        self.connection.close()

    def _ended(self) -> DeviceError:
        code = self.process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return DeviceError(
            f"the process that synthesized on {self.device} {how}",
            why="signal 9 is what a process gets that takes more memory than there is" if code == -9 else "",
            now="give the stage more memory, or fewer GPUs: each takes a process"
            if code == -9
            else "see its log above",
        )


@contextmanager
def _started(work: Work, devices: Sequence[torch.device]) -> Iterator[list[_Worker]]:
    with ExitStack() as stack:
        workers = []
        for device in devices:
            workers.append(_start(device))
            stack.callback(workers[-1].end)
        for worker in workers:  # which all import torch meanwhile
            worker.send((work, worker.device, _threads(worker.device, len(workers))))
        yield workers


def _start(device: torch.device) -> _Worker:
    here, there = Pipe()
    with there:
        program = PROGRAM.format(path=sys.path, descriptor=there.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            start_new_session=True,  # Ctrl-C is for the starter, which ends them
        )
    return _Worker(device, process, here)


def _threads(device: torch.device, processes: int) -> int:
    threads = torch.get_num_threads()
    return threads if device.type == "cpu" else max(1, threads // processes)


def serve(descriptor: int) -> None:
    """What a process does: make the groups that it is sent, one after the other, until its starter is gone."""
    connection, inbox = Connection(descriptor), queue.SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    try:
        work, device, threads = inbox.get()
        torch.set_num_threads(threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        synthesizer = work.on(device)
        while True:
            group = inbox.get()
            connection.send_bytes(_packed((group, _made(synthesizer, group, connection))))
    except Exception as error:
        connection.send_bytes(_packed(_Raised(_picklable(error), traceback.format_exc())))
    threading.Event().wait()  # the starter ends it, once it has heard


def _listen(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Take in what the starter sends, also while a group is being made: nothing more comes once it is gone."""
    while True:
        try:
            inbox.put(_unpacked(connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(1)  # in the midst of whatever the main thread does


def _made(synthesizer: Callable[..., GroupResult], group: Group, connection: Connection) -> GroupResult:
    def watch(done: int, losses: Mapping[str, float]) -> None:
        connection.send_bytes(_packed(_At(group, done, losses)))

    return synthesizer(group, watch)


def _packed(what: Any) -> bytes:
    # not connection.send, which would hand tensors on through /dev/shm, of which a container has 64 MB
    return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)


def _unpacked(message: bytes) -> Any:
    return pickle.loads(message)  # noqa: S301 - nobody else can write to a socket of ours


def _picklable(error: Exception) -> Exception:
    try:
        _unpacked(_packed(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
