"""How many cells the local executor runs at a time."""

from __future__ import annotations

import pytest

from bench.environment import Gpu
from bench.executors import local
from bench.executors.local import LocalExecutor
from tests.sweeps import make_cell


def test_on_a_cpu_as_many_as_the_spec_says() -> None:
    assert local.create([make_cell("a", device="cpu"), make_cell("b", device="cpu")]).slots == 1
    assert local.create([make_cell("a", device="cpu", parallel=3), make_cell("b", device="cpu", parallel=2)]).slots == 2


def test_on_gpus_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu(token=str(i), name="GPU") for i in range(2)]
    monkeypatch.setattr(local, "usable_gpus", lambda device: gpus if device != "cpu" else [])
    assert local.create([make_cell("a", device="auto", parallel=5)]).slots == 2
    assert LocalExecutor((), on_cpu=4).slots == 4
