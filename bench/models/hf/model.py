"""What all transformers models share, whatever their task; see ``bench.plugins.contracts.BenchModel``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bench.errors import BenchError, SpecError
from bench.models.common import parts
from bench.models.common.parts import Parts
from bench.models.hf.architectures import task_type
from bench.models.hf.part_paths import default_parts
from bench.models.hf.prompts import PREFIXES, number_positions
from bench.plugins.contracts import PartFacts

if TYPE_CHECKING:
    from bench.models.hf.builder import Built

Batch = dict[str, Tensor]


class _Facts(dict[str, PartFacts]):
    """Says which parts there are when it is asked for another."""

    def __missing__(self, part: str) -> PartFacts:
        raise SpecError(f"the model has no part {part!r}, only {', '.join(self)}: take it out of `parts`")


class HfModel(Parts):
    """A transformers model and its parts."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self.base: Any = built.module
        """The transformers model itself, whatever adapters are on it."""
        self.settings = built.settings
        self.has_vocabulary = built.has_vocabulary
        paths = _paths(built)
        whole = [part for part, found in paths.items() if found == ("",) and part in (built.settings.parts or {})]
        super().__init__(built.module, paths, in_place=whole)
        outer = task_type(built.kind, built.module.config.model_type)
        self.part_facts: Mapping[str, PartFacts] = _Facts(
            {
                part: PartFacts(
                    name=part,
                    task_type=outer if part in whole else None,
                    targets=self._targets(part, whole=part in whole),
                    optional=built.settings.parts is None,
                    architecture=parts.architecture(built.module, paths[part]),
                    model_task_type=outer,
                )
                for part in paths
            }
        )
        if built.decoder_only:
            number_positions(self.base)

    def part(self, name: str) -> nn.Module:
        """The part, adapted or not. Raises SpecError, with the parts that there are, if the model lacks it."""
        return super().part(self.part_facts[name].name)

    def _targets(self, part: str, *, whole: bool) -> dict[str, list[str]]:
        return parts.default_targets(super().part(part), _without_head(self.base) if whole else None)

    def checkpoint_activations(self) -> None:
        """In every block that the library can. Raises BenchError where it cannot, and under a prefix, which it would
        drop."""
        for own in self.module.modules():
            config = getattr(own, "active_peft_config", None) if hasattr(own, "prompt_encoder") else None
            if config is not None and config.peft_type in PREFIXES:
                raise BenchError(
                    f"gradient checkpointing drops the keys and values of {config.peft_type.value}: "
                    "set train.gradient_checkpointing: false, or choose another method"
                )
        enable = getattr(self.base, "activation_checkpointing_enable", self.base.gradient_checkpointing_enable)
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise BenchError(f"{error} Set train.gradient_checkpointing: false") from error
        # The library lets embeddings need gradients, for reentrant checkpoints; these do not want it, and the frozen
        # blocks in front of the first adapter would be run backward for nothing.
        if getattr(self.base, "_require_grads_hooks", None) or getattr(self.base, "_require_grads_hook", None):
            self.base.disable_input_require_grads()

    def save(self, folder: Path) -> None:
        """Weights and configuration; a task adds what reads its inputs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.base.save_pretrained(folder)

    def facts(self) -> dict[str, int | str]:
        """Architecture and attention; rows of the word embedding, which may depend on the texts."""
        config = self.base.config
        found: dict[str, int | str] = {"architecture": type(self.base).__name__}
        if attention := getattr(config, "_attn_implementation", None):
            found["attention"] = str(attention)
        rows = getattr(config.get_text_config(), "vocab_size", None)
        return found | ({"vocab_size": rows} if isinstance(rows, int) else {})


def _paths(built: Built) -> parts.Paths:
    if built.settings.parts is None:
        return default_parts(built.module, decoder_only=built.decoder_only)
    return parts.matched(built.module, built.settings.parts)


def _without_head(module: Any) -> Collection[nn.Module]:
    """What an adapter on the whole model leaves out: layers that write labels or tokens, as in QLoRA."""
    modules = dict(module.named_modules())
    head = [modules[path] for path in default_parts(module, decoder_only=False).get("head", ()) if path in modules]
    output = [own for own in (module.get_output_embeddings(),) if own is not None]
    left = {id(own) for top in (*head, *output) for own in top.modules()}
    return {own for own in modules.values() if id(own) not in left}
