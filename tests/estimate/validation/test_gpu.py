"""The command for a real GPU, with a CPU in its place and the tracker as its caching allocator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.estimate.gpus import DEFAULT, GPUS, cublas_of
from bench.estimate.tracker import StorageTracker
from bench.estimate.validation import __main__ as command
from bench.estimate.validation import gpu, paper
from bench.records.costs import MEMORY_KINDS, PredictedPhase
from bench.records.record import PhaseMemory
from bench.spec.cell import Cell
from bench.training.measure import open_gpu_meter

CONTEXT = 500 * 2**20
CUBLAS = cublas_of(GPUS[DEFAULT], torch.__version__)
WORKSPACES = 2 * (CUBLAS.workspace_bytes + CUBLAS.lt_workspace_bytes)


class FakeCuda:
    """What torch and NVML would say of a GPU on which the CPU's tensors lie."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.tracker = StorageTracker(device="cpu")
        self.phases: list[str] = []
        patch.setattr(gpu, "cuda_peaks", self.peaks)
        patch.setattr(gpu, "open_gpu_meter", lambda _: self)
        patch.setattr(torch.cuda, "memory_reserved", lambda _: self.tracker.allocator.reserved)

    @contextmanager
    def peaks(self, _: torch.device, peaks: dict[str, PhaseMemory], phase: str) -> Iterator[None]:
        self.tracker.begin_phase()
        try:
            with self.tracker:
                yield
        finally:
            found = self.tracker.end_phase()
            peaks[phase] = PhaseMemory(
                allocated_peak_bytes=found.allocated_peak_bytes, reserved_peak_bytes=found.reserved_peak_bytes
            )
            self.phases.append(phase)

    def start(self) -> None: ...

    def sample(self) -> None: ...

    def stop(self) -> None: ...

    def process_peak_bytes(self, *, at_least: int) -> int:
        return max(at_least, self.tracker.allocator.reserved) + CONTEXT


def measure(cell: Cell, assumed: Mapping[str, Any], *, nvml: bool = True) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        fake = FakeCuda(patch)
        if not nvml:
            patch.setattr("bench.nvml.start", lambda: None)
            patch.setattr(gpu, "open_gpu_meter", lambda _: open_gpu_meter(torch.device("cuda")))
        found = gpu.measure(cell, assumed, device="cpu")
        assert fake.phases[:2] == ["load", "train"]
        return found


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "require_gpu", lambda: None)
    known = {"versions": {"torch": "2"}, "device": "NVIDIA Fake", "capability": [8, 0]}
    monkeypatch.setattr(gpu, "measured_environment", lambda: known)
    monkeypatch.setattr(gpu, "measure_in_process", measure)


@pytest.mark.usefixtures("with_a_gpu")
def test_measures_every_phase_beside_its_prediction(specs: Path, tmp_path: Path) -> None:
    command.main(["gpu", "--specs", str(specs), "--out", str(tmp_path / "out")])
    environment, *rows = map(json.loads, (tmp_path / "out" / "gpu.jsonl").read_text().splitlines())
    assert environment["environment"]["device"] == "NVIDIA Fake"
    assert [row["spec"] for row in rows] == ["table1", "table2", "table3", "table4"]
    for row in rows:
        assert row["measured"]["status"] == "ok"
        assert row["measured"]["context_bytes"] == CONTEXT
        assert row["measured"]["nvml_process_peak_bytes"] > CONTEXT
        assert set(row["phases"]) == {"train", "eval"}
        # a CPU's kernels take no workspaces, which are most of what so small a cell needs
        for phase in ("train", "eval"):
            ours = row["estimate"]["memory"][phase]["allocated_peak_bytes"]
            theirs = row["measured"]["phases"][phase]["allocated_peak_bytes"]
            assert row["phases"][phase]["allocated_error"] == pytest.approx(ours / theirs - 1)
            assert theirs <= ours <= 1.1 * theirs + WORKSPACES
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert "of 16 peaks hold" in page
    assert "500.0 to 500.0 MiB; assumed are 617.5" in page


@pytest.mark.usefixtures("with_a_gpu")
def test_a_card_that_is_too_small_is_a_result(specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_small(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    monkeypatch.setattr(gpu, "take_steps", too_small)
    assert command.main(["gpu", "--specs", str(specs), "--out", str(tmp_path / "out")]) == 0
    _, row, *_ = map(json.loads, (tmp_path / "out" / "gpu.jsonl").read_text().splitlines())
    assert row["measured"]["status"] == "oom"
    assert row["measured"]["message"] == "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert set(row["measured"]["phases"]) == {"load", "train"}
    assert row["phases"] == {}
    assert "4 cells ended oom and are not compared" in (tmp_path / "out" / "gpu.md").read_text()


@pytest.mark.usefixtures("with_a_gpu")
def test_without_an_answer_of_nvml_only_its_numbers_are_missing(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver without its management library, as in a container with the capability ``compute`` alone."""

    monkeypatch.setattr(gpu, "measure_in_process", partial(measure, nvml=False))
    command.main(["gpu", "--specs", str(specs), "--out", str(tmp_path / "out")])
    _, *rows = map(json.loads, (tmp_path / "out" / "gpu.jsonl").read_text().splitlines())
    for row in rows:
        assert row["measured"]["status"] == "ok"
        assert row["measured"]["context_bytes"] is row["measured"]["nvml_process_peak_bytes"] is None
        assert set(row["phases"]) == {"train", "eval"}
    assert "NVML does not know this process" in (tmp_path / "out" / "gpu.md").read_text()


@pytest.mark.parametrize(("capability", "name"), [((9, 0), "hopper"), ((7, 5), "turing"), ((3, 5), DEFAULT)])
def test_the_generation_is_the_one_that_torch_sees(capability: tuple[int, int], name: str) -> None:
    assert gpu.assumed_generation({"capability": capability}) == name


def test_without_a_gpu_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert command.main(["gpu"]) == 2
    assert "finds no CUDA device" in capsys.readouterr().err


def test_a_fault_in_the_cells_process_does_not_end_the_others(specs: Path) -> None:
    """In a process of its own, on ``cuda``, which is not here: an error, and no result."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    row = paper.read_rows(specs, [])[0]
    found = gpu.measure_in_process(row.cell, {})
    assert found["status"] == "error"
    assert found["message"]
    assert not gpu.holds({"measured": found, "phases": {}})


@pytest.mark.parametrize(
    ("allocated", "reserved", "holds"), [(1.0, 1.0, True), (1.021, 1.0, False), (0.979, 1.0, False), (1, 1.051, False)]
)
def test_verdicts(allocated: float, reserved: float, holds: bool) -> None:
    size = 10**9
    kinds = dict.fromkeys(MEMORY_KINDS, 0) | {"weights": round(allocated * size)}
    predicted = PredictedPhase(
        allocated_peak_bytes=round(allocated * size), reserved_peak_bytes=round(reserved * size), by_kind=kinds
    )
    found = gpu.phase_errors(predicted, PhaseMemory(allocated_peak_bytes=size, reserved_peak_bytes=size))
    assert gpu.holds({"measured": {"status": "ok"}, "phases": {"train": found}}) is holds
