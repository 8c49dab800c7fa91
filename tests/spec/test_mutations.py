"""Whatever a user does to a spec, the answer is cells or a SpecError of one screen, never another exception."""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.errors import SpecError
from bench.spec.cell import expand
from bench.spec.diagnostics import Diagnostics
from bench.spec.load import read_spec
from bench.spec.yaml_tree import parse

TABLE1 = (Path(__file__).parents[2] / "specs/table1.yaml").read_text(encoding="utf-8")
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
