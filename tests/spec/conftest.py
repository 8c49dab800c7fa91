"""Makers of specs for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.spec.load import SpecSource, read_spec

Write = Callable[[str], SpecSource]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a text to ``s.yaml`` in the working directory and reads it."""
    monkeypatch.chdir(tmp_path)

    def write_and_read(text: str) -> SpecSource:
        Path("s.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        return read_spec(Path("s.yaml"))

    return write_and_read
