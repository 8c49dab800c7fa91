"""What a method of peft adds to the loss, where its model never sees one.

AdaLoRA (Zhang et al. 2023, eq. 4) keeps its factors near orthogonal by a term that peft adds to the ``loss`` of what
its model returns. A part such as an image encoder returns none, so there the term is added to the loss of the whole
model.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


class OrthogonalRegularizer:
    """Of the adapters in a model; made once the model is adapted."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._adapters = [m for m in module.modules() if _weight(m)]
        self._counted: set[torch.nn.Module] = set()
        for adapter in self._adapters:
            adapter.register_forward_hook(self._look)

    def begin(self) -> None:
        """A forward pass begins."""
        self._counted.clear()

    def added_to(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss () with the terms that the library has not added in this forward pass; a new tensor if any."""
        for adapter in self._adapters:
            if adapter not in self._counted:
                loss = peft_penalty(adapter, loss.clone())
        return loss

    def _look(self, adapter: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(getattr(output, "loss", None), torch.Tensor):
            self._counted.add(adapter)


def _weight(module: torch.nn.Module) -> Any:
    adapter = vars(module).get("trainable_adapter_name")  # not getattr: peft's wrapper answers for the model in it
    known: Any = module
    return getattr(known.peft_config[adapter], "orth_reg_weight", 0.0) if adapter else 0.0


def peft_penalty(adapter: Any, loss: torch.Tensor) -> torch.Tensor:
    """Its own forward pass over a stand-in for the model, which returns this loss."""
    output: Any = SimpleNamespace(loss=loss)
    inner = SimpleNamespace(forward=lambda: output, named_parameters=adapter.model.named_parameters)
    type(adapter).forward(
        SimpleNamespace(
            model=inner, peft_config=adapter.peft_config, trainable_adapter_name=adapter.trainable_adapter_name
        )
    )
    found: torch.Tensor = output.loss
    return found
