"""Specs that nobody writes by hand: thousands of mistakes, absurd numbers, escapes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.errors import SpecError
from bench.spec.load import SpecSource, read_spec

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


def source(folder: Path, text: str) -> SpecSource:
    path = folder / "s.yaml"
    path.write_text(text)
    return read_spec(path)


@pytest.mark.parametrize("after", ["", "train:", "methods:", "scales:"])
def test_twenty_thousand_unknown_keys(tmp_path: Path, after: str) -> None:
    indent = "  " if after else ""
    junk = "\n".join(f"{indent}k{i}: 1" for i in range(20_000))
    text = SPEC.replace(f"\n{after}\n", f"\n{after}\n{junk}\n") if after else f"{SPEC}{junk}\n"
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        source(tmp_path, text).resolve("default")
    assert time.process_time() - began < 20, "quadratic: minutes"
    assert "k0" in str(caught.value) or "20,0" in str(caught.value)
    assert str(caught.value).count("\n") <= 21


def test_many_unknown_keys_are_counted(tmp_path: Path) -> None:
    junk = "\n".join(f"  k{i}: 1" for i in range(100))
    with pytest.raises(SpecError, match=r"train\.k0: unknown field") as caught:
        source(tmp_path, SPEC.replace("\ntrain:\n", f"\ntrain:\n{junk}\n")).resolve("default")
    assert "... and" in str(caught.value)


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
def test_absurd_numbers_are_refused_with_the_bound(tmp_path: Path, place: str, value: str, most: str) -> None:
    with pytest.raises(SpecError, match=rf"{place}: must be less than or equal to {most}, not"):
        source(tmp_path, SPEC).resolve("default", [f"{place}={value}"])


def test_a_pair_of_surrogates_is_a_character_and_a_half_is_none(tmp_path: Path) -> None:
    assert source(tmp_path, SPEC + 'title: "a \\ud83d\\ude00 b"\n').resolve("default").spec.title == "a \U0001f600 b"
    for half in ("\\ud83d", "\\ude00\\ud83d", "\\ud83d\\ude00\\ud83d"):
        with pytest.raises(SpecError, match="half a surrogate pair"):
            source(tmp_path, SPEC + f'title: "{half}"\n')


@pytest.mark.parametrize("name", ["-", "__init__", "é", "a b", "x" * 33])
def test_a_message_about_a_name_gives_the_rule_that_it_breaks(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        source(tmp_path, SPEC.replace("  LoRA: {", f'  "{name}": {{type: lora}}\n  LoRA: {{')).resolve("default")
    told = " ".join(str(caught.value).split())
    assert "begins with a letter or digit of ASCII, and at most 31 of letters, digits, - _ + follow" in told
