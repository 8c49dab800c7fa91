"""Quantised weights are refused by name, whatever the family, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import BenchError, SpecError, WeightsError
from bench.models import hf, timm
from bench.models.common.files import quantisation_field, refuse_quantised_tensors
from tests.models.hf import models as tiny
from tests.models.hf.models import LABEL, LOOK, WRITE

GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4}}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (GPTQ, "quantization_config (gptq)"),
        ({"text_config": {"compression_config": {"format": "int-quantized"}}}, "text_config.compression_config"),
        ({"quantization_config": None}, None),
        ({"hidden_size": 8}, None),
    ],
)
def test_a_configuration_says_how_its_weights_are_stored(config: dict[str, Any], found: str | None) -> None:
    assert quantisation_field(config) == found


def test_a_configuration_in_the_spec_is_refused() -> None:
    settings = tiny.settings("bert")
    given = hf.Settings(family="hf", config={**(settings.config or {}), **GPTQ})
    with pytest.raises(SpecError, match=r"model\.config: quantization_config \(gptq\) says that the weights are"):
        hf.parts(given, LABEL)


def test_a_folder_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    hf.save(tiny.make("gpt2", WRITE), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | GPTQ))
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    settings = hf.Settings(family="hf", path=tmp_path)
    for call in (lambda: hf.parts(settings, WRITE), lambda: hf.build(settings, texts=[], device="cpu", task=WRITE)):
        with pytest.raises(SpecError, match=r"config\.json: quantization_config \(gptq\).*unquantised model"):
            call()
    with pytest.raises(ValueError, match="quantization_config"):
        hf.Settings(family="hf", config=str(path))


def test_weights_in_eight_bits_without_a_word_in_the_configuration(tmp_path: Path) -> None:
    hf.save(tiny.make("gpt2", WRITE), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("c_attn.weight"))
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"model\.safetensors: .*c_attn\.weight is stored as F8_E4M3"):
        hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=WRITE)


def test_timm_too(tmp_path: Path) -> None:
    given: dict[str, Any] = {"family": "timm", "architecture": "resnet18"}
    timm.save(timm.build(timm.Settings(**given), texts=[], device="cpu", task=LOOK), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | GPTQ))
    settings = timm.Settings(**given, weights={"kind": "folder", "path": tmp_path})
    with pytest.raises(BenchError, match=r"config\.json: quantization_config"):
        timm.build(settings, texts=[], device="cpu", task=LOOK)


def test_masks_and_other_files_are_left_alone(tmp_path: Path) -> None:
    save_file({"h.attn.bias": torch.ones(1, 4, 4, dtype=torch.uint8)}, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refuse_quantised_tensors([tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "none.safetensors"])
