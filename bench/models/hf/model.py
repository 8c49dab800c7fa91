"""Parts, checkpointing and saving of all transformers models; see ``bench.plugins.contracts.BenchModel``."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, SpecError
from bench.models.common.parts import PartitionedModel, architecture, default_targets, match_parts
from bench.models.hf import architectures
from bench.models.hf.default_parts import default_parts
from bench.models.hf.settings import Settings
from bench.models.hf.tokens import HfTokens
from bench.plugins.contracts import PartFacts, TaskFacts

Batch = dict[str, Tensor]
# Methods of peft that put keys and values in front of every layer, as a cache.
_PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A built model of the library, with tokenizer and labels."""

    settings: Settings
    task: TaskFacts
    kind: str
    """The library's list of classes with this model."""
    module: Any
    tokens: HfTokens | None
    """Null for a task without text."""
    folder: Path | None
    """Folder of weights or tokenizer on this machine, which may have a processor."""
    has_vocabulary: bool
    label_order: tuple[int, ...] | None
    """Row of each label in the head; null: the order of the labels."""

    @property
    def decoder_only(self) -> bool:
        """See ``architectures.decoder_only``."""
        config = self.module.config
        return architectures.decoder_only(self.kind, config.model_type, config.is_encoder_decoder)


class _Facts(dict[str, PartFacts]):
    """Part -> facts; lists the parts in the error for another."""

    def __missing__(self, part: str) -> PartFacts:
        raise SpecError(f"the model has no part {part!r}, only {', '.join(self)}: take it out of `parts`")


class HfModel(PartitionedModel):
    """A transformers model and its parts."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self.base: Any = built.module
        """The transformers model inside the wrappers of adapters."""
        self.settings = built.settings
        self.has_vocabulary = built.has_vocabulary
        declared = built.settings.parts
        if declared is None:
            paths = default_parts(built.module, decoder_only=built.decoder_only)
        else:
            paths = match_parts(built.module, declared)
        whole = [part for part, held in paths.items() if held == ("",) and part in (declared or {})]
        super().__init__(built.module, paths, in_place=whole)
        task_type = architectures.task_type(built.kind, built.module.config.model_type)
        self.part_facts: Mapping[str, PartFacts] = _Facts(
            {
                part: PartFacts(
                    name=part,
                    task_type=task_type if part in whole else None,
                    targets=default_targets(
                        PartitionedModel.part(self, part), _without_head(self.base) if part in whole else None
                    ),
                    optional=declared is None,
                    architecture=architecture(built.module, paths[part]),
                    model_task_type=task_type,
                )
                for part in paths
            }
        )
        # Most models number positions in generation only, and peft drops these numbers: without the hook an answer
        # depends on the padding that the other texts of its batch bring.
        if built.decoder_only and "position_ids" in inspect.signature(self.base.forward).parameters:
            self.base.register_forward_pre_hook(_number_positions, with_kwargs=True)

    def part(self, name: str) -> nn.Module:
        """The part, adapted or not. Raises SpecError, with the model's parts, if it has no such part."""
        return super().part(self.part_facts[name].name)

    def in_label_order(self, logits: Tensor) -> Tensor:
        """Columns of a head's logits in the order of the task's labels."""
        order = self.built.label_order
        return logits if order is None else logits[:, list(order)]

    def checkpoint_activations(self) -> None:
        """Checkpoint every block. Raises BenchError where the library cannot, and under a prefix."""
        for inner in self.module.modules():
            config = getattr(inner, "active_peft_config", None) if hasattr(inner, "prompt_encoder") else None
            if config is not None and config.peft_type in _PREFIXES:
                raise BenchError(
                    f"gradient checkpointing drops the keys and values of {config.peft_type.value}: "
                    "set train.gradient_checkpointing: false, or choose another method"
                )
        enable = getattr(self.base, "activation_checkpointing_enable", self.base.gradient_checkpointing_enable)
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise BenchError(f"{error} Set train.gradient_checkpointing: false") from error
        # The library makes embeddings need gradients, as reentrant checkpoints require. These are not reentrant, and
        # frozen blocks in front of the first adapter would run backward for nothing.
        if getattr(self.base, "_require_grads_hooks", None) or getattr(self.base, "_require_grads_hook", None):
            self.base.disable_input_require_grads()

    def save(self, folder: Path) -> None:
        """Write weights and configuration; subclasses add tokenizer or processor."""
        folder.mkdir(parents=True, exist_ok=True)
        self.base.save_pretrained(folder)

    def facts(self) -> dict[str, int | str]:
        """Architecture, attention and rows of the word embedding."""
        config = self.base.config
        facts: dict[str, int | str] = {"architecture": type(self.base).__name__}
        if attention := getattr(config, "_attn_implementation", None):
            facts["attention"] = str(attention)
        rows = getattr(config.get_text_config(), "vocab_size", None)
        return facts | ({"vocab_size": rows} if isinstance(rows, int) else {})


def _without_head(module: Any) -> Collection[nn.Module]:
    """Modules for an adapter on the whole model: all except those that write labels or tokens, as in QLoRA."""
    modules = dict(module.named_modules())
    head = [modules[path] for path in default_parts(module, decoder_only=False).get("head", ()) if path in modules]
    output = module.get_output_embeddings()
    left_out = {inner for top in (*head, output) if top is not None for inner in top.modules()}
    return set(modules.values()) - left_out


def _number_positions(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Number positions from the first token that is not padding, virtual tokens included."""
    mask, given = kwargs.get("attention_mask"), kwargs.get("input_ids")
    given = kwargs.get("inputs_embeds") if given is None else given
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and given is not None:
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        kwargs = kwargs | {"position_ids": positions[:, -given.shape[1] :]}
    return args, kwargs
