"""What must hold of every estimate, whatever its numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.estimate.estimator import Estimator
from bench.records.costs import MEMORY_KINDS, Estimate, PredictedPhase
from bench.spec.cell import Cell
from bench.worker.run import run_cell

Estimates = Callable[..., Estimate]
Make = Callable[..., Cell]

DEEP = {"model": {"vision": {"num_hidden_layers": 4}, "image": {"size": 96}, "text": {"dropout": 0.1}}}
"""Enough layers and tokens for activations to matter."""
ALL_TRAINED = {"vit": "T", "jtm": "T", "dec": "T"}
METHODS = {
    "LoRA": {"type": "lora", "r": 4},
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix", "num_virtual_tokens": 3},
    "PTV2": {"type": "ptuning_v2", "num_virtual_tokens": 3},
}


def trained(estimate: Estimate) -> PredictedPhase:
    assert estimate.memory is not None
    assert estimate.memory.train is not None
    return estimate.memory.train


def kind(estimate: Estimate, name: str) -> int:
    return trained(estimate).by_kind[name]


def flops(estimate: Estimate) -> tuple[int, int]:
    assert estimate.flops is not None
    assert estimate.flops.train_forward is not None
    assert estimate.flops.train_backward is not None
    return estimate.flops.train_forward, estimate.flops.train_backward


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parts": ALL_TRAINED},
        {"train": {"precision": "bf16_autocast"}},
        {"train": {"precision": "fp16_autocast", "gradient_clip": 1.0}},
        {"train": {"gradient_accumulation_steps": 3, "gradient_checkpointing": True}},
        {"parts": {"vit": "F", "jtm": "F", "dec": "F"}},
    ],
    ids=str,
)
def test_the_peaks_parts_add_up(estimate: Estimates, changes: dict[str, Any]) -> None:
    memory = estimate(**changes).memory
    assert memory is not None
    for phase in (memory.train, memory.eval):
        if phase is None:
            assert set(changes["parts"].values()) == {"F"}
            continue
        assert tuple(phase.by_kind) == MEMORY_KINDS
        assert sum(phase.by_kind.values()) == phase.allocated_peak_bytes <= phase.reserved_peak_bytes
        assert min(phase.by_kind.values()) >= 0
    assert memory.eval.by_kind["gradients"] == memory.eval.by_kind["optimizer_state"] == 0


def test_checkpointing_lowers_activations_and_costs_a_forward_pass(estimate: Estimates) -> None:
    plain = estimate(parts=ALL_TRAINED, **DEEP)
    saving = estimate(parts=ALL_TRAINED, **DEEP, train={"gradient_checkpointing": True})
    assert kind(saving, "activations") < 0.6 * kind(plain, "activations")
    assert flops(saving)[0] == flops(plain)[0]
    assert flops(plain)[1] < flops(saving)[1] < flops(plain)[1] + flops(plain)[0]


def test_bf16_halves_weights_and_activations(estimate: Estimates) -> None:
    wide = {"model": {**DEEP["model"], "vision": {"num_hidden_layers": 4, "hidden_size": 128}}}
    wide["model"]["text"] = {"hidden_size": 128}
    full = estimate(parts=ALL_TRAINED, **wide)
    half = estimate(parts=ALL_TRAINED, **wide, train={"precision": "bf16"})
    for name in ("weights", "gradients", "optimizer_state", "activations"):
        assert kind(half, name) == pytest.approx(kind(full, name) / 2, rel=0.12), name
    assert half.params == full.params
    assert flops(half) == flops(full)


def test_autocast_keeps_fp32_weights_and_lowers_activations(estimate: Estimates) -> None:
    full = estimate(parts=ALL_TRAINED, **DEEP)
    mixed = estimate(parts=ALL_TRAINED, **DEEP, train={"precision": "bf16_autocast"})
    assert kind(mixed, "weights") == kind(full, "weights")
    assert kind(mixed, "optimizer_state") == kind(full, "optimizer_state")
    assert kind(mixed, "activations") < kind(full, "activations")


def test_freezing_the_vit_removes_its_activations(estimate: Estimates) -> None:
    shallow = {"model": {**DEEP["model"], "vision": {"num_hidden_layers": 2}}}
    frozen = {"vit": "F", "jtm": "T", "dec": "T"}
    by_depth = {
        action: [kind(estimate(parts={**frozen, "vit": action}, **depth), "activations") for depth in (shallow, DEEP)]
        for action in ("F", "T")
    }
    assert by_depth["F"][0] == by_depth["F"][1], "a frozen ViT of more layers keeps no more"
    assert by_depth["T"][1] > 1.5 * by_depth["T"][0]


def test_frozen_parts_cost_no_weight_gradients(estimate: Estimates) -> None:
    forward, backward = flops(estimate(parts=ALL_TRAINED))
    frozen_forward, frozen_backward = flops(estimate(parts={"vit": "F", "jtm": "F", "dec": "T"}))
    assert frozen_forward == forward
    assert frozen_backward < 0.7 * backward
    assert 1.7 * forward < backward < 2.1 * forward


def test_parameters_are_linear_in_the_rank(estimate: Estimates) -> None:
    trainable = []
    for rank in (1, 2, 5, 9):
        params = estimate(
            methods={"LoRA": {"type": "lora", "r": rank}}, parts={"vit": "F", "jtm": "LoRA", "dec": "F"}
        ).params
        assert params is not None
        trainable.append(params.trainable)
    assert trainable[0] > 0
    assert trainable == [rank * trainable[0] for rank in (1, 2, 5, 9)]


def test_memory_grows_with_the_batch(estimate: Estimates) -> None:
    peaks = [trained(estimate(train={"batch_size": size})).allocated_peak_bytes for size in (1, 3, 8, 20)]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]


def test_accumulation_repeats_a_batch_without_keeping_it(estimate: Estimates) -> None:
    once, thrice = (
        estimate(parts=ALL_TRAINED, **DEEP),
        estimate(parts=ALL_TRAINED, **DEEP, train={"gradient_accumulation_steps": 3}),
    )
    assert flops(thrice) == tuple(3 * part for part in flops(once))
    # not the same moment, since gradients live on; a batch that was kept would make it twice as many
    assert kind(thrice, "activations") < 1.1 * kind(once, "activations")
    assert kind(thrice, "gradients") >= kind(once, "gradients")


def test_fused_attention_keeps_no_probabilities(estimate: Estimates) -> None:
    eager = estimate(parts=ALL_TRAINED, **DEEP)
    fused = estimate(parts=ALL_TRAINED, model={**DEEP["model"], "attention": "sdpa"})
    assert kind(fused, "activations") < kind(eager, "activations")


def test_optimizers_keep_what_they_must(estimate: Estimates) -> None:
    def of(**optimizer: Any) -> Estimate:
        return estimate(parts=ALL_TRAINED, train={"optimizer": {"lr": 1e-3, **optimizer}})

    params = of().params
    assert params is not None
    copy = 4 * params.trainable
    assert of(name="sgd").memory is not None
    assert kind(of(name="sgd"), "optimizer_state") == 0
    # blocks of 512 bytes, and every tensor of a small model has its own
    assert copy <= kind(of(name="sgd", momentum=0.9), "optimizer_state") < 1.3 * copy
    assert 2 * copy <= kind(of(), "optimizer_state") < 2.6 * copy


def test_foreach_holds_a_copy_of_one_group_at_a_time(estimate: Estimates) -> None:
    """A method with a rate of its own is a group of its own, as in the run."""
    peaks = {}
    for rate in (None, {"lr": 1e-4}):
        methods = {"A": {"type": "subset"}, "B": {"type": "subset", "train": rate}}
        parts = {"vit": "A", "jtm": "B", "dec": "A"}
        wide = {"vision": {"hidden_size": 512}, "text": {"hidden_size": 512}}
        found = estimate(parts=parts, methods=methods, train={"batch_size": 1}, model=wide)
        peaks[rate is None] = trained(found).allocated_peak_bytes
    assert peaks[False] < peaks[True]


def test_foreach_holds_a_copy_where_a_loop_does_not(estimate: Estimates) -> None:
    """With a batch of one in a wide model, the peak is in the optimizer's step."""
    wide = {"vision": {"hidden_size": 512}, "text": {"hidden_size": 512}}
    peaks = {}
    for kernels in ("auto", "foreach", "for_loop", "fused"):
        train = {"batch_size": 1, "optimizer": {"lr": 1e-3, "implementation": kernels}}
        peaks[kernels] = trained(estimate(parts=ALL_TRAINED, train=train, model=wide)).allocated_peak_bytes
    assert peaks["auto"] == peaks["foreach"] > peaks["for_loop"] >= peaks["fused"]


