"""Whatever a spec holds, the answer is its cells or one screen of errors with place and remedy, never a traceback.

The corpus in tests/malformed says in the first line of each spec where its mistake is, and a fragment of the message:
``# expect: 14:7 did you mean``.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import SpecError
from bench.spec.cell import expand
from bench.spec.diagnostics import Diagnostics
from bench.spec.load import read_spec
from bench.spec.yaml_tree import parse
from tests.conftest import ROOT
from tests.spec.conftest import Write

CORPUS = sorted((ROOT / "tests/malformed").glob("*.yaml"))
REMEDY = (
    r"did you mean|known:|must|needs|at most|remove|add|write|set |give|save|put|"
    r"rename|choose|use|copy|check|see|flatten"
)
"""Words of advice: each message has one."""
SPEC = """\
model: {family: miss, preset: tiny}
data: {name: easy_vqa}
train:
  steps: 10
  batch_size: 8
  optimizer: {lr: 1e-3}
evaluate: {batch_size: 8}
methods:
  LoRA: {type: lora, r: 4}
matrix:
  axes:
    parts: [{vit: F, jtm: LoRA, dec: LoRA}]
scales:
  small: {train: {steps: 1}}
"""


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 40


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_malformed_spec_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    expected = re.fullmatch(r"# expect: (\d+:\d+) (.+)", path.read_bytes().split(b"\n")[0].decode())
    assert expected
    place, fragment = expected.groups()
    result = CliRunner().invoke(app, [path.name, "--list"])
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 120 and line.isprintable() for line in lines)
    assert "Traceback" not in result.stderr
    messages = re.sub(r"\n {4}", " ", result.stderr).splitlines()
    assert any(m.startswith(f"{path.name}:{place}: ") and fragment in m for m in messages), result.stderr
    rest = [message for message in messages if not re.search(REMEDY, message)]
    assert all(re.fullmatch(r"\.\.\. and \d+ more", message) for message in rest), result.stderr
    assert bool(rest) == (path.stem == "many_mistakes"), "more than a screen is counted"


def test_all_problems_at_once(write: Write) -> None:
    text = (ROOT / "specs/table1.yaml").read_text()
    for old, new in (
        ("preset: base", "preset: bse"),
        ("lr: 1e-5", "lr: -1"),
        ("jtm: T, dec: LoRA}\n    m", "jtm: X, dec: LoRA}\n    m"),
    ):
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(SpecError) as caught:
        write(text).resolve("paper")
    for words in ("did you mean 'base'", "must be greater than 0, not -1", "no action 'X'"):
        assert words in str(caught.value)


def test_what_is_no_spec_file(write: Write) -> None:
    write(SPEC)
    os.mkfifo("pipe")
    Path("big.yaml").write_text("a: 1\n" * 100_000)
    for name, words in (
        (".", "is a folder"),
        ("pipe", "not a regular file"),
        ("big.yaml", "larger than 256 KiB"),
        ("null\0byte", "cannot be read"),
        ("z.yaml", r"^z\.yaml: no such file; did you mean 's\.yaml'\?"),
    ):
        with pytest.raises(SpecError, match=words):
            read_spec(Path(name))
    Path("ss.yaml").write_text(SPEC)
    with pytest.raises(SpecError, match=r"did you mean 'ss\.yaml'"):
        read_spec(Path("sss.yaml"))


def test_one_mistake_is_one_problem(write: Write) -> None:
    """Neither a missing field beside its misspelling, nor the parts of a family that cannot do the task."""
    with pytest.raises(SpecError) as caught:
        write(SPEC.replace("batch_size: 8\n", "bach_size: 8\n")).resolve("default")
    assert "did you mean 'batch_size'" in str(caught.value)
    assert "is missing" not in str(caught.value)
    with pytest.raises(SpecError) as caught:
        expand(write("task: image_classification\n" + SPEC.replace("vit: F", "body: F")).resolve("default"))
    assert str(caught.value).startswith("s.yaml:1:7: task: model family miss")
    assert "body" not in str(caught.value)


@pytest.mark.parametrize("after", ["", "train:", "methods:", "scales:"])
def test_twenty_thousand_unknown_keys_are_counted(write: Write, after: str) -> None:
    indent = "  " if after else ""
    junk = "\n".join(f"{indent}k{i}: 1" for i in range(20_000))
    text = SPEC.replace(f"\n{after}\n", f"\n{after}\n{junk}\n") if after else f"{SPEC}{junk}\n"
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        write(text).resolve("default")
    assert time.process_time() - began < 20, "quadratic: minutes"
    assert "k0" in str(caught.value) or "20,0" in str(caught.value)
    assert str(caught.value).count("\n") <= 21


@pytest.mark.parametrize(
    ("place", "value", "most"),
    [
        ("run.parallel", "2000000000", "1024"),
        ("run.threads", "2000000000", "1024"),
        ("run.wall_clock_limit_s", "1e300", "1000000000"),
        ("train.batch_size", "99999999999999", "1000000"),
        ("train.steps", "99999999999999", "1000000000"),
        ("evaluate.num_beams", "1000000", "1000"),
        ("evaluate.max_new_tokens", "10000000000", "1000000"),
    ],
)
def test_absurd_numbers_are_refused_with_the_bound(write: Write, place: str, value: str, most: str) -> None:
    with pytest.raises(SpecError, match=rf"{place}: must be less than or equal to {most}, not"):
        write(SPEC).resolve("default", [f"{place}={value}"])


def test_a_pair_of_surrogates_is_a_character_and_a_half_is_none(write: Write) -> None:
    assert write(SPEC + 'title: "a \\ud83d\\ude00 b"\n').resolve("default").spec.title == "a \U0001f600 b"
    for half in ("\\ud83d", "\\ude00\\ud83d", "\\ud83d\\ude00\\ud83d"):
        with pytest.raises(SpecError, match="half a surrogate pair"):
            write(SPEC + f'title: "{half}"\n')


@pytest.mark.parametrize("name", ["-", "__init__", "é", "a b", "x" * 33])
def test_a_message_about_a_name_gives_the_rule_that_it_breaks(write: Write, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        write(SPEC.replace("  LoRA: {", f'  "{name}": {{type: lora}}\n  LoRA: {{')).resolve("default")
    rule = "begins with a letter or digit of ASCII, and at most 31 of letters, digits, - _ + follow"
    assert rule in " ".join(str(caught.value).split())


TABLE1 = (ROOT / "specs/table1.yaml").read_text(encoding="utf-8")
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same examples in every run
    phases=[Phase.generate],  # shrinking a whole spec takes minutes, and a failing one is readable as it is
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["F", "T", "LoRA", "miss", "easy_vqa", "lora", "parts", "rank", "global", "demo", "name", "type"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["F", "vit", "name", "r", "x"]), inner),
    max_leaves=4,
)
KEYS = st.text(max_size=6) | st.sampled_from(
    ["parts", "vit", "name", "type", "epochs", "axes", "rows", "value", "kind"]
)


def answer(text: str, folder: Path) -> None:
    """Cells of every scale, or a SpecError that fits on a screen."""
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        source = read_spec(path)
        for scale in source.scales:
            assert all(len(cell.cell_id) == 16 for cell in expand(source.resolve(scale)))
    except SpecError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 24
        assert all(line.isprintable() for line in lines)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a nested structure."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [(tree, key) for key, _ in items] + [place for _, child in items for place in places(child)]


@QUICK
@given(
    seed=st.integers(0, 2**32), value=VALUES, key=KEYS, edits=st.lists(st.sampled_from("drv"), min_size=1, max_size=3)
)
def test_a_node_deleted_renamed_or_replaced(tmp_path: Path, seed: int, value: Any, key: str, edits: list[str]) -> None:
    tree = parse(TABLE1, "s.yaml", Diagnostics())
    assert tree is not None
    spec, rng = tree.plain(), random.Random(seed)
    for edit in edits:
        container, place = rng.choice(places(spec) or [([0], 0)])
        if edit == "d":
            del container[place]
        elif edit == "r" and isinstance(container, dict):
            container[key] = container.pop(place)
        else:
            container[place] = copy.deepcopy(value)
    answer(json.dumps(spec, indent=1), tmp_path)


@QUICK
@given(at=st.integers(0, len(TABLE1) - 1), cut=st.integers(0, 12), text=st.text(max_size=4))
def test_the_text_damaged(tmp_path: Path, at: int, cut: int, text: str) -> None:
    answer(TABLE1[:at] + text + TABLE1[at + cut :], tmp_path)


@QUICK
@given(
    text=st.sampled_from(["model", "train.steps", "matrix.axes", "methods.LoRA", "scales.demo", "parts", "columns"]),
    value=st.text(max_size=6),
)
def test_set(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "s.yaml").write_text(TABLE1, encoding="utf-8")
    source = read_spec(tmp_path / "s.yaml")
    with suppress(SpecError):
        expand(source.resolve("demo", [f"{text}={value}"]))
