"""Settings of OFA, its presets and its parts. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.models.common.settings import LocalWeights, describe_model
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import LocalPath, ModelSettings
from bench.plugins.settings import Settings as Base

_TARGETS = {
    "lora": ["q_proj", "v_proj"],
    "ia3": ["k_proj", "v_proj", "fc2"],
    "ia3.feedforward_modules": ["fc2"],
}
# The decoder's task type is not CAUSAL_LM: it generates by its own beam search, not by the library's.
PARTS = {
    name: PartFacts(name=name, task_type="FEATURE_EXTRACTION", targets=_TARGETS) for name in ("encoder", "decoder")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Every size of a network; the defaults are those that the released models share."""

    hidden_size: int
    intermediate_size: int = 0
    """0: 4 x ``hidden_size``."""
    encoder_layers: int
    decoder_layers: int
    num_attention_heads: int
    resnet_layers: tuple[int, int, int]
    resnet_channels: tuple[int, int, int] = (64, 128, 256)
    image_buckets: int = 42
    token_buckets: int = 256
    max_positions: int = 1024
    vocab_size: int = 59457
    """0: the length of the tokenizer's vocabulary."""
    dropout: float = 0.1
    drop_path: float = 0.1
    image_size: int = 256
    fused: bool = False
    """Whether attention is torch's fused one."""


_TINY = Sizes(hidden_size=256, encoder_layers=4, decoder_layers=4, num_attention_heads=4, resnet_layers=(3, 4, 6))
_SMALL = replace(_TINY, hidden_size=512, num_attention_heads=8, resnet_layers=(3, 4, 23))
PRESETS = {
    "tiny": _TINY,
    "small": _SMALL,
    "base": replace(
        _SMALL, hidden_size=768, encoder_layers=6, decoder_layers=6, num_attention_heads=12, image_size=384
    ),
    "micro": Sizes(
        hidden_size=64,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=4,
        resnet_layers=(1, 1, 1),
        resnet_channels=(16, 32, 64),
        image_buckets=8,
        token_buckets=32,
        max_positions=160,
        vocab_size=0,
        dropout=0.0,
        drop_path=0.0,
        image_size=64,
    ),
}


class NetworkSettings(Base):
    """Sizes of the network; null: as the preset."""

    hidden_size: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=1)
    """Width of the feed-forward layers; null: 4 x ``hidden_size``."""
    encoder_layers: int | None = Field(default=None, ge=1)
    decoder_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    resnet_layers: tuple[int, int, int] | None = None
    """Bottleneck blocks of the three stages."""
    resnet_channels: tuple[int, int, int] | None = None
    """Inner channels of the stages; each puts out four times as many."""
    image_buckets: int | None = Field(default=None, ge=1)
    """Edge of the table of image positions, in patches of 16 pixels."""
    token_buckets: int | None = Field(default=None, ge=4)
    """Distances between tokens that the relative position table distinguishes, in either direction."""
    max_positions: int | None = Field(default=None, ge=4)
    """Longest text, tokens."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Rows of the token embedding; null: as the preset, and for ``micro`` the length of the tokenizer's vocabulary."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Of embeddings and residual branches; active in training, also in frozen parts."""
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    """Stochastic depth of the last layer of encoder and decoder, rising linearly from 0 at the first."""


class CheckpointWeights(LocalWeights):
    """A released ``.pt`` of fairseq, as OFA and BiomedGPT publish them: ``{"model": tensors, "cfg": ...}``."""

    kind: Literal["checkpoint"]
    tokenizer: LocalPath | None = None
    """Folder of ``encoder.json``, ``vocab.bpe`` and ``dict.txt`` (``utils/BPE`` in those repositories); null: the
    file's own folder."""


class FolderWeights(LocalWeights):
    """A folder that ``train.save_model`` wrote: ``model.safetensors``, ``config.json`` and the tokenizer."""

    kind: Literal["folder"]


Weights = Annotated[CheckpointWeights | FolderWeights, Field(discriminator="kind")]


class Settings(ModelSettings):
    """OFA."""

    family: Literal["ofa"]
    preset: Literal["tiny", "small", "base", "micro"] = "tiny"
    """``tiny``: BiomedGPT-Tiny, 33,488,336 parameters; ``small``: the released ``medium``; ``micro``: for the demo."""
    network: NetworkSettings = NetworkSettings()
    image_size: int | None = Field(default=None, ge=16)
    """Edge, pixels, a multiple of 16; resized bicubically, scaled to -1..1. Null: as the preset."""
    embedding: Literal["frozen", "encoder", "decoder"] = "frozen"
    """The part that the token embedding belongs to: trained, frozen and counted with it. ``frozen``: to none."""
    attention: Literal["eager", "sdpa"] = "eager"
    """``sdpa`` is torch's fused attention. The position biases are its mask, so it still holds one value a pair."""
    question_max_words: int = Field(default=80, ge=1)
    """Longer questions are cut, as in the released code."""
    question_max_tokens: int = Field(default=100, ge=3)
    """Questions that are still longer are cut again, begin and end of sentence included."""
    answer_max_tokens: int = Field(default=41, ge=2)
    """Longer training answers are cut, end of sentence included; the released code's 40."""
    constrain: Literal["answers", "none"] = "answers"
    """``answers``: only an answer of the training examples can be generated, by a trie of their tokens; the released
    code's are those of train and validation."""
    constrain_loss: bool = False
    """Whether the training loss, too, weighs only the tokens that the trie of ``constrain`` allows, as the released
    code's does."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of random weights outside the ResNet. A narrow model needs a larger value."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Of the answer loss; the released code's value."""
    weights: Weights | None = None
    """Where the weights come from; null: random, with a tokenizer of the data set's own words."""

    def describe(self) -> str:
        """``ofa tiny, weights biomedgpt_tiny.pt``."""
        return describe_model(self.family, self.preset, self.weights)

    def sizes(self) -> Sizes:
        """Every size, the preset's or the spec's; ``vocab_size`` may be 0."""
        sizes = replace(PRESETS[self.preset], **self.network.model_dump(exclude_none=True))
        return replace(
            sizes,
            intermediate_size=sizes.intermediate_size or 4 * sizes.hidden_size,
            image_size=self.image_size or sizes.image_size,
            fused=self.attention == "sdpa",
        )

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        sizes = self.sizes()
        if sizes.hidden_size % sizes.num_attention_heads:
            raise ValueError("network.hidden_size must be a multiple of network.num_attention_heads")
        if (longest := self.question_max_tokens + self.answer_max_tokens) > sizes.max_positions:
            raise ValueError(
                f"question_max_tokens and answer_max_tokens are {longest} together; "
                f"network.max_positions allows {sizes.max_positions}"
            )
        if self.constrain_loss and self.constrain != "answers":
            raise ValueError(
                "constrain_loss needs the known answers: set constrain to answers, or constrain_loss to false"
            )
        if sizes.image_size % 16:
            raise ValueError(f"image_size {sizes.image_size} is not a multiple of 16, the ResNet's stride")
        if sizes.image_size > 16 * sizes.image_buckets:
            raise ValueError(
                f"image_size {sizes.image_size} has {sizes.image_size // 16} patches a side; "
                f"network.image_buckets allows {sizes.image_buckets}"
            )
        return self
