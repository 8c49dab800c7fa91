"""Fixtures of the trackers' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.execution import tracking


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """MLflow's tables take seconds to make, and minutes on a machine that is busy with other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "WAIT_S", 200.0)
        yield
