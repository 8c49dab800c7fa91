"""Every spec in tests/malformed is refused: exit code 2, the right line, a remedy, one screen, no traceback.

The first line of each says where the mistake is and a fragment of the message: ``# expect: 14:7 did you mean``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app

CORPUS = sorted((Path(__file__).parents[1] / "malformed").glob("*.yaml"))
REMEDY = (
    r"did you mean|known:|must|needs|at most|remove|add|write|set |give|save|put|"
    r"rename|choose|use|copy|check|see|flatten"
)
"""Words of advice: each message has one."""


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 40


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    first_line = path.read_bytes().split(b"\n")[0].decode()
    expected = re.fullmatch(r"# expect: (\d+:\d+) (.+)", first_line)
    assert expected, first_line
    place, fragment = expected.groups()

    result = CliRunner().invoke(app, [path.name, "--list"])

    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 120 and line.isprintable() for line in lines)
    assert "Traceback" not in result.stderr
    messages = re.sub(r"\n {4}", " ", result.stderr).splitlines()
    assert any(m.startswith(f"{path.name}:{place}: ") and fragment in m for m in messages), result.stderr
    told = [message for message in messages if not message.startswith("... and ")]
    assert all(re.search(REMEDY, message) for message in told), result.stderr


def test_more_than_a_screen_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS[0].parent)
    result = CliRunner().invoke(app, ["many_mistakes.yaml", "--list"])
    assert re.search(r"^\.\.\. and \d+ more$", result.stderr, flags=re.MULTILINE)


def test_all_problems_at_once(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "specs/table1.yaml").read_text()
    for old, new in [
        ("preset: base", "preset: bse"),
        ("lr: 1e-5", "lr: -1"),
        ("jtm: T, dec: LoRA}\n    m", "jtm: X, dec: LoRA}\n    m"),
    ]:
        assert old in text
        text = text.replace(old, new)
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(text)
    stderr = CliRunner().invoke(app, ["s.yaml", "--list"]).stderr
    assert "did you mean 'base'" in stderr
    assert "must be greater than 0, not -1" in stderr
    assert "no action 'X'" in stderr
