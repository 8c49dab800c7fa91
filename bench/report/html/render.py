"""The content as HTML: one template, escaped; styles, scripts and the plotting library inside; no network allowed."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from bench.format import number
from bench.report.html.content import Content

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = ("common", "filter", "front", "sorting", "curves", "memory", "questions", "cells", "main")


def html(content: Content, library: str, *, digest: str, complete: bool) -> bytes:
    """The file's bytes; ``complete``: there are images, or none to be shown. ``library`` draws the plots."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [library, _own_script()]
    page = environment.get_template("page.html").render(
        content=content,
        table=content.table,
        number=number,
        stamp=f"{digest} {'with' if complete else 'without'} its images",
        policy=_policy(scripts),
        style=(ASSETS / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        data=safe_json(content.data),
    )
    return page.encode("utf-8", "replace")


def safe_json(value: Any) -> str:
    """JSON in ASCII that can stand in a ``script`` element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _own_script() -> str:
    sources = [(ASSETS / f"{name}.js").read_text(encoding="utf-8").strip() for name in SCRIPTS]
    return "\n".join(['(() => {\n"use strict";', *sources, "})();"])


def _policy(scripts: list[str]) -> str:
    """Nothing is loaded or sent, and no other script runs than these."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
