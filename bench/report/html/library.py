"""The plotting library: Vega-Embed, Vega-Lite and Vega as ``vl-convert-python`` bundles them for the browser."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

BUNDLE = """
import sys, vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
"""


_warm: list[subprocess.Popen[bytes]] = []


def warm_up() -> None:
    """Begin before it is known whether there is a page to write."""
    _warm.append(_start())


def dismiss() -> None:
    """End what was begun in vain."""
    while _warm:
        process = _warm.pop()
        process.kill()
        process.communicate()


class Bundling:
    """The bundle being made, in a process of its own: it takes a second in which no other thread could go on."""

    def __init__(self) -> None:
        self._process = _warm.pop() if _warm else _start()

    def script(self) -> str:
        """JavaScript that can stand in a ``script`` element."""
        out, err = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"bundling the plotting library failed:\n{err.decode(errors='replace')}")
        return out.decode().replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _start() -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-P", "-c", BUNDLE], stdout=pipe, stderr=pipe)


def version() -> str:
    """By the name of its metadata's folder: asking for it properly takes longer than the rest of a report."""
    found = find_spec("vl_convert")
    folder = Path(found.origin).parents[1] if found and found.origin else None
    stated = sorted(folder.glob("vl_convert_python-*.dist-info")) if folder else []
    return stated[-1].name if stated else ""
