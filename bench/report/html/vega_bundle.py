"""The plotting library: Vega-Embed, Vega-Lite and Vega as ``vl-convert-python`` bundles them for the browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bench.report import processes

BUNDLE = """
import os, sys
from bench.environment import die_with_parent
die_with_parent(os.environ.get("BENCH_PARENT"))
import vl_convert
sys.stdout.buffer.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
"""


def warm_up() -> None:
    """Begin before it is known whether there is a page to write."""
    processes.warm_up("-c", BUNDLE)


class Bundling:
    """The bundle being made, in a process of its own: it takes a second in which no other thread could go on."""

    def __init__(self) -> None:
        self._process = processes.start("-c", BUNDLE)

    def script(self) -> str:
        """JavaScript that can stand in a ``script`` element. Raises RuntimeError if bundling failed."""
        out = processes.communicate(self._process, b"", "bundling the plotting library")
        return out.decode().replace("</script", "<\\/script").replace("<!--", "<\\!--")


def version() -> str:
    """By the name of its metadata's folder: asking for it properly takes longer than the rest of a report."""
    found = find_spec("vl_convert")
    folder = Path(found.origin).parents[1] if found and found.origin else None
    stated = sorted(folder.glob("vl_convert_python-*.dist-info")) if folder else []
    return stated[-1].name if stated else ""
