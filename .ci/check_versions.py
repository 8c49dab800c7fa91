"""Checks that the libraries installed here are those that ``bench/versions.py`` calls tested.

Usage: python .ci/check_versions.py oldest|newest
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from bench import versions


def main(which: str) -> int:
    tested = {"oldest": versions.OLDEST, "newest": versions.NEWEST}[which]
    installed = {package: version(package).partition("+")[0] for package in tested}
    others = {package: found for package, found in installed.items() if _minor(found) != _minor(tested[package])}
    for package, found in others.items():
        print(f"{which}: {package} {found} is installed, bench/versions.py says {tested[package]}: correct it there")
    return int(bool(others))


def _minor(release: str) -> list[str]:
    """Without the number of a release that only mends: 2.14 of 2.14.1, but 1.0.31 of timm, whose last number counts
    features."""
    numbers = release.split(".")
    return numbers if release.startswith("1.0.") else numbers[:2]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
