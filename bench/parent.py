"""Tie the life of a process to that of the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: str | None) -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed runner leaves no worker behind.

    ``parent`` is the process id the runner passes: a runner that died before we asked would be missed without it.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the runner has ended")
