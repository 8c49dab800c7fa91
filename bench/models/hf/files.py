"""Folder, configuration, files and digest of a transformers model. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import SpecError, WeightsError
from bench.files import what_is
from bench.models.common.files import (
    CONFIG,
    cached_folder,
    digest_of,
    hub_folder,
    read_json,
    refuse_quantised_config,
)
from bench.models.hf.settings import Settings, read_config
from bench.registry import did_you_mean

# Patterns of weight files, the preferred format first: one file, shards, and the index of the shards.
_WEIGHTS = (
    ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"),
)
# Downloaded files of configuration, tokenizer and processor.
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.codes", "*.tokenizer", "*.tiktoken", "*.bpe")
# Files of a folder that no model is built from, such as other formats of its weights.
_NOT_READ = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf", "*.npz"),
    *("*.index.json", "training_args*", "trainer_state.json", "optimizer*", "scheduler*", "rng_state*", "events.out.*"),
    *("README*", "LICENSE*", "*.md", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.log", "*.py", ".*"),
)


def digest(settings: Settings) -> str | None:
    """SHA-256 (hex) over all files that the model is built from; null without files. Raises WeightsError."""
    files: list[Path] = []
    if (folder := model_folder(settings)) is not None:
        tensors, index = ([], []) if settings.random_weights else _weight_files(folder)
        files = [*tensors, *index, *_files_beside(folder)]
    if settings.tokenizer is not None:
        files += _files_beside(tokenizer_folder(settings.tokenizer))
    return digest_of(files) if files else None


def model_folder(settings: Settings) -> Path | None:
    """Folder of weights, configuration and tokenizer, downloaded if need be; null for a configuration in the spec.

    Raises WeightsError if it is missing or incomplete.
    """
    if settings.path is not None:
        return _checked_folder(settings.path)
    if settings.id is None:
        return None
    return _repository(settings.id, settings.revision, weights=not settings.random_weights)


def local_folder(settings: Settings) -> Path | None:
    """``model_folder`` if it is on this machine, perhaps without weights; downloads nothing."""
    if settings.path is not None:
        return settings.path if settings.path.is_dir() else None
    return None if settings.id is None else cached_folder(settings.id, settings.revision)


def tokenizer_folder(name: str) -> Path:
    """Folder of a tokenizer's id or path. Raises WeightsError if it is missing."""
    if not is_path(name):
        return _repository(name, None, weights=False)
    if not Path(name).is_dir():
        raise WeightsError(f"no folder {name}: set model.tokenizer to the folder or Hub id of a tokenizer")
    return Path(name)


def is_path(name: str) -> bool:
    """Whether a name is a folder, or cannot be a Hub id."""
    return Path(name).is_dir() or name.count("/") > 1 or name.startswith((".", "~"))


def model_config(settings: Settings, *, download: bool = True) -> dict[str, Any] | None:
    """The model's configuration as JSON; null if it is neither on this machine nor to be downloaded.

    Raises SpecError, WeightsError.
    """
    if settings.config is not None:
        refuse_quantised_config(settings.config, "model.config", SpecError)
        return dict(settings.config)
    folder = local_folder(settings)
    if folder is None or not (folder / CONFIG).is_file():
        if not download:
            return None
        if settings.path is not None:
            folder = _checked_folder(settings.path)
        else:
            assert settings.id is not None
            folder = _repository(settings.id, settings.revision, weights=False)
    return read_config(folder / CONFIG)


def weights_in(folder: Path) -> list[Path]:
    """Weight files that the library would load, sorted. Raises WeightsError if one is missing."""
    return _weight_files(folder)[0]


def _weight_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of tensors, and the index of shards if there is one."""
    for whole, shards, index in _named_weights(folder) or _WEIGHTS:
        if (folder / whole).is_file():
            return [folder / whole], []
        if (folder / index).is_file():
            names = _shards(folder / index)
            if missing := sorted(name for name in names if not (folder / name).is_file()):
                raise WeightsError(f"{folder} lacks {', '.join(missing[:5])}, which {index} names: copy it there, too")
            return [folder / name for name in sorted(names)], [folder / index]
        if present := sorted(folder.glob(shards)) if shards else []:
            raise WeightsError(f"{folder} has {present[0].name}, but no {index}: copy it there, too")
    raise WeightsError(
        f"no weights in {folder}: expected model.safetensors or pytorch_model.bin as save_pretrained writes them; "
        "for the shapes alone set model.random_weights: true"
    )


def _named_weights(folder: Path) -> Sequence[tuple[str, str, str]]:
    """Patterns of the files that ``transformers_weights`` of the configuration names in place of ``_WEIGHTS``."""
    config = read_json(folder / CONFIG)
    name = config.get("transformers_weights") if isinstance(config, dict) else None
    if not isinstance(name, str):
        return ()
    return (("", "", name),) if name.endswith(".index.json") else ((name, "", ""),)


def _shards(index: Path) -> set[str]:
    try:
        return {str(name) for name in read_json(index)["weight_map"].values()}
    except (KeyError, TypeError, AttributeError):
        reason = "no list of shards (a JSON object whose weight_map has a file for each tensor)"
        raise WeightsError(f"{index} is {what_is(index)}, {reason}: get it once more") from None


def _files_beside(folder: Path) -> list[Path]:
    """Files beside the weights that the library may read: all except ``_NOT_READ``."""

    def is_read(path: Path) -> bool:
        return not any(path.match(pattern) for pattern in _NOT_READ)

    files = sorted(path for path in folder.iterdir() if is_read(path) and path.is_file())
    files += sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if (folder / "adapter_config.json").is_file():  # the library then puts this adapter on the model
        files += sorted(path for path in folder.glob("adapter_model.*") if not is_read(path))
    return files


def _repository(name: str, revision: str | None, *, weights: bool) -> Path:
    def is_complete(folder: Path) -> bool:
        try:
            return not weights or bool(weights_in(folder))
        except WeightsError:
            return False

    return hub_folder(
        name,
        revision,
        formats=_WEIGHTS if weights else ((),),
        beside=_BESIDE,
        is_complete=is_complete,
        remedy="set model.path: FOLDER; for the costs alone write its configuration to model.config",
    )


def _checked_folder(path: Path) -> Path:
    if not path.is_dir():
        siblings = sorted(each.name for each in path.parent.glob("*") if each.is_dir())
        hint = did_you_mean(path.name, siblings) if siblings else ""
        raise WeightsError(f"no model folder {path}{hint}; set model.path to one that save_pretrained wrote")
    if not (path / CONFIG).is_file():
        raise WeightsError(f"no {CONFIG} in {path}: expected beside the weights, as save_pretrained writes it")
    return path
