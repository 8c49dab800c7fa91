"""Given the CPU's rules and real tensors, what acts out CUDA's autocast cannot be told from PyTorch's own autocast for
the CPU: the same operators in the same order with the same results, the same tensors saved for the backward pass, the
same allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from bench.estimate.autocast import CPU, autocast_on_meta
from bench.spec.cell import Cell
from bench.training.adapt import adapt
from tests import factories
from tests.estimate.conftest import Trace
from tests.worker.conftest import CELL, merged

Loss = Callable[[nn.Module], torch.Tensor]
Case = Callable[[], tuple[nn.Module, Loss]]

PIXELS, LABELS = torch.rand(2, 3, 32, 32), torch.tensor([1, 2])
IDS = torch.randint(5, 90, (2, 9))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS).index_fill_(1, torch.tensor([7, 8]), 0)}
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(kw_only=True)
class Seen:
    """All that two training steps leave behind."""

    operators: list[tuple[str, ...]] = field(default_factory=list)
    saved: list[tuple[torch.Size, torch.dtype]] = field(default_factory=list)
    allocations: list[list[int]] = field(default_factory=list)
    results: list[torch.Tensor] = field(default_factory=list)


def run(case: Case, *, ours: bool, dtype: torch.dtype) -> Seen:
    torch.manual_seed(0)
    model, loss = case()
    model.train()
    seen = Seen()

    def save(tensor: torch.Tensor) -> torch.Tensor:
        seen.saved.append((tensor.shape, tensor.dtype))
        return tensor

    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        autocast_on_meta(CPU) if ours else nullcontext(),
        torch.profiler.profile(profile_memory=True, activities=activities) as profile,
        Trace() as trace,
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        for _ in range(2):
            with torch.autocast("cpu", dtype=dtype):
                value = loss(model)
            value.backward()  # type: ignore[no-untyped-call]
    seen.operators = trace.log
    seen.allocations = list(allocations(profile))
    seen.results = [value.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return seen


def allocations(profile: torch.profiler.profile) -> Iterator[list[int]]:
    """Bytes allocated, and freed (negative), in order; what is freed at once is sorted: a cache has no order."""
    results: Any = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    for freed, group in groupby(sizes, key=lambda size: size < 0):
        sizes_of_run = list(group)
        yield sorted(sizes_of_run) if freed else sizes_of_run


def vit(attention: str = "sdpa", **checkpointing: bool) -> tuple[nn.Module, Loss]:
    from transformers import ViTConfig, ViTForImageClassification

    others: dict[str, Any] = {"num_labels": 5, "attn_implementation": attention}
    config = ViTConfig(**SMALL, image_size=32, patch_size=8, **others)
    model = ViTForImageClassification(config)
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing)  # type: ignore[no-untyped-call]
    pixels = PIXELS.clone().requires_grad_(bool(checkpointing))
    return model, lambda module: module(pixel_values=pixels, labels=LABELS).loss


def frozen_vit() -> tuple[nn.Module, Loss]:
    model, loss = vit()
    model.vit.requires_grad_(False)
    return model, loss


def bert(attention: str) -> tuple[nn.Module, Loss]:
    from transformers import BertConfig, BertForSequenceClassification

    others: dict[str, Any] = {"num_labels": 5, "attn_implementation": attention}
    config = BertConfig(**SMALL, vocab_size=99, **others)
    return BertForSequenceClassification(config), lambda module: module(**TEXT, labels=LABELS).loss


def t5() -> tuple[nn.Module, Loss]:
    from transformers import T5Config, T5ForConditionalGeneration

    ends: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0}
    config = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, **ends)
    return T5ForConditionalGeneration(config), lambda module: module(**TEXT, labels=IDS).loss


def gpt2() -> tuple[nn.Module, Loss]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config), lambda module: module(**TEXT, labels=IDS).loss


def timm_vit() -> tuple[nn.Module, Loss]:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5)
    return model, lambda module: F.cross_entropy(module(PIXELS), LABELS)


def miss(**changes: Any) -> tuple[nn.Module, Loss]:
    cell = Cell.model_validate(merged(CELL, changes))
    plugin = factories.plugin("models", cell.model.family)
    model = plugin.build(cell.model, texts=["a red circle"], device="cpu")
    adapt(model, plugin.PARTS, cell.parts, cell.methods)
    shapes = model.meta_inputs(3, model.max_lengths(), with_answers=True)
    batch = {
        name: torch.rand(like.shape) if like.is_floating_point() else torch.ones(like.shape, dtype=torch.long)
        for name, like in shapes.items()
    }
    return model.module, lambda _: model.loss(batch)


class Convolutions(nn.Module):
    """Types that meet: convolution and PReLU in the lower type, batch norm in either, a joined tensor in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.up, self.bend, self.groups = nn.ConvTranspose2d(8, 4, 2, 2), nn.PReLU(), nn.GroupNorm(2, 4)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.groups(self.bend(self.up(F.relu(self.norm(self.first(x))))))
        x = F.interpolate(torch.cat([x.bfloat16(), x.float()], 1), scale_factor=2.0, mode="bilinear")
        out: torch.Tensor = self.last(F.pad(x, (1, 1, 1, 1), mode="reflect").mean((2, 3)))
        return out


