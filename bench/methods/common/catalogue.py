"""Every method that a spec can name, for ``--methods``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bench import registry
from bench.errors import SpecError
from bench.methods.common import library
from bench.plugins.contracts import MethodPlugin, PartFacts
from bench.plugins.settings import MethodSettings

Kind = Literal["adapter", "prompt", "selective"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A method that a spec can name."""

    key: Literal["type", "peft_type"]
    """The field that names it."""
    name: str
    kind: Kind
    """``adapter``: puts tensors beside layers; ``prompt``: virtual tokens in front of a text; ``selective``: trains
    some of the model's own tensors."""
    summary: str
    layers: tuple[str, ...]
    """Kinds of layers an adapter of the library can be put on; empty where that is not what decides."""
    needs: tuple[str, ...]
    """Fields without a default."""
    fields: dict[str, Any]
    """Field -> default, of those that have one."""

    @property
    def applies_to(self) -> str:
        """Which parts of a model it can be put on, in a few words."""
        if self.kind == "prompt":
            return "text models (parts with a task type)"
        return ", ".join(self.layers) + " layers" if self.layers else "any part"


def catalogue() -> list[Entry]:
    """Every method: those with a file here, then every type of the installed peft. Imports no torch."""
    return [*(_own(name) for name in registry.names("methods")), *_of_the_library()]


def _own(name: str) -> Entry:
    plugin = registry.load("methods", name)
    fields = {key: own for key, own in plugin.Settings.model_fields.items() if key not in MethodSettings.model_fields}
    return Entry(
        key="type",
        name=name,
        kind="selective" if hasattr(plugin, "select") else "prompt" if _needs_text(plugin, name) else "adapter",
        summary=" ".join((plugin.__doc__ or "").split("\n\n")[0].split()),
        layers=(),
        needs=tuple(key for key, own in fields.items() if own.is_required()),
        fields={key: own.get_default() for key, own in fields.items() if not own.is_required()},
    )


def _needs_text(plugin: MethodPlugin, name: str) -> bool:
    """Whether the plugin's own check refuses a part for no other reason than that it takes no virtual tokens."""
    settings = plugin.Settings.model_construct(type=name)
    refused = []
    for task_type in (None, "CAUSAL_LM"):
        try:
            plugin.check(settings, PartFacts(name="part", task_type=task_type, targets={name: ["layer"]}))
            refused.append(False)
        except SpecError:
            refused.append(True)
    return refused == [True, False]


def _of_the_library() -> list[Entry]:
    entries = []
    for name in library.types():
        method = library.method(name)
        own = method.own_fields
        entries.append(
            Entry(
                key="peft_type",
                name=name,
                kind="prompt" if method.takes_prompts else "adapter",
                summary=method.summary,
                layers=method.layers,
                needs=tuple(key for key, field in own.items() if field.default is library.REQUIRED),
                fields={key: field.default for key, field in own.items() if field.default is not library.REQUIRED},
            )
        )
    return entries
