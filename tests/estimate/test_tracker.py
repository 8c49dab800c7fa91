"""The lives of storages, seen by small programs whose memory is plain."""

from __future__ import annotations

import pytest
import torch

from bench.estimate.tracker import ACTIVATIONS, GRADIENTS, INPUTS, OPTIMIZER_STATE, TEMPORARY, WEIGHTS, Tracker

KIB4 = 1024
"""Elements of a tensor of 4 KiB."""


def tensor(elements: int = KIB4, *, device: str = "meta") -> torch.Tensor:
    return torch.empty(elements, device=device)


@pytest.fixture(params=["meta", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_a_storage_lives_until_its_last_view_dies(device: str) -> None:
    tracker = Tracker(device=device)
    with tracker:
        x = tensor(device=device)
        view = x.view(32, 32).t()[1:]
        assert tracker.allocator.allocated == 4096
        del x
        assert tracker.allocator.allocated == 4096
        del view
    assert tracker.allocator.allocated == 0
    assert tracker.allocator.allocated_peak == 4096


def test_in_place_operations_and_views_make_nothing(device: str) -> None:
    tracker = Tracker(device=device)
    with tracker:
        x = tensor(device=device)
        x.add_(1).view(-1, 2).mul_(2).t_()
        x.unsqueeze_(0)
        assert tracker.allocator.allocated_peak == 4096


def test_the_peak_is_the_highest_sum_not_the_sum(device: str) -> None:
    tracker = Tracker(device=device)
    with tracker:
        x = tensor(device=device)
        for _ in range(5):
            x = x + 1
    assert tracker.allocator.allocated_peak == 2 * 4096


def test_what_is_not_on_the_device_does_not_count() -> None:
    tracker = Tracker()
    with tracker:
        kept = torch.ones(KIB4)
    assert tracker.allocator.allocated == 0
    assert kept.device.type == "cpu"


def test_a_phase_begins_with_what_is_alive() -> None:
    tracker = Tracker()
    with tracker:
        kept, gone = tensor(), tensor(16 * KIB4)
        del gone
        tracker.begin_phase()
        kept = kept + 1
    phase = tracker.end_phase()
    assert phase.allocated_peak_bytes == 2 * 4096
    assert phase.by_kind[ACTIVATIONS] == 2 * 4096


def test_a_step_is_split_by_kinds(device: str) -> None:
    """At its peak an update by momentum: weight, gradient, momentum, and foreach's temporary."""
    weight = torch.nn.Parameter(tensor(device=device))
    batch = tensor(device=device)
    tracker = Tracker(device=device)
    tracker.register([weight], WEIGHTS)
    tracker.register([batch], INPUTS)
    tracker.begin_phase()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False)
    with tracker, tracker.training([weight]):
        for _ in range(2):
            optimizer.zero_grad()
            (weight * batch).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    kinds = tracker.end_phase().by_kind
    assert (kinds[WEIGHTS], kinds[INPUTS], kinds[GRADIENTS], kinds[OPTIMIZER_STATE]) == (4096,) * 4
    assert kinds[TEMPORARY] == 4096, "the gradient with its weight decay"


def test_a_shared_storage_counts_once() -> None:
    weight = tensor()
    tracker = Tracker()
    tracker.register([weight, weight.view(32, 32), torch.nn.Parameter(weight)], WEIGHTS)
    assert tracker.allocator.allocated == 4096
