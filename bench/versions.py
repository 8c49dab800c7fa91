"""Version of this package, tested versions of Python and the libraries that determine a result, and their check.

``.ci/run`` runs the whole suite with the newest allowed release of each library and a fast part with the oldest. A test
compares these bounds with those in ``pyproject.toml``.
"""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.errors import LibraryMismatchError

__version__ = "0.1.0"
"""Version of this package."""
PYTHON = ("3.11", "3.12", "3.13")
OLDEST = {"torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.0", "timm": "1.0.26"}
NEWEST = {"torch": "2.14.1", "transformers": "5.24.0", "peft": "0.21.2", "timm": "1.0.31"}
BELOW = {"torch": "2.15", "transformers": "5.25", "peft": "0.22", "timm": "1.0.32"}
"""First release of each library that is refused, as untested."""
REMEDY = "install a version that this package allows (python run_bench.py --version lists them)"
"""Remedy for an installed library that does not fit."""
ALLOW_UNTESTED = "PEFT_FREEZE_BENCH_ALLOW_UNTESTED"
"""Environment variable that allows untested versions; records hold the versions in any case."""


def describe() -> dict[str, Any]:
    """Tested versions, for the environment of a record and for ``--version --json``."""
    return {"python": list(PYTHON), "oldest": OLDEST, "newest": NEWEST, "below": BELOW}


@cache
def check() -> None:
    """Raise LibraryMismatchError for installed versions that were not tested, before anything is loaded."""
    if os.environ.get(ALLOW_UNTESTED):
        return
    wrong = [
        f"{package} {found}, tested from {OLDEST[package]} to {NEWEST[package]}"
        for package in OLDEST
        if (found := _installed(package))
        and not _release(OLDEST[package]) <= _release(found) < _release(BELOW[package])
    ]
    if wrong:
        wanted = " ".join(f'"{package}>={OLDEST[package]},<{BELOW[package]}"' for package in OLDEST)
        raise LibraryMismatchError(
            f"installed: {'; '.join(wrong)}. Results under other versions may be wrong without a sign of it: "
            f"python -m pip install {wanted} (or set {ALLOW_UNTESTED}=1 to try them)"
        )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _release(text: str) -> tuple[int, ...]:
    """Release numbers of a version, without its pre-release and build tags."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
