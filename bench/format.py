"""Text for people: cleaned so that it cannot steer a terminal, page or spreadsheet, and numbers as they are shown."""

from __future__ import annotations

import unicodedata

DASH = "—"
"""Not measured."""
MINUS = "−"
PREDICTED = "≈"
"""Mark of a value that an estimate predicts, where nothing was measured."""
FLAG = "†"
"""Mark of a published value that does not agree with its neighbours."""

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Unicode categories of control, format (zero-width, text direction), surrogate, private and unassigned characters."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠", "|", "%")
"""First characters that make a spreadsheet run a text."""


def printable(text: str, keep: str = "\n") -> str:
    """For a terminal or a log: characters that could steer it are escaped, except those in ``keep``."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def visible(value: object, width: int | None = None) -> str:
    """For a document: without hidden characters, cut to ``width``; spaces stay as they are."""
    # Four times the width is enough to fill it, and keeps a log of megabytes from being looked at whole.
    text = str(value) if width is None else str(value)[: 4 * width]
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable() or unicodedata.category(c) not in _HIDDEN)
    return text if width is None else clipped(text, width)


def one_line(value: object) -> str:
    """``visible`` on one line, with single spaces."""
    return visible(" ".join(str(value).split()))


def csv_text(text: str) -> str:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def number(value: float | None, digits: int) -> str:
    """``1,234.50``; an em dash for null; never ``-0.00``."""
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not float(text.replace(",", "")) else text.replace("-", MINUS)


def deviation(value: float | None, digits: int) -> str:
    """Like ``number``, with a sign unless it rounds to zero."""
    text = number(value, digits)
    signed = value is not None and value > 0 and float(text.replace(",", ""))
    return f"+{text}" if signed else text


def spread(mean: float | None, std: float | None, digits: int) -> str:
    """``12.3 ± 0.4``, or the mean alone where one seed says nothing about the spread."""
    text = number(mean, digits)
    return text if std is None else f"{text} ± {number(std, digits)}"


def predicted(value: str) -> str:
    """``≈ 0.21``."""
    return f"{PREDICTED} {value}"


def counted(n: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def clipped(text: str, width: int) -> str:
    """At most ``width`` characters, the cut marked."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
