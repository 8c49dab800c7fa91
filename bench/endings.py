"""How a command ends: an error, an interrupt or an output that nobody takes is one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import typer

from bench.errors import INTERRUPTED, BenchError, OutputError
from bench.format import printable


@contextmanager
def endings(code_of: Callable[[BenchError], int]) -> Iterator[None]:
    """What the user can put right is told on stderr, without a traceback; ``code_of`` says with which exit code.

    Raises typer.Exit.
    """
    try:
        with _interrupts():
            try:
                yield
            except typer.Exit:
                sys.stdout.flush()
                raise
            sys.stdout.flush()
    except BenchError as error:
        say(printable(str(error)))
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def say(text: str) -> None:
    """A line for people: on stderr, so that stdout can be piped; to nobody if that is closed."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Stdout:
    """stdout, but what cannot be written raises OutputError: an OSError would not say that it is of stdout."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failure: OutputError | None = None

    def write(self, text: str) -> int:
        with self._failing():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._failing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        if self._failure:  # a library may have caught the first
            raise self._failure
        try:
            yield
        except OSError as error:
            with suppress(OSError):  # else Python tries once more at its end, and complains
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._failure = OutputError(
                f"cannot write to stdout ({error.strerror}): the output is not complete; records and reports are kept"
            )
            raise self._failure from None


@contextmanager
def _interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt; so does what a library, or Python itself, made of it on the way."""
    seen: list[int] = []  # no event: its lock would be waited for by a second signal that comes while it is held

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        seen.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except (BenchError, typer.Exit):
        raise
    except Exception as error:
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
