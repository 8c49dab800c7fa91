"""Files that are no weights: every family names the file and what it is, and none a KeyError."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench import registry
from bench.errors import WeightsError
from bench.models.common import weights
from bench.models.ofa import weights as _ofa_weights
from bench.plugins.contracts import BenchModel

VIT = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
       "image_size": 32, "patch_size": 16}  # fmt: skip


def zipped(path: Path) -> None:
    torch.save({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200])


def written(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


class Touch:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("owned"),)


NOT_WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (written(b""), "is an empty file"),
    "text": (written(b"accuracy: 0.5\n"), "is a text that begins with 'accuracy: 0.5'"),
    "lfs": (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n"), "is a git-lfs pointer"),
    "page": (written(b"<!DOCTYPE html>\n<html><body>404</body></html>"), "is an HTML page"),
    "cut": (zipped, "cannot be loaded"),
    "code": (saved({"model": {"a": torch.zeros(2)}, "config": Touch()}), "loaded safely|cannot be loaded|Weights only"),
    "list": (saved([torch.zeros(2)]), "list|cannot be loaded"),
    "numbers": (saved({1: torch.zeros(2)}), "int|state_dict"),
    "texts": (saved({"a": "b"}), "state_dict|str|does not fit"),
}
HEADERS = {
    "long": struct.pack("<Q", 1 << 39) + b"{" + b"x" * 50,
    "no json": struct.pack("<Q", 20) + b"{" + b"x" * 50,
    "list": struct.pack("<Q", 20) + b"[" + b"x" * 50,
    "beyond": struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     ' + b"\0" * 4,
    "kind": struct.pack("<Q", 60) + b'{"a":{"dtype":"X99","shape":[1],"data_offsets":[0,4]}}      ' + b"\0" * 4,
}


def timm(path: Path) -> BenchModel:
    return built({"family": "timm", "architecture": "test_vit", "weights": {"kind": "file", "path": path}})


def hf(path: Path) -> BenchModel:
    (path.parent / "config.json").write_text(json.dumps(VIT))
    path.rename(path.with_name("model.safetensors" if path.suffix == ".safetensors" else "pytorch_model.bin"))
    return built({"family": "hf", "path": path.parent})


def built(settings: dict[str, Any]) -> BenchModel:
    plugin = registry.load("models", settings["family"])
    facts = dataclasses.replace(registry.load("tasks", "image_classification").FACTS, labels=("a", "b"))
    model: BenchModel = plugin.build(plugin.Settings.model_validate(settings), texts=[], device="cpu", task=facts)
    return model


def miss(path: Path) -> BenchModel:
    (path.parent / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\n")
    settings = {"family": "miss", "preset": "tiny", "weights": {"kind": "checkpoint", "path": path}}
    return built(settings)


def ofa(path: Path) -> None:
    _ofa_weights.load(torch.nn.Linear(1, 1), path)


READERS: list[Callable[[Path], object]] = [miss, ofa, timm, hf]


@pytest.mark.parametrize("read", READERS, ids=["miss", "ofa", "timm", "hf"])
@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_what_is_no_checkpoint_is_named_and_not_run(
    tmp_path: Path, read: Callable[[Path], object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    make, expected = NOT_WEIGHTS[name]
    make(path)
    with pytest.raises(WeightsError, match=expected) as caught:
        read(path)
    assert any(known in str(caught.value) for known in ("weights.pth", "pytorch_model.bin", str(tmp_path)))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("read", READERS, ids=["miss", "ofa", "timm", "hf"])
@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_wrong_header_of_safetensors_is_named(tmp_path: Path, read: Callable[[Path], object], content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"\.safetensors"):
        read(path)


def test_a_safetensors_file_of_another_name_says_how_to_name_it(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth is a safetensors file: rename it to end in \.safetensors"):
        weights.read(tmp_path / "weights.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"weights\.safetensors is a zip archive, no weights"):
        weights.read(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": ["a"]}', "version https://git-lfs.github.com"])
def test_a_list_of_shards_that_is_none_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VIT))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError, match=r"index\.json is .*, no list of shards"):
        built({"family": "hf", "path": tmp_path})
