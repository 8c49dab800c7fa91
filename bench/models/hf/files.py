"""Where a transformers model lies: its folder, its configuration, its files and their digest. No torch in here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError, WeightsError
from bench.files import what_is
from bench.models.common.files import CONFIG, cached_folder, digest_of, hub_folder, refuse_quantised_config
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from bench.models.hf import Settings

_WEIGHTS = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
)
"""Patterns of weight files, the preferred format first: whole, in shards, and the list of the shards."""
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.codes", "*.tokenizer", "*.tiktoken", "*.bpe")
"""Configuration, tokenizer and processor: what is downloaded."""
_NOT_READ = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf", "*.npz"),
    *("*.index.json", "training_args*", "trainer_state.json", "optimizer*", "scheduler*", "rng_state*", "events.out.*"),
    *("README*", "LICENSE*", "*.md", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.log", "*.py", ".*"),
)
"""What a folder may hold that no model is built from, other formats of its weights among it."""
_TEMPLATES = "additional_chat_templates"
_ADAPTER = "adapter_config.json"
"""With it the library puts the adapter beside it on the model."""


def digest(settings: Settings) -> str | None:
    """SHA-256 (hex) over the names and contents of every file that the model is built from; null if there is none."""
    files: list[Path] = []
    if (own := folder(settings)) is not None:
        tensors, index = ([], []) if settings.random_weights else _weights(own)
        files = [*tensors, *index, *_beside(own)]
    if settings.tokenizer is None:
        return digest_of(files) if files else None
    return digest_of([*files, *_beside(tokenizer_folder(settings.tokenizer))])


def tokenizer_folder(name: str) -> Path:
    """Of a tokenizer's id or folder. Raises WeightsError if it is not there."""
    if not names_a_folder(name):
        return snapshot(name, None, weights=False)
    if not Path(name).is_dir():
        raise WeightsError(f"no folder {name}: set model.tokenizer to the folder or Hub id of a tokenizer")
    return Path(name)


def names_a_folder(name: str) -> bool:
    """Whether it is a folder, or cannot be a Hub id."""
    return Path(name).is_dir() or name.count("/") > 1 or name.startswith((".", "~"))


def _beside(folder: Path) -> list[Path]:
    """Whatever may be read from a folder beside the weights: all but what is known not to be."""
    found = sorted(path for path in folder.iterdir() if not _unread(path) and path.is_file())
    found += sorted((folder / _TEMPLATES).glob("*.jinja"))
    if (folder / _ADAPTER).is_file():
        found += sorted(path for path in folder.glob("adapter_model.*") if _unread(path))
    return found


def weights_in(folder: Path) -> list[Path]:
    """The weight files that the library would load, sorted. Raises WeightsError if there are none, or shards are
    missing."""
    return _weights(folder)[0]


def _weights(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files of tensors, and the list of the shards, if they are shards."""
    for whole, shards, index in _named_weights(folder) or _WEIGHTS:
        if (folder / whole).is_file():
            return [folder / whole], []
        if (folder / index).is_file():
            names = _shards(folder / index)
            if lacking := sorted(name for name in names if not (folder / name).is_file()):
                raise WeightsError(f"{folder} lacks {', '.join(lacking[:5])}, which {index} names: copy it there, too")
            return [folder / name for name in sorted(names)], [folder / index]
        if found := sorted(folder.glob(shards)) if shards else []:
            raise WeightsError(f"{folder} has {found[0].name}, but no {index}: copy it there, too")
    raise WeightsError(
        f"no weights in {folder}: expected model.safetensors or pytorch_model.bin as save_pretrained writes them; "
        "for the shapes alone set model.random_weights: true"
    )


def _shards(index: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        told = "no list of shards (a JSON object whose weight_map has a file for each tensor)"
        raise WeightsError(f"{index} is {what_is(index)}, {told}: get it once more") from None


def _named_weights(folder: Path) -> Sequence[tuple[str, str, str]]:
    """What ``transformers_weights`` of the configuration says to load in place of the usual files."""
    try:
        named = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        return ()
    if not isinstance(named, str):
        return ()
    return (("", "", named),) if named.endswith(".index.json") else ((named, "", ""),)


def folder(settings: Settings) -> Path | None:
    """The folder with weights, configuration and tokenizer, downloaded if need be; None for an inline configuration.

    Raises WeightsError if they are not there.
    """
    if settings.path is not None:
        return _local(settings.path)
    if settings.id is None:
        return None
    return snapshot(settings.id, settings.revision, weights=not settings.random_weights)


def folder_here(settings: Settings) -> Path | None:
    """As ``folder``, but only what is on this machine: weights need not be there, and nothing is downloaded."""
    if settings.path is not None:
        return settings.path if settings.path.is_dir() else None
    return None if settings.id is None else cached_folder(settings.id, settings.revision)


def config(settings: Settings, *, download: bool = True) -> dict[str, Any] | None:
    """The model's configuration as JSON; None if it is not on this machine and must not be downloaded.

    Raises SpecError or WeightsError if there is none.
    """
    if settings.config is not None:
        refuse_quantised_config(settings.config, "model.config", SpecError)
        return dict(settings.config)
    found = folder_here(settings)
    if found is None or not (found / CONFIG).is_file():
        if not download:
            return None
        found = _local(settings.path) if settings.path is not None else _small_files(settings)
    return read_config(found / CONFIG)


def read_config(path: Path) -> dict[str, Any]:
    """A ``config.json``. Raises SpecError if it is none, or needs code of its own."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}; give a config.json, or the folder that has it as `path`") from None
    except ValueError as error:
        raise SpecError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise SpecError(f"{path} names no model_type: it is not the config.json of a transformers model")
    refuse_quantised_config(content, path, SpecError)
    return content


def snapshot(name: str, revision: str | None, *, weights: bool) -> Path:
    """The folder of a Hub repository. Raises WeightsError, with how to get it, if there is none."""
    return hub_folder(
        name,
        revision,
        formats=_WEIGHTS if weights else ((),),
        beside=_BESIDE,
        is_complete=lambda folder: not weights or _has_weights(folder),
        remedy="set model.path: FOLDER; for the costs alone write its configuration to model.config",
    )


def _local(path: Path) -> Path:
    if not path.is_dir():
        siblings = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, sorted(siblings)) if siblings else ""
        raise WeightsError(f"no model folder {path}{hint}; set model.path to one that save_pretrained wrote")
    if not (path / CONFIG).is_file():
        raise WeightsError(f"no {CONFIG} in {path}: expected beside the weights, as save_pretrained writes it")
    return path


def _small_files(settings: Settings) -> Path:
    assert settings.id is not None
    return snapshot(settings.id, settings.revision, weights=False)


def _has_weights(found: Path) -> bool:
    try:
        return bool(weights_in(found))
    except WeightsError:
        return False


def _unread(path: Path) -> bool:
    return any(path.match(pattern) for pattern in _NOT_READ)
