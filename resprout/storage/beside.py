"""Work that is done beside its caller's: the newest value under each name, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """Calls `write` with what it is handed, one value at a time, in a thread that ends when nothing waits.

    A value that still waits is replaced by a newer one of the same name. The thread does not keep the process from
    ending.

    Args:
        write: called with a name and its value; it must not raise.
    """

    def __init__(self, write: Callable[[str, T], None]) -> None:
        self._write = write
        self._waiting: dict[str, T] = {}
        self._at_work: tuple[str, T] | None = None
        self._running = False
        self._changed = threading.Condition()

    def hand(self, name: str, value: T) -> None:
        """Have a value written, and do not wait for it."""
        with self._changed:
            self._waiting[name] = value
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="storage", daemon=True).start()

    def newest(self, name: str) -> T | None:
        """The value of that name that is handed over and not yet written, if there is one."""
        with self._changed:
            if name in self._waiting:
                return self._waiting[name]
            return self._at_work[1] if self._at_work and self._at_work[0] == name else None

    def forget(self) -> None:
        """Write nothing more of what waits."""
        with self._changed:
            self._waiting.clear()

    def wait(self, seconds: float) -> bool:
        """Wait until everything is written, or that long; whether everything is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._at_work, self._running = None, False
                    self._changed.notify_all()
                    return
                name = next(iter(self._waiting))
                self._at_work = (name, self._waiting.pop(name))
            self._write(*self._at_work)
