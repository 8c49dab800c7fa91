"""The kernel's count of out-of-memory kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.execution.processes import oom_kills

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (cgroup / "user" / "run").mkdir(parents=True)
    return proc, cgroup


def test_our_own_group_is_asked_first(machine: tuple[Path, Path]) -> None:
    proc, cgroup = machine
    (proc / "self" / "cgroup").write_text("1:name=systemd:/x\n0::/user/run\n")
    (proc / "vmstat").write_text("nr_free 1\noom_kill 9\n")
    (cgroup / "user" / "run" / "memory.events").write_text(EVENTS.format(2))
    assert oom_kills(proc, cgroup) == 2


def test_without_a_group_the_machine_is_asked(machine: tuple[Path, Path]) -> None:
    proc, cgroup = machine
    (proc / "vmstat").write_text("nr_free 1\noom_kill 9\n")
    assert oom_kills(proc, cgroup) == 9


def test_nothing_is_known_where_nothing_is_readable(machine: tuple[Path, Path]) -> None:
    assert oom_kills(*machine) is None


def test_this_machine_can_be_asked() -> None:
    count = oom_kills()
    assert count is None or count >= 0
