"""Generation with virtual tokens, straight through the two libraries; and a library that no longer fits its patch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftConfig, PrefixTuningConfig, PromptTuningConfig

from bench.errors import BenchError, LibraryMismatchError
from bench.patches import peft as patches
from bench.patches.transformers import cache_name

TEXT = torch.tensor([[3, 8, 5, 11], [7, 9, 4, 6]])
NEW_TOKENS = 5


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: Any = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=60, bos_token_id=1, eos_token_id=None, pad_token_id=0))


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: Any = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=60, bos_token_id=1, eos_token_id=None, pad_token_id=0))


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: Any = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    tokens: Any = {"decoder_start_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens, vocab_size=60))


def stepwise(model: Any) -> torch.Tensor:
    """Greedy decoding by forward passes without a cache, (batch, ``NEW_TOKENS``)."""
    writes_anew = model.config.is_encoder_decoder
    text = torch.zeros(len(TEXT), 1, dtype=torch.long) if writes_anew else TEXT
    for _ in range(NEW_TOKENS):
        inputs = {"input_ids": TEXT, "decoder_input_ids": text} if writes_anew else {"input_ids": text}
        mask = torch.ones_like(inputs["input_ids"])
        text = torch.cat([text, model(**inputs, attention_mask=mask).logits[:, -1:].argmax(-1)], dim=1)
    return text[:, -NEW_TOKENS:]


@pytest.mark.parametrize("config", [PrefixTuningConfig, PromptTuningConfig])
@pytest.mark.parametrize(("make", "task"), [(llama, "CAUSAL_LM"), (gpt2, "CAUSAL_LM"), (t5, "SEQ_2_SEQ_LM")])
@torch.no_grad()
def test_generation_sees_virtual_tokens_as_forward_passes_do(make: Any, task: str, config: type[PeftConfig]) -> None:
    torch.manual_seed(0)
    plain = make().eval()
    settings: dict[str, Any] = {"task_type": task, "num_virtual_tokens": 3}
    model: Any = patches.get_peft_model(plain, config(**settings)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.normal_(0, 3.0)
    ids = model.generate(
        input_ids=TEXT, attention_mask=torch.ones_like(TEXT), max_new_tokens=NEW_TOKENS, do_sample=False
    )
    answers = ids[:, -NEW_TOKENS:]
    assert torch.equal(answers, stepwise(model))
    assert not torch.equal(answers, stepwise(model.get_base_model()))


def test_a_library_without_the_name_that_is_patched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft.peft_model as library
    from transformers import GenerationMixin

    def prepare(_self: Any, cache: Any = None) -> dict[str, Any]:
        return {"cache": cache}

    monkeypatch.setattr(GenerationMixin, "prepare_inputs_for_generation", prepare)  # as transformers 5.24 has it
    monkeypatch.setattr(library.PeftModelForCausalLM, "prepare_inputs_for_generation", prepare)
    with pytest.raises(LibraryMismatchError, match=r"peft [\d.]+: PeftModelForCausalLM.prepare_inputs_for_generation"):
        patches.patch_cache_name.__wrapped__()


def test_a_function_without_a_cache_is_refused() -> None:
    def forward(input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids

    with pytest.raises(LibraryMismatchError, match="takes neither cache nor past_key_values"):
        cache_name(forward)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels can be built here")
def test_boft_without_its_kernels_is_refused_more_factors_than_it_takes() -> None:
    from peft import BOFTConfig

    targets: Any = {"target_modules": ["q_proj"], "boft_block_size": 4}
    patches.get_peft_model(llama(), BOFTConfig(**targets))
    with pytest.raises(BenchError, match="boft_n_butterfly_factor is 2, but without its CUDA kernels"):
        patches.get_peft_model(llama(), BOFTConfig(**targets, boft_n_butterfly_factor=2))
