"""What a task assumes of a model is tried when it is built, over the architectures of the library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from bench.errors import SpecError
from bench.models import hf
from bench.models.hf import architectures, checks
from bench.plugins.contracts import TaskFacts
from tests.models.hf import models as tiny
from tests.models.hf.models import BEAMS, GREEDY, LABEL, LOOK, WORDS, WRITE

_MARIAN = {"model_type": "marian", "d_model": 32} | {
    f"{side}_{size}": n
    for side in ("encoder", "decoder")
    for size, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
}
_RWKV = {"model_type": "rwkv", "num_hidden_layers": 8, "context_length": 64}
_RWKV |= {"hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 64}
REFUSED: list[tuple[str, TaskFacts, str]] = [
    ("xlnet", WRITE, r"sees the token that it is to predict \(it is not causal\)"),
    ("cpmant", WRITE, r"sees the token that it is to predict \(it is not causal\)"),
    ("mra", LABEL, r"label does not depend on the first word"),
    ("fnet", LABEL, r"depends on the padding"),
    ("convbert", LABEL, r"depends on the padding"),
    ("t5gemma", LABEL, r"depends on the padding"),
]
"""What the library's own architectures lack, without the kernels that only a GPU has."""
MAY_BE_REFUSED = {"canine", "cpmant", "convbert", "fnet", "funnel", "mra", "nystromformer", "t5gemma", "t5gemma2",
                  "xlnet", "yoso"}  # fmt: skip
UNBUILT = ("fails on texts alone", "cannot build", "model.config", "several text models", "the tokenizer has")


def build(config: dict[str, Any], **changes: Any) -> Any:
    return tiny.build(hf.Settings(family="hf", config=config, **changes), WRITE, WORDS)


@pytest.mark.parametrize(("model_type", "task", "reason"), REFUSED, ids=[each[0] for each in REFUSED])
def test_an_architecture_that_breaks_a_rule_is_refused_with_the_reason(
    model_type: str, task: TaskFacts, reason: str
) -> None:
    if model_type not in architectures.model_types():
        pytest.skip("not in this release")
    with pytest.raises(SpecError, match=reason):
        tiny.make_small(model_type, task)


@pytest.mark.parametrize("kind", [architectures.CAUSAL, architectures.SEQ2SEQ, architectures.LABELS])
def test_no_other_architecture_is_refused(kind: str) -> None:
    """Every sixth of each list; a small configuration may be one that its own model cannot compute."""
    task, passed = LABEL if kind == architectures.LABELS else WRITE, 0
    names = sorted(architectures.classes(kind))[::6]
    for name in names:
        try:
            tiny.small(name)
        except Exception:  # the library's own checks of sizes
            continue
        try:
            tiny.make_small(name, task)
        except SpecError as error:
            if name not in MAY_BE_REFUSED and not any(reason in str(error) for reason in UNBUILT):
                raise
        except TypeError:  # no vocabulary without one's own
            continue
        else:
            passed += 1
    assert passed > 0.4 * len(names)


@pytest.mark.parametrize("name", ["bert", "xlm"])
def test_a_model_that_would_look_ahead_is_made_causal(name: str) -> None:
    model = tiny.make_small(name, WRITE)
    model.module.eval()
    ids = torch.randint(5, 60, (1, 8))
    other = ids.clone()
    other[0, -1] += 1
    with torch.no_grad():
        one, two = (model.base(input_ids=given).logits[0, :-1] for given in (ids, other))
    assert torch.allclose(one, two, atol=1e-6)


def test_evaluation_that_draws_random_numbers_is_refused() -> None:
    model = tiny.make_small("llama", WRITE)
    model.base.lm_head.register_forward_hook(lambda _module, _args, out: out + 0.1 * torch.randn_like(out))
    with pytest.raises(SpecError, match="two forward passes of the same texts differ"):
        checks.check_generative_model(model)


def test_batch_norm_over_the_batch_is_refused() -> None:
    model: Any = tiny.make("resnet", LOOK)
    norm = next(each for each in model.module.modules() if isinstance(each, torch.nn.BatchNorm2d))
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    with pytest.raises(SpecError, match="label of an image depends on the others of a batch"):
        checks.check_image_classifier(model)


def test_a_tokenizer_without_an_end_of_text_is_refused() -> None:
    model = tiny.make_small("gpt2", WRITE)
    model.tokens.end = None
    with pytest.raises(SpecError, match=r"no token that ends a text.*set model\.tokenizer"):
        checks.check_generative_model(model)


def test_a_check_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = tiny.make_small("bert", LABEL)
    after = torch.get_rng_state()
    monkeypatch.setattr(checks, "_known_words", lambda _tokens: [])
    unchecked = tiny.make_small("bert", LABEL)
    assert torch.equal(after, torch.get_rng_state())
    assert unchecked.module.training == checked.module.training
    assert all(parameter.grad is None for parameter in checked.module.parameters())


def test_kernels_of_half_precision_are_left_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights come in fp32, which flash attention refuses."""
    seen: list[str] = []
    llama: Any = transformers.LlamaForCausalLM
    forward = llama.forward

    def note(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.config._attn_implementation)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(llama, "forward", note)
    model = tiny.make_small("llama", WRITE, attention="flex_attention")
    assert set(seen) == {"eager"}
    assert model.base.config._attn_implementation == model.facts()["attention"] == "flex_attention"


def test_rwkv_writes_the_same_alone_as_in_a_batch_and_with_beams() -> None:
    model = build(_RWKV)
    tiny.put(model, {"embeddings": "F", "decoder": "T", "head": "T"})
    questions, answers = ["w0x w1x w2x", "w3x", "w4x w5x w6x w7x"], ["w30x", "w31x w32x", "w33x"]
    batch = model.collate([], questions, answers)
    first, last = tiny.train(model, lambda: model.loss(batch), steps=30)
    assert last < 0.1 * first
    for options in (GREEDY, BEAMS):
        assert model.generate(model.collate([], questions, []), options) == answers
        assert [model.generate(model.collate([], [text], []), options)[0] for text in questions] == answers


def test_an_adapter_on_rwkv_computes_in_evaluation_as_in_training() -> None:
    model = build(_RWKV)
    tiny.put(model, {"decoder": "L"}, L=tiny.method("lora", r=2, lora_dropout=0.0))
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    batch = model.collate([], WORDS[:2], WORDS[2:4])
    model.module.train()
    trained = model.loss(batch).item()
    model.module.eval()
    assert model.loss(batch).item() == pytest.approx(trained, rel=1e-5)


def test_a_second_vocabulary_is_that_of_the_tokenizer_or_refused() -> None:
    model = build(_MARIAN)
    assert len(model.base.get_output_embeddings().weight) == len(model.tokens)
    assert model.loss(model.collate([], WORDS[:2], WORDS[2:4])).isfinite()
    with pytest.raises(SpecError, match="it writes 40 different tokens, but its tokenizer makes 65"):
        build(_MARIAN | {"decoder_vocab_size": 40, "share_encoder_decoder_embeddings": False})


def test_the_word_embedding_is_found_under_any_name() -> None:
    model = build({"model_type": "ctrl", "n_embd": 32, "n_layer": 2, "n_head": 2, "dff": 64, "n_positions": 64})
    assert [name for name, _ in model.part("embeddings").named_parameters()] == ["transformer.w.weight"]
