"""Texts of others, cleaned where they are shown."""

from __future__ import annotations

import pytest

from bench.format import csv_text, one_line, printable, visible

HOSTILE = "a\u200b\u202eb\x1b[31m\n c"


def test_a_terminal_gets_escapes() -> None:
    assert printable(HOSTILE) == "a\\u200b\\u202eb\\x1b[31m\n c"
    assert printable("Größe\nb", keep="") == "Größe\\nb"


def test_a_document_gets_what_can_be_seen() -> None:
    assert visible(HOSTILE) == "ab[31m c"
    assert one_line("  a\t b\n\u2066c ") == "a b c"
    assert visible("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "  =1", "＝1", "|x", "%x"])
def test_a_spreadsheet_runs_no_text(text: str) -> None:
    assert csv_text(text) == "'" + text
    assert csv_text("plain " + text) == "plain " + text
