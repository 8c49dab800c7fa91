"""Files that a model is built from: digest, download from the Hub, refusal of quantised weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError, WeightsError
from bench.files import MissingFilesError, refuse_if_limited, sha256_of
from bench.models.common.settings import HubWeights
from bench.registry import did_you_mean

CONFIG = "config.json"
_TENSORS = ("model.safetensors", "pytorch_model.bin")
_QUANTISED_FIELDS = ("quantization_config", "compression_config")
# Prefixes of the safetensors dtypes of eight bits or fewer.
_QUANTISED_DTYPES = ("I8", "U8", "F8", "F4", "F6", "I4", "U4")
_MAX_HEADER_BYTES = 100 << 20
_REMEDY = "quantised weights are not supported; give the unquantised model"


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over names and contents of files, in the given order. Raises WeightsError."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content. Raises WeightsError if it cannot be read."""
    try:
        return sha256_of(path)
    except MissingFilesError:
        raise WeightsError(f"{path}: missing or unreadable; check the file and its permissions") from None


def read_json(path: Path) -> Any:
    """Content of a JSON file; null if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def cached_folder(repository: str, revision: str | None) -> Path | None:
    """Folder of the local cache with a Hub repository's ``config.json``; null if there is none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, CONFIG, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def tensors_in(folder: Path) -> Path:
    """The file of tensors in a folder, safetensors preferred. Raises WeightsError if there is none."""
    for name in _TENSORS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"no weights in {folder}: expected {' or '.join(_TENSORS)}, as train.save_model writes it, with {CONFIG}; "
        "or set weights: null for random ones"
    )


def hub_weights(weights: HubWeights, beside: Sequence[str]) -> Path:
    """Folder of a repository with one file of tensors, and files that match ``beside``; see ``hub_folder``."""
    return hub_folder(
        weights.id,
        weights.revision,
        formats=[(name,) for name in _TENSORS],
        beside=beside,
        is_complete=lambda folder: any((folder / name).is_file() for name in _TENSORS),
        remedy="set model.weights: {kind: folder, path: FOLDER}",
    )


def hub_folder(
    repository: str,
    revision: str | None,
    *,
    formats: Iterable[Sequence[str]],
    beside: Sequence[str],
    is_complete: Callable[[Path], bool],
    remedy: str,
) -> Path:
    """Folder of a Hub repository: a complete cached copy, else a download.

    ``formats``: file patterns of the weights per format, the preferred first; ``beside``: patterns of further files.
    Raises WeightsError with the download command, and UnreadError where downloads are not allowed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = cached_folder(repository, revision)
    if folder is not None and is_complete(folder):
        return folder
    problem: Exception | None = None
    for patterns in formats:
        refuse_if_limited("a download")
        try:
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[*beside, *patterns]))
        except Exception as error:  # the client raises errors of several libraries; all mean the same to the user
            problem = error
            break
        if is_complete(folder):
            return folder
    at = f" --revision {revision}" if revision else ""
    reason = f" {type(problem).__name__}: {str(problem).splitlines()[0]}" if problem and str(problem) else ""
    cached = [path.name.removeprefix("models--").replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*")]
    hint = did_you_mean(repository, sorted(cached)) if cached else ""
    raise WeightsError(
        f"cannot get {repository} (revision {revision or 'default'}) from the Hub, and the local cache has no complete "
        f"copy{hint}. Where there is a network: `hf download {repository}{at} --local-dir FOLDER`, then "
        f"{remedy}.{reason}"
    ) from problem


def quantisation_field(config: Mapping[str, Any]) -> str | None:
    """Dotted path and kind of a configuration's field for quantised weights; null if it has none."""
    for name, value in config.items():
        if name in _QUANTISED_FIELDS and value:
            kind = value.get("quant_method") or value.get("quant_type") if isinstance(value, Mapping) else None
            return f"{name} ({kind})" if kind else name
        if isinstance(value, Mapping) and (field := quantisation_field(value)) is not None:
            return f"{name}.{field}"
    return None


def refuse_quantised_config(config: object, source: object, error: type[BenchError] = WeightsError) -> None:
    """Raise ``error``, with source and field, if a configuration describes quantised weights."""
    if isinstance(config, Mapping) and (field := quantisation_field(config)) is not None:
        raise error(f"{source}: {field} says that the weights are quantised: {_REMEDY}, or remove the field")


def refuse_quantised_tensors(paths: Iterable[Path]) -> None:
    """Raise WeightsError, with file and tensor, for a safetensors weight of eight bits or fewer."""
    for path in paths:
        for name, entry in _safetensors_header(path).items():
            dtype = str(entry.get("dtype")) if isinstance(entry, dict) else ""
            # Masks are rightly stored in eight bits; their names end otherwise.
            if name.endswith("weight") and dtype.startswith(_QUANTISED_DTYPES):
                raise WeightsError(f"{path}: {name} is stored as {dtype}: {_REMEDY}")


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Tensor name -> entry; empty for anything else, which the reader of the weights refuses."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < _MAX_HEADER_BYTES:  # a damaged length would allocate terabytes
            return {}
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return {}
    return header if isinstance(header, dict) else {}
