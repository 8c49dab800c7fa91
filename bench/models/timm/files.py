"""Where weights of timm models lie, and their digest. No torch in here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files
from bench.errors import WeightsError
from bench.models.common.files import refuse_quantised_config, refuse_quantised_tensors, sha256

if TYPE_CHECKING:
    from bench.models import timm

TENSORS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"


def digest(weights: timm.Weights) -> str:
    """SHA-256 (hex) over the file of tensors and the ``config.json`` beside it, which says how images are prepared."""
    path = tensors(weights)
    total = hashlib.sha256(f"{path.suffix}\0{sha256(path)}\n".encode())
    if weights.kind != "file":
        total.update(f"{CONFIG}\0{sha256(path.parent / CONFIG)}\n".encode())
    return total.hexdigest()


def tensors(weights: timm.Weights) -> Path:
    """The file of tensors. Raises WeightsError if it is not there, or of quantised weights."""
    found = _file(weights)
    refuse_quantised_tensors([found])
    return found


def _file(weights: timm.Weights) -> Path:
    if weights.kind == "hub":
        return _from_hub(weights)
    if weights.kind == "file":
        if not weights.path.is_file():
            raise WeightsError(f"no weights at {weights.path}: give the file, or weights: null for random ones")
        return weights.path
    for name in TENSORS:
        if (weights.path / name).is_file():
            return weights.path / name
    raise WeightsError(
        f"no {' or '.join(TENSORS)} in {weights.path}: give a folder that train.save_model or timm wrote, or weights: "
        "null for random ones"
    )


def config(weights: timm.Weights) -> dict[str, Any]:
    """What ``config.json`` beside the tensors says of them (architecture, number of classes, preprocessing), flat;
    empty for a single file.
    """
    if weights.kind == "file":
        return {}
    path = tensors(weights).parent / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(f"no {CONFIG} in {path.parent}: timm writes it beside the tensors") from None
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    refuse_quantised_config(content, path)
    # The outer fields count: before 1.0.31 timm left the number of classes of the first training among the inner ones.
    return {**content.get("pretrained_cfg", {}), **content}


def _from_hub(weights: timm.HubWeights) -> Path:
    """The tensors, with ``config.json`` beside them: the local cache's copy as it is, else a download."""
    from huggingface_hub import hf_hub_download

    failed: Exception | None = None
    for offline in (True, False):
        if not offline:
            files.refuse_if_limited("a download")
        for name in TENSORS:
            try:
                paths = [
                    Path(hf_hub_download(weights.id, wanted, revision=weights.revision, local_files_only=offline))
                    for wanted in (CONFIG, name)
                ]
                return paths[1]
            except Exception as error:  # the client raises errors of several libraries; all mean the same to the user
                failed = error
    raise WeightsError(
        f"cannot get {weights.id} (revision {weights.revision or 'default'}) from the Hub, and the local cache has no "
        f"copy. Download it elsewhere and use weights: {{kind: folder, path: ...}}. {failed}"
    ) from failed
