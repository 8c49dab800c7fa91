"""Size of the file of what is stored per task, without writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from safetensors.torch import _TYPES

_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def safetensors_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of a safetensors file of these tensors: length of the header, header padded to 8 bytes, data.

    Follows https://github.com/huggingface/safetensors (format): widest types first, then by name.
    """
    header, at = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + at
