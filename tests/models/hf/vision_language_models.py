"""Tiny models that see and write, of random weights, in folders as the Hub has them: with a processor of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from bench.models.hf.tokens import build_word_tokenizer

QUESTIONS = ["what colour ?", "is it red ?", "what colour is it ?", "is it blue ?"]
ANSWERS = ["red", "yes", "blue", "yes"]
IMAGES = [Image.new("RGB", (40, 40), color) for color in ("red", "red", "blue", "blue")]
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_VISION = {k: v for k, v in _TEXT.items() if "token" not in k} | {"image_size": 32, "patch_size": 8}
_SQUARE = {"height": 32, "width": 32}
lib: Any = transformers


def _template(image: str) -> str:
    said = "{% for c in m['content'] %}{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}"
    lines = "{% for m in messages %}user : " + said + "{% endfor %}\n{% endfor %}"
    return lines + "{% if add_generation_prompt %}assistant :{% endif %}"


def _tokens(*special: str) -> Any:
    tokenizer = build_word_tokenizer([*QUESTIONS, *ANSWERS, "user assistant :"])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def _llava() -> tuple[Any, Any]:
    tokens = _tokens("<image>")
    config = lib.LlavaConfig(
        vision_config=lib.CLIPVisionConfig(**_VISION),
        text_config=lib.LlamaConfig(vocab_size=len(tokens), max_position_embeddings=128, **_TEXT),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = lib.LlavaProcessor(
        image_processor=lib.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE),
        tokenizer=tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>\n"),
    )
    return lib.LlavaForConditionalGeneration(config), processor


def _idefics3() -> tuple[Any, Any]:
    tokens = _tokens("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    config = lib.Idefics3Config(
        vision_config=_VISION,
        text_config=lib.LlamaConfig(vocab_size=len(tokens), max_position_embeddings=128, **_TEXT),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    edge = {"longest_edge": 32}
    processor = lib.Idefics3Processor(
        image_processor=lib.Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False),
        tokenizer=tokens,
        image_seq_len=4,
        chat_template=_template("<image>"),
    )
    return lib.Idefics3ForConditionalGeneration(config), processor


def _paligemma() -> tuple[Any, Any]:
    tokens = _tokens("<image>")
    images = lib.SiglipImageProcessor(size=_SQUARE)
    images.image_seq_length = 16
    processor = lib.PaliGemmaProcessor(image_processor=images, tokenizer=tokens)  # adds tokens
    config = lib.PaliGemmaConfig(
        vision_config=lib.SiglipVisionConfig(projection_dim=32, vision_use_head=False, **_VISION),
        text_config=lib.GemmaConfig(vocab_size=len(tokens), num_key_value_heads=1, head_dim=16, **_TEXT),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    return lib.PaliGemmaForConditionalGeneration(config), processor


def _qwen2_vl() -> tuple[Any, Any]:
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokens = _tokens(*marks)
    start, end, image, video = map(tokens.convert_tokens_to_ids, marks)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = lib.Qwen2VLConfig(
        text_config={"vocab_size": len(tokens), "num_key_value_heads": 2, "rope_parameters": rope, **_TEXT},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    processor = lib.Qwen2VLProcessor(
        image_processor=lib.Qwen2VLImageProcessor(patch_size=8, merge_size=2, min_pixels=32 * 32, max_pixels=32 * 32),
        tokenizer=tokens,
        video_processor=lib.Qwen2VLVideoProcessor(patch_size=8, merge_size=2),
        chat_template=_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return lib.Qwen2VLForConditionalGeneration(config), processor


def _blip() -> tuple[Any, Any]:
    tokens = _tokens()
    text = {"vocab_size": len(tokens), "encoder_hidden_size": 32, "projection_dim": 32, "sep_token_id": 3}
    config = lib.BlipConfig(
        text_config={**text, "max_position_embeddings": 64, **_TEXT},
        vision_config={"projection_dim": 32, "initializer_range": 0.02, **_VISION},
        projection_dim=32,
    )
    processor = lib.BlipProcessor(image_processor=lib.BlipImageProcessor(size=_SQUARE), tokenizer=tokens)
    return lib.BlipForQuestionAnswering(config), processor


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": _llava,
    "idefics3": _idefics3,
    "paligemma": _paligemma,
    "qwen2_vl": _qwen2_vl,
    "blip": _blip,
}


def write(name: str, folder: Path) -> Path:
    """Save a model with its processor."""
    torch.manual_seed(0)
    model, processor = MAKERS[name]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
