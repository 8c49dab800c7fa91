"""Which scale is taken without ``--scale``, and the reason that is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import environment
from bench.environment import Gpu
from bench.spec.load import SpecSource, read_spec
from bench.spec.scale import choose, choose_for_report

SPEC = """\
model: {family: miss, preset: tiny, weights: {kind: folder, path: weights}}
data: {name: slake, root: images}
train: {steps: 2, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4}
parts: {vit: F, jtm: T, dec: T}
published: {source: a paper, rows: []}
scales:
  demo: {data: {name: easy_vqa}, model: {weights: null}}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpecSource:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SPEC)
    gpus(monkeypatch, Gpu(token="0", name="Some GPU"))
    return read_spec(Path("s.yaml"))


def gpus(monkeypatch: pytest.MonkeyPatch, *found: Gpu) -> None:
    monkeypatch.setattr(environment, "visible_gpus", lambda: list(found))
    monkeypatch.setattr(environment, "torch_has_cuda", lambda: True)


def test_a_named_scale_is_taken(source: SpecSource) -> None:
    assert choose(source, "paper", []).scale == "paper"
    assert choose(source, "demo", []).reason == "as asked for"


def test_without_a_gpu_the_demo(source: SpecSource, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch)
    choice = choose(source, None, [])
    assert (choice.scale, "no" in choice.reason, "CUDA device" in choice.reason) == ("demo", True, True)
    assert choose(source, "auto", []) == choice


def test_without_data_or_weights_the_demo(source: SpecSource) -> None:
    choice = choose(source, None, [])
    assert choice.scale == "demo"
    assert "images" in choice.reason
    choice = choose(source, None, ["data={name: easy_vqa}"])
    assert choice.scale == "demo"
    assert "weights" in choice.reason


def test_a_list_and_a_report_do_not_look_for_weights(source: SpecSource, tmp_path: Path) -> None:
    """The paper's would be downloaded, and read to the last byte."""
    sets = ["data={name: easy_vqa}"]
    choice = choose(source, None, sets, weights=False)
    assert (choice.scale, choice.reason) == ("paper", "a CUDA device and the data are there")
    assert choose_for_report(source, None, sets, tmp_path).scale == "paper"


def test_with_everything_there_the_paper(source: SpecSource) -> None:
    everything = ["data={name: easy_vqa}", "model.weights=null"]
    assert choose(source, None, everything).scale == "paper"
    assert choose(source, None, [*everything, "run.device=cpu"]).scale == "demo"


def test_a_spec_without_demo_runs_as_it_stands(source: SpecSource) -> None:
    Path("t.yaml").write_text(SPEC.split("published")[0])
    choice = choose(read_spec(Path("t.yaml")), None, [])
    assert (choice.scale, choice.reason) == ("default", "the spec has no scale demo")
    assert source.scales == ("paper", "demo")


def test_a_report_takes_the_only_scale_that_has_results(source: SpecSource, tmp_path: Path) -> None:
    assert choose_for_report(source, None, [], tmp_path).scale == "demo"
    (tmp_path / "paper.jsonl").touch()
    assert choose_for_report(source, None, [], tmp_path).scale == "paper"
    assert choose_for_report(source, "demo", [], tmp_path).scale == "demo"
    (tmp_path / "demo.jsonl").touch()
    assert choose_for_report(source, None, [], tmp_path).scale == "demo"