class Corners(nn.Module):
    """One weight used in every way: first without gradients, nested, disabled, in lists, in losses."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, dropout=0.1)
        self.weight = nn.Parameter(torch.randn(16, 16) * 0.1)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            fixed = x @ self.layer.linear1.weight.T @ self.layer.linear2.weight.T
        x = self.layer(self.attention(x, x, x)[0])
        x = torch.einsum("bse,ef->bsf", x, self.weight).matmul(self.weight.T)
        with torch.autocast("cpu", enabled=False):
            x = x.float() @ self.weight
        with torch.autocast("cpu", dtype=torch.float16):
            x = x @ self.weight.t()
        x = torch.stack([x.float().softmax(-1).pow(2) + fixed.float(), x.float()]).prod(0)
        x = self.recurrent(torch.addmm(self.weight, self.weight, self.weight).sum() * 1e-3 + x)[0]
        return torch.baddbmm(x, x.double().float(), self.weight.expand(2, 16, 16)).mean(1)


def corners() -> tuple[nn.Module, Loss]:
    x, y = torch.randn(2, 7, 16), torch.ones(2, 16)

    def loss(module: nn.Module) -> torch.Tensor:
        out = module(x)
        return F.cross_entropy(out, LABELS) + F.mse_loss(out, y) + F.binary_cross_entropy_with_logits(out, y)

    return Corners(), loss


CASES: dict[str, Case] = {
    "vit": vit,
    "vit, eager attention": lambda: vit("eager"),
    "vit, head only": frozen_vit,
    "vit, checkpointing": lambda: vit(use_reentrant=False),
    "vit, reentrant checkpointing": lambda: vit(use_reentrant=True),
    "bert": lambda: bert("sdpa"),
    "bert, eager attention": lambda: bert("eager"),
    "t5": t5,
    "gpt2": gpt2,
    "timm vit": timm_vit,
    "miss": lambda: miss(parts=dict.fromkeys(("vit", "jtm", "dec"), "T")),
    "miss, lora": miss,
    "miss, ia3": lambda: miss(parts={"vit": "IA3", "jtm": "IA3", "dec": "F"}, methods={"IA3": {"type": "ia3"}}),
    "convolutions": lambda: (Convolutions(), lambda module: F.cross_entropy(module(PIXELS), LABELS)),
    "corners": corners,
}


@pytest.mark.parametrize("case", CASES)
def test_training_cannot_be_told_from_pytorchs_autocast(case: str) -> None:
    theirs, ours = (run(CASES[case], ours=ours, dtype=torch.bfloat16) for ours in (False, True))
    assert ours.operators == theirs.operators
    assert any("_to_copy" in operator[0] for operator in theirs.operators)
    assert ours.saved == theirs.saved
    assert ours.allocations == theirs.allocations
    torch.testing.assert_close(ours.results, theirs.results, rtol=0, atol=0)


def test_fp16_cannot_be_told_either() -> None:
    theirs, ours = (run(vit, ours=ours, dtype=torch.float16) for ours in (False, True))
    assert ours.operators == theirs.operators
    assert ours.allocations == theirs.allocations


def test_generation_cannot_be_told_either() -> None:
    model = gpt2()[0].eval()
    traces = []
    for ours in (False, True):
        with (
            autocast_on_meta(CPU) if ours else nullcontext(),
            torch.autocast("cpu", dtype=torch.bfloat16),
            Trace() as trace,
        ):
            model.generate(**TEXT, max_new_tokens=3, num_beams=2, do_sample=False)  # type: ignore[operator]
        traces.append(trace.log)
    assert traces[0] == traces[1]
    assert sum("torch.bfloat16" in text for operator in traces[1] for text in operator) > 100


def test_meta_tensors_take_the_path_of_real_ones() -> None:
    """The same steps on meta with the CPU's rules: the operators that autocast adds are those of a real run."""

    def forward(device: str) -> list[tuple[str, ...]]:
        model, pixels = Convolutions().to(device), PIXELS.to(device)
        with Trace() as trace, torch.autocast(device, dtype=torch.bfloat16):
            model(pixels)
        return [operator for operator in trace.log if "_to_copy" in operator[0]]

    real = forward("cpu")
    with autocast_on_meta(CPU):
        assert forward("meta") == real
