"""Normalised forms of texts: two texts are the same answer if their forms are equal."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal

Rule = Literal["squad", "vqa", "none"]

_CJK = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Characters of scripts that put no spaces between words: ideographs and kana."""
_BESIDE_CJK = re.compile(rf"\s+(?=[{_CJK}])|(?<=[{_CJK}])\s+")
_ONE_CJK = re.compile(rf"([{_CJK}])")
_AROUND_MARK = re.compile(r"\s*([^\w\s]|_)\s*")
_DASHES = re.compile("[\u2010-\u2015\u2212\ufe63\uff0d]")
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_APART = (
    re.compile(r"(?<=\d)\s*([-.:/])\s*(?=\d)"),  # 3. 5
    re.compile(r"(?<=[^\W_])\s*([+*/^=<>])\s*(?=[^\W_])"),  # x + 1
    re.compile(r"(?<!\S)([-+])\s+(?=\.?\d)"),  # - 5
    re.compile(r"(?<=[^\W_])\s*([-+#])\s*(?=[-+#\s]*$)"),  # C + +
    re.compile(r"(?<=[-+#])\s+([-+#])\s*(?=[-+#\s]*$)"),
)
"""Spaces that a WordPiece tokenizer decodes between a mark and its neighbours."""
_ARTICLE = re.compile(r"(?<![\w-])(?<!\w['’])(?:a|an|the)\s+(?=\S)")
"""An article before a word; the ``A`` of ``hepatitis A``, ``A, C`` or alone is a name."""
_MEANT = "|".join(
    (
        r"(?<=\d)[^\w\s](?=\d)",  # 3.5, 1/2, 10-20
        r"(?<!\w)[-+](?=[$€£]?\.?\d)",  # -5
        r"(?<![\w.])\.(?=\d)",  # .5
        r"[<>](?==?\s*[-+]?\.?\d)",  # <5
        r"(?<=[^\W_])[+*/^=<>](?=\w*\d)|(?<=\d)[+*/^=<>](?=\w)|(?<=[^\W_])[+*^=<>](?=[^\W_])",  # x+1, a=b; not and/or
        r"(?<=[\w+#])[+#](?![^\W_])",  # C++, C#
        r"(?<=\w)-(?![\w-])",  # HER2-
    )
)
"""Punctuation that distinguishes one answer from another."""


def form_of(rule: Rule) -> Callable[[str], str]:
    """The function from a text to its form."""
    forms: dict[Rule, Callable[[str], str]] = {
        "squad": lambda text: " ".join(squad_words(text)),
        "vqa": vqa,
        "none": str,
    }
    return forms[rule]


def words_of(rule: Rule) -> Callable[[str], list[str]]:
    """The function from a text to its words for token F1."""
    if rule == "squad":
        return squad_words
    return (lambda text: _words(vqa(text))) if rule == "vqa" else str.split


def vqa(text: str) -> str:
    """The form in which answers about images are compared.

    1. lower case, composed characters (NFC);
    2. no white space beside punctuation, because a BERT tokenizer decodes ``X-Ray`` to ``x - ray``, nor beside
       ideographs and kana, because it decodes ``左肺`` to ``左 肺``;
    3. any other white space (tabs, runs) is one space, none at the ends;
    4. no periods at the end, unless the text has nothing else.

    Articles, plurals, synonyms and numbers in words are left as they are. The released MISS and MILE code scores
    only closed questions (equal after lower-casing) and publishes no rule for open ones.
    """
    tight = _BESIDE_CJK.sub("", _AROUND_MARK.sub(_tight, _composed(text)))
    whole = " ".join(tight.split())
    return whole.rstrip(". ") or whole


def squad_words(text: str) -> list[str]:
    """The words that SQuAD compares (Rajpurkar et al. 2016): lower case, without punctuation, without the articles a,
    an and the.

    Unlike there, these stay: signs, decimal points and operators (``-5``, ``3.5``, ``x+1``), marks at the end of a name
    (``C++``, ``HER2-``), articles without a word behind them, and a text that has nothing else. Punctuation is that of
    all scripts, and every ideograph or kana is a word, as in MLQA (Lewis et al. 2020).
    """
    text = _DASHES.sub("-", _composed(text))
    joined = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    for apart in _APART:
        joined = apart.sub(r"\1", joined)
    return _words(_dropped().sub("", _ARTICLE.sub("", joined))) or text.split()


def _tight(found: re.Match[str]) -> str:
    """A mark without the spaces around it; a vowel sign, part of a word, keeps them."""
    return found[0] if unicodedata.category(found[1])[0] == "M" else found[1]


def _composed(text: str) -> str:
    # Twice: a letter may compose with its mark in lower case alone, as j with a caron.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _words(text: str) -> list[str]:
    return _ONE_CJK.sub(r" \1 ", text).split()


@cache
def _dropped() -> re.Pattern[str]:
    """Pattern of a punctuation mark that distinguishes nothing."""
    marks = {chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"}
    one = "".join(map(re.escape, sorted(marks | set(string.punctuation))))
    return re.compile(rf"(?!{_MEANT})[{one}]")
