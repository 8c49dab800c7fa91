"""Checkpoints with a peft adapter inside and adapter folders beside them, as train_MILE.py leaves both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from ruamel.yaml import YAML

from bench.errors import WeightsError
from bench.models import miss
from bench.models.miss.model import MissModel
from tests.models.miss.conftest import original
from tests.models.vqa import MISS, Batch, batch_of, tiny_miss

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="the authors' checkpoints hold lists that this PyTorch cannot read safely"
)

CONFIGS: dict[str, Callable[[], Any]] = {
    "lora": lambda: LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["query", "value"]
    ),
    "ia3": lambda: IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["key", "value", "output.dense"],
        feedforward_modules=["output.dense"],
    ),
}


class Run:
    """What training with an adapter on the decoder left in a folder."""

    def __init__(self, model: MissModel, config: Any, folder: Path) -> None:
        self.folder, self.adapter = folder, folder / "MILE_PEFT_text_decoder_checkpoint_0"
        self.checkpoint = folder / "checkpoint_00.pth"
        miss.save(model, folder / "base")
        model.tokens.save(folder)
        self.adapted: PeftModel = get_peft_model(model.part("dec"), config)
        model.replace_part("dec", self.adapted)
        self.model = model
        self.epoch(seed=1)

    def epoch(self, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.adapted.named_parameters():
                if "lora_" in name or "ia3_" in name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
        config = YAML(typ="rt").load("{init_lr: 1e-5, train_files: [a]}  # as configs/vqa.yaml")
        content = {"model": original(self.model), "optimizer": {}, "config": config, "epoch": 0}
        torch.save(content, self.checkpoint)
        self.adapted.save_pretrained(str(self.adapter))

    def settings(self, **weights: Any) -> miss.Settings:
        image = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "divide_by_255": False}
        return miss.Settings.model_validate(MISS | {"image": image, "weights": weights})

    def build(self, **weights: Any) -> MissModel:
        built = miss.build(self.settings(**weights), texts=["other"], device="cpu")
        built.module.eval()
        return built


@pytest.fixture(params=CONFIGS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run(tiny_miss(), CONFIGS[request.param](), tmp_path)


def scores(model: MissModel, batch: Batch) -> torch.Tensor:
    model.module.eval()
    found: torch.Tensor = model.part("dec")(
        input_ids=batch["answer_ids"],
        attention_mask=batch["answer_mask"],
        encoder_hidden_states=model._question_states(batch),
        encoder_attention_mask=batch["question_mask"],
    ).logits
    return found


@torch.no_grad()
def test_a_run_can_be_started_from(run: Run) -> None:
    batch = batch_of(run.model)
    expected = scores(run.model, batch)
    for weights in (
        {"kind": "checkpoint", "path": run.checkpoint, "adapter": {"dec": run.adapter}},
        {"kind": "folder", "path": run.folder / "base", "adapter": {"dec": run.adapter}},
    ):
        again = run.build(**weights)
        torch.testing.assert_close(scores(again, batch), expected, atol=1e-4, rtol=1e-4)
        plain = miss.build(run.settings(kind="folder", path=run.folder / "base"), texts=[], device="meta")
        assert again.module.state_dict().keys() == plain.module.state_dict().keys(), "no trace of the adapter is left"
        decoder = again.module.text_decoder
        assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
        assert all(parameter.requires_grad for parameter in again.module.parameters())
        assert again.settings.describe().endswith("and adapters on dec")
    assert not torch.allclose(scores(run.build(kind="folder", path=run.folder / "base"), batch), expected, atol=1e-2)


def test_a_checkpoint_says_which_adapter_it_holds(run: Run) -> None:
    with pytest.raises(WeightsError) as caught:
        run.build(kind="checkpoint", path=run.checkpoint)
    for words in (str(run.checkpoint), "holds a peft adapter on part dec", "model.weights.adapter: {dec: FOLDER}"):
        assert words in str(caught.value)
    assert ("lora_A, lora_B" in str(caught.value)) != ("ia3_l" in str(caught.value))


def test_an_adapter_of_another_epoch_is_refused(run: Run) -> None:
    kept = run.checkpoint.read_bytes()
    run.epoch(seed=2)
    run.checkpoint.write_bytes(kept)
    with pytest.raises(WeightsError, match="name the adapter of the same epoch"):
        run.build(kind="checkpoint", path=run.checkpoint, adapter={"dec": run.adapter})


def test_an_adapter_of_another_part_and_a_folder_without_one_are_refused(run: Run) -> None:
    with pytest.raises(WeightsError, match=r"MILE_PEFT_text_decoder_checkpoint_0 cannot be put on part jtm"):
        run.build(kind="folder", path=run.folder / "base", adapter={"jtm": run.adapter})
    with pytest.raises(WeightsError, match=r"no adapter in .*base: expected adapter_config\.json"):
        run.build(kind="folder", path=run.folder / "base", adapter={"dec": run.folder / "base"})


def test_the_digest_follows_the_adapter(run: Run) -> None:
    plain = run.settings(kind="folder", path=run.folder / "base")
    settings = run.settings(kind="folder", path=run.folder / "base", adapter={"dec": run.adapter})
    before = miss.weights_digest(settings)
    run.epoch(seed=2)
    assert len({before, miss.weights_digest(settings), miss.weights_digest(plain)}) == 3


@pytest.mark.parametrize("projection", [True, False])
def test_prompts_change_no_weights(tmp_path: Path, projection: bool) -> None:
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=projection, encoder_hidden_size=32
    )
    run = Run(tiny_miss(), config, tmp_path)
    with pytest.raises(WeightsError, match=r"holds prompts .* on part dec, which change no weights"):
        run.build(kind="checkpoint", path=run.checkpoint)
    with pytest.raises(WeightsError, match=r"PREFIX_TUNING changes no weights"):
        run.build(kind="folder", path=run.folder / "base", adapter={"dec": run.adapter})
