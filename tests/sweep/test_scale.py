"""Which scale a sweep takes without ``--scale``, and the reason that is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import environment
from bench.environment import Gpu
from bench.spec.load import read_spec
from bench.sweep import Purpose, Sweep, resolve_scale

SPEC = """\
model: {family: miss, preset: tiny, weights: {kind: folder, path: weights}}
data: {name: slake, root: images}
train: {steps: 2, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4}
parts: {vit: F, jtm: T, dec: T}
published: {source: a paper, rows: [], scales: [small]}
scales:
  demo: {data: {name: easy_vqa}, model: {weights: null}}
  small: {train: {steps: 1}}
"""
DATA, WEIGHTS = "data={name: easy_vqa}", "model.weights=null"


@pytest.fixture(autouse=True)
def _spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SPEC)
    gpus(monkeypatch, Gpu(token="0", name="Some GPU"))


def gpus(monkeypatch: pytest.MonkeyPatch, *found: Gpu) -> None:
    monkeypatch.setattr(environment, "visible_gpus", lambda: list(found))
    monkeypatch.setattr(environment, "torch_has_cuda", lambda: True)


def resolved(for_: Purpose, *sets: str, named: str | None = None, path: str = "s.yaml") -> tuple[str, str]:
    return resolve_scale(read_spec(Path(path)), named, for_=for_, sets=sets, results=Path("results"))


def make_results(*scales: str) -> None:
    Path("results").mkdir(exist_ok=True)
    for scale in scales:
        (Path("results") / f"{scale}.jsonl").touch()


@pytest.mark.parametrize(
    ("for_", "sets", "scale", "reason"),
    [
        ("run", (), "demo", "images"),
        ("run", (DATA,), "demo", "weights"),
        ("run", (DATA, WEIGHTS), "paper", "a CUDA device, the data and the weights are there"),
        ("run", (DATA, WEIGHTS, "run.device=cpu"), "demo", "run.device is cpu"),
        # The paper's weights would be downloaded, and read to the last byte.
        ("list", (DATA,), "paper", "a CUDA device and the data are there"),
        ("report", (DATA,), "paper", "a CUDA device and the data are there"),
        ("estimate", (), "paper", "an estimate needs no GPU, data or weights"),
        ("export", (), "paper", "the spec as it stands"),
        ("published", (), "paper", "a published setting"),
    ],
)
def test_what_is_there_decides(for_: Purpose, sets: Sequence[str], scale: str, reason: str) -> None:
    found = resolved(for_, *sets)
    assert (found[0], reason in found[1]) == (scale, True), found
    assert resolved(for_, *sets, named="auto") == found
    assert resolved(for_, *sets, named="small") == ("small", "as asked for")


def test_without_a_gpu_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch)
    assert resolved("run") == (
        "demo",
        "paper needs a CUDA device and none is visible; --scale paper takes it all the same",
    )


def test_a_spec_without_demo_runs_as_it_stands() -> None:
    Path("t.yaml").write_text(SPEC.split("published")[0])
    assert resolved("run", path="t.yaml") == ("default", "the spec has no scale demo")
    assert read_spec(Path("s.yaml")).scales == ("paper", "demo", "small")


@pytest.mark.parametrize(
    ("there", "report", "export", "published"),
    [
        (["demo"], "demo", "demo", "paper"),
        (["small"], "small", "small", "small"),
        (["paper"], "paper", "paper", "paper"),
        (["demo", "small"], "demo", "paper", "small"),
        (["demo", "paper"], "demo", "paper", "paper"),
    ],
)
def test_the_scale_that_has_results(there: list[str], report: str, export: str, published: str) -> None:
    make_results(*there)
    assert [resolved(for_)[0] for for_ in ("report", "export", "published")] == [report, export, published]


def test_a_sweep_has_the_cells_and_records_of_its_scale(root: Path) -> None:
    spec, gallery = root / "specs" / "table1.yaml", root / "results" / "gallery"
    sweep = Sweep.load(spec, "export", results=gallery, only=["F-T-*"], reports=Path("r"))
    assert (sweep.scale, len(sweep.cells), len(sweep.selected), len(sweep.records())) == ("demo", 10, 2, 10)
    assert (sweep.results, sweep.reports) == (gallery / "table1", Path("r/table1"))
    for changes in ({"scale": "paper"}, {"sets": ["train.steps=3"]}, {"results": Path("none")}):
        assert Sweep.load(spec, "export", **({"results": gallery} | changes)).records() == {}
    assert len(Sweep.load(spec, "export", results=gallery, seeds=[1, 2]).cells) == 20
