"""How many cells an executor runs at a time, workers that no signal ends, and kills for want of host memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.environment import Gpu
from bench.execution.processes import oom_kills
from bench.executors import local
from bench.executors.local import LocalExecutor
from bench.records.record import Status
from tests.sweeps import FAKE_WORKER, Sweep, data_digest, make_cell, wait_until


def test_on_a_cpu_as_many_as_the_spec_says() -> None:
    assert local.create([make_cell("a", device="cpu"), make_cell("b", device="cpu")]).slots == 1
    assert local.create([make_cell("a", device="cpu", parallel=3), make_cell("b", device="cpu", parallel=2)]).slots == 2


def test_on_gpus_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu(token=str(i), name="GPU") for i in range(2)]
    monkeypatch.setattr(local, "usable_gpus", lambda device: gpus if device != "cpu" else [])
    assert local.create([make_cell("a", device="auto", parallel=5)]).slots == 2
    assert LocalExecutor((), on_cpu=4).slots == 4


class Stuck:
    """Workers that no signal reaches: here, as none is sent to them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pids: list[int] = []
        patch.setattr(local, "end_worker", lambda pid, _job, *, grace_s: self.pids.append(pid))  # noqa: ARG005
        patch.setattr(local, "GRACE_S", 0.05)

    def let_go(self) -> None:
        """The driver answers, and the signal that has waited takes effect."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self.pids.clear()


@pytest.fixture
def stuck(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    stuck = Stuck(monkeypatch)
    yield stuck
    stuck.let_go()
    wait_until(lambda: not sweep.processes())


def test_a_worker_that_cannot_be_ended_keeps_its_gpu(sweep: Sweep, stuck: Stuck) -> None:
    gpus = [Gpu(token="GPU-a", name="A"), Gpu(token="GPU-b", name="B")]
    executor = LocalExecutor(gpus, worker=FAKE_WORKER)
    cells = [make_cell("hang@load", device="auto", wall_clock_limit_s=1), *(make_cell(f"ok {i}") for i in range(3))]
    cells[1:] = [cell.model_copy(update={"run": cells[0].run}) for cell in cells[1:]]
    summary = sweep.run(cells, executor=executor)
    assert [str(record.status) for record in summary.records] == ["timeout", "ok", "ok", "ok"]
    (on_a,) = [note["label"] for note in sweep.notes("start") if note["CUDA_VISIBLE_DEVICES"] == "GPU-a"]
    assert on_a == "hang@load", "another cell was put on the GPU that it holds"
    assert any("no signal ends the worker of this cell" in text and "A gets no other cell" in text
               for text in sweep.told)  # fmt: skip
    assert executor.slots == 1
    stuck.let_go()
    wait_until(lambda: executor.slots == 2)  # the GPU is free again


@pytest.mark.usefixtures("stuck")
def test_where_no_device_is_left_the_run_ends_and_says_so(sweep: Sweep) -> None:
    executor = LocalExecutor([Gpu(token="GPU-a", name="A")], worker=FAKE_WORKER)
    cells = [make_cell("hang@load", device="auto", wall_clock_limit_s=1), make_cell("ok 1", device="auto")]
    summary = sweep.run(cells, executor=executor)
    assert [str(record.status) for record in summary.records] == ["timeout"]
    assert summary.exit_code == 1
    assert any("hold all of them; 1 cells were not run" in text for text in sweep.told)


def test_inline_runs_the_real_worker_s_entry_in_this_process(sweep: Sweep) -> None:
    cell = make_cell("inline")
    (record,) = sweep.run([cell], executor="inline").records
    assert (record.status, record.error, record.data_digest) == (Status.OK, None, data_digest())
    assert (sweep.job(cell) / "result.json").exists()
    assert sweep.run([cell], executor="inline").finished_before == 1


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("1:name=systemd:/x\n0::/user/run\n", ("cgroup/user/run/memory.events", "proc/vmstat"), 2),
        (None, ("proc/vmstat",), 9),
        (None, (), None),
    ],
    ids=["our own group is asked first", "without a group the machine is asked", "nothing is readable"],
)
def test_the_kernel_s_count_of_kills(
    tmp_path: Path, groups: str | None, files: tuple[str, ...], count: int | None
) -> None:
    contents = {"cgroup/user/run/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"}
    contents["proc/vmstat"] = "nr_free 1\noom_kill 9\n"
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(contents[name])
    if groups is not None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    assert oom_kills(tmp_path / "proc", tmp_path / "cgroup") == count
