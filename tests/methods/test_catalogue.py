"""The catalogue lists every method with what it needs and where it applies, from the plugins and the library itself."""

from __future__ import annotations

from bench import registry
from bench.methods.common import library
from bench.methods.common.catalogue import catalogue

ENTRIES = {entry.name: entry for entry in catalogue()}


def test_every_plugin_and_every_type_is_listed_once() -> None:
    assert list(ENTRIES) == [*registry.names("methods"), *library.types()]


def test_an_entry_says_what_a_method_needs_and_where_it_applies() -> None:
    vera = ENTRIES["VERA"]
    assert (vera.key, vera.kind, vera.applies_to) == ("peft_type", "adapter", "Linear layers")
    assert vera.fields["r"] == 256
    assert "Vector-based Random Matrix Adaptation" in vera.summary
    assert ENTRIES["PROMPT_TUNING"].applies_to == "text models (parts with a task type)"
    assert {ENTRIES[name].kind for name in ("prefix", "ptuning_v2")} == {"prompt"}
    assert {ENTRIES[name].kind for name in ("lora", "ia3")} == {"adapter"}
    assert "Conv2d" in ENTRIES["LORA"].applies_to
    blocks = ENTRIES["last_blocks"]
    assert (blocks.key, blocks.kind, blocks.needs, blocks.applies_to) == ("type", "selective", ("k",), "any part")
    assert all(entry.summary for entry in ENTRIES.values() if entry.key == "type")