def test_late_zeroing_keeps_gradients_through_the_forward_pass(estimate: Estimates) -> None:
    early, late = (
        estimate(parts=ALL_TRAINED, **DEEP, train={"zero_grad": place, "batch_size": 20})
        for place in ("before_forward", "before_backward")
    )
    assert kind(late, "gradients") > kind(early, "gradients")
    assert trained(late).allocated_peak_bytes > trained(early).allocated_peak_bytes


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"parts": {"vit": "F", "jtm": name, "dec": name}, "methods": {name: method}}
            for name, method in METHODS.items()
        ),
        {"parts": {"vit": "LoRA", "jtm": "F", "dec": "T"}, "methods": {"LoRA": {"type": "lora", "r": 7}}},
        {
            "parts": {"vit": "F", "jtm": "LoRA", "dec": "F"},
            "methods": {"LoRA": {"type": "lora", "targets": {"jtm": ["query"]}}},
        },
        {"parts": {"vit": "T", "jtm": "T", "dec": "T"}, "train": {"precision": "bf16"}},
    ],
    ids=lambda changes: "-".join(changes["parts"].values()) + f" {changes.get('methods', '')}",
)
def test_estimate_and_run_build_the_same_model(
    estimate: Estimates, make_cell: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """A change of a method's settings moves both, to the last parameter and byte."""
    predicted = estimate(**changes)
    record = run_cell(make_cell(**changes), tmp_path)
    assert record.status == "ok", record.error
    assert record.params == predicted.params
    assert record.adapter_bytes == predicted.adapter_bytes


def test_what_was_learnt_changes_nothing(make_cell: Make) -> None:
    """The memory of shapes only saves time."""
    cell = make_cell(parts={"vit": "LoRA", "jtm": "LoRA", "dec": "T"}, train={"precision": "bf16_autocast"})
    fresh = Estimator()
    assert fresh.estimate(cell) == fresh.estimate(cell)


def test_the_record_of_a_run_has_its_estimate(make_cell: Make, estimator: Estimator, tmp_path: Path) -> None:
    from bench.records.record import CellRecord
    from bench.worker.run import run_and_estimate

    cell = make_cell()
    record = run_and_estimate(cell, tmp_path, tmp_path / "result.json")
    assert record.estimate == estimator.estimate(cell)
    assert CellRecord.model_validate_json((tmp_path / "result.json").read_bytes()) == record


def test_the_paper_scale_needs_little_host_memory(root: Path) -> None:
    """MISS-base, 361 M parameters, in a process of its own: neither weights nor data exist."""
    script = """
import json, resource
from pathlib import Path
from bench.cell import expand
from bench.estimate.estimator import Estimator
from bench.spec.load import read_spec
cell = expand(read_spec(Path("specs/table1.yaml")).resolve("paper"))[-1]
found = Estimator().estimate(cell)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("RESULT", json.dumps([found.params.total, found.memory.train.allocated_peak_bytes, peak, found.refused]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    total, allocated, host, refused = json.loads(done.stdout.partition("RESULT")[2])
    assert refused == []
    assert total > 361_478_972
    assert allocated > 20 * 2**30
    assert host < 3 * 10**9
