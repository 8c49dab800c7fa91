"""Ends of a command: an error, an interrupt or a closed stdout becomes one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import typer

from bench.errors import INTERRUPTED, BenchError, OutputError, RecordError
from bench.format import printable

WRONG_ARGUMENTS = 2
RUN_CODES: Mapping[type[BenchError], int] = {RecordError: 1, OutputError: 1}
"""Exit codes of errors in a run, where they are not ``WRONG_ARGUMENTS``."""
OTHER_CODES: Mapping[type[BenchError], int] = {}
"""Exit codes of errors in other commands, where 1 means that something got worse."""


@contextmanager
def endings(codes: Mapping[type[BenchError], int]) -> Iterator[None]:
    """Print a BenchError or an interrupt as one line on stderr, and raise typer.Exit with its exit code."""
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
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), WRONG_ARGUMENTS)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        say("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def say(text: str) -> None:
    """Print a line on stderr, so that stdout can be piped; nothing if that is closed."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Stdout:
    """stdout that raises OutputError for a failed write."""

    # An OSError would not say that it was stdout.

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
        if self._failure:  # a library may have caught the first error
            raise self._failure
        try:
            yield
        except OSError as error:
            with suppress(OSError):  # else Python tries again when it exits, and complains
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._failure = OutputError(
                f"cannot write to stdout ({error.strerror}): the output is not complete; records and reports are kept"
            )
            raise self._failure from None


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, even if a library turns it into another exception."""
    seen: list[int] = []  # no threading.Event: a second signal while its lock is held would wait for itself

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        seen.append(number)
        raise KeyboardInterrupt

    # Handlers can be set in the main thread alone; a shell's background job ignores SIGINT, and so do its children.
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
