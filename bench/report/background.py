"""Processes for the slow libraries of a report, which end when the report ends, whatever the reason."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import cache
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import ParamSpec, TypeVar

from bench.errors import OutputError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LIMIT_S = 300.0
"""Seconds after which a job counts as hanging, even on a busy machine."""
_pools: dict[str, ProcessPoolExecutor] = {}
_children: set[BaseProcess] = set()


def start(
    job: str, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Callable[[], Result]:
    """Run ``function`` in the process of ``job``; the returned function waits for its result.

    It raises OutputError if the process is killed or lacks a package, RuntimeError if it fails otherwise or hangs.
    """
    if job not in _pools:
        # A pool for each job: if one process is killed, the others go on.
        _pools[job] = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_prepare)
    before = set(active_children())
    # A process inherits the mask of signals: Ctrl-C in a terminal is for us to answer.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        future = _pools[job].submit(function, *args, **kwargs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _children.update(set(active_children()) - before)

    def result() -> Result:
        try:
            return future.result(LIMIT_S)
        except TimeoutError:
            raise RuntimeError(f"{job} took longer than {LIMIT_S:g} s") from None
        except BrokenExecutor:
            raise OutputError(f"{job} was killed; run the same command with --report-only") from None
        except ImportError as problem:
            missing = f"{type(problem).__name__}: {problem}"
            raise OutputError(f"{job} failed: {missing}; install this program once more with what it needs") from None
        except Exception as problem:
            raise RuntimeError(f"{job} failed: {problem}") from problem

    return result


def end_all() -> None:
    """End all processes, finished or not."""
    for child in _children:
        child.kill()  # a pool that shuts down waits for its running job
    for pool in _pools.values():
        pool.shutdown(cancel_futures=True)
    _children.clear()
    _pools.clear()


def _prepare() -> None:
    """Initialise a process: discard what libraries print, and end with the parent."""
    # The file descriptors: libraries in C print past sys.stdout.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


@cache
def vega_bundle() -> str:
    """JavaScript of Vega-Embed, Vega-Lite and Vega for a ``script`` element; takes a second."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
