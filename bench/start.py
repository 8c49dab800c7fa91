"""Entry point: before and after a command, an interrupt ends the program at once with one line."""

# Only built-in modules are imported here: Ctrl-C may come during an import.

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` imports others first
import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run ``run_bench.py`` or the installed command."""
    _open_standard_streams()
    from bench.cli import main as run

    try:
        run()
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            _leave()
        raise


def _end_at_once(number: int, frame: object) -> None:  # noqa: ARG001
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _leave() -> None:
    """Exit without the shutdown of Python."""
    # It waits for threads, which an interrupt may leave in any state.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(INTERRUPTED)


def _open_standard_streams() -> None:
    """Open the null device in place of a closed stream."""
    # Else the next file opened gets the number of the stream, and libraries print into it.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _end_at_once)
