"""Want of host memory, told from an exception or from the end of a log: also under an address-space limit, where the
first sign may be a library that cannot be mapped."""

from __future__ import annotations

import errno
import re

from bench.units import size_text

_SIGNS = re.compile(
    r"can't allocate memory|not enough memory: you tried|[Cc]annot allocate memory(?! in static TLS)|std::bad_alloc"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
    r"|Memory allocation still failed|^(?:[\w.]*[._])?(?:Array)?MemoryError\b",
    re.MULTILINE,
)
"""Of torch's allocator, the C library, C++, the dynamic linker, OpenBLAS, and Python and NumPy."""
_LAST_LINES = 8
"""Of a log: what stands further up was survived."""


def is_out_of_host_memory(error: BaseException) -> bool:
    """Whether an exception says that the host's memory, or what this process may have of it, is used up."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and bool(_SIGNS.search(str(error)))


def last_words(log: str) -> str | None:
    """The line at the end of a dead process's log that says that host memory ran out; None if there is none."""
    lines = log.splitlines()[-_LAST_LINES:]
    return next((line.strip() for line in reversed(lines) if _SIGNS.search(line)), None)


def address_space_limit() -> str:
    """``; its address space is limited to 4 GiB (ulimit -v)``; empty where it is not."""
    try:
        import resource
    except ImportError:  # no Unix
        return ""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if soft == resource.RLIM_INFINITY else f"; its address space is limited to {size_text(soft)} (ulimit -v)"
