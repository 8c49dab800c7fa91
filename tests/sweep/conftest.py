"""The sweep that tests hurt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.execution import tracking
from tests.sweeps import Sweep


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """A results folder for runs of fake workers; no process may be left at the end."""
    sweep = Sweep(tmp_path)
    for name, value in sweep.environ.items():
        monkeypatch.setenv(name, value)
    yield sweep
    assert not sweep.processes(), "processes were left behind"


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """MLflow's tables take seconds to make, and minutes on a machine that is busy with other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "WAIT_S", 200.0)
        yield
