"""OFA: losses, inputs of the decoder, attention, checkpointing and training mode."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bench.errors import BenchError
from bench.models import ofa
from bench.models.ofa.model import OfaModel
from bench.plugins.contracts import GenerateOptions, InputLengths
from tests.contracts.model_cases import greedy
from tests.models.vqa import (
    ANSWERS,
    BEAMS,
    GREEDY,
    METHODS,
    OFA,
    Batch,
    assert_trained,
    batch_of,
    gradients,
    images,
    micro_ofa,
    put,
)

KNOWN = [*ANSWERS, "a b", "left hand", "color"]
SMOOTHING = 0.1


@pytest.fixture
def model() -> OfaModel:
    return micro_ofa()


@pytest.fixture
def batch(model: OfaModel) -> Batch:
    return batch_of(model)


def logits(model: OfaModel, batch: Batch, ids: torch.Tensor) -> torch.Tensor:
    """The decoder's scores after each of ``ids``, without generation's cache."""
    decoded = model.part("decoder")(input_ids=ids, attention_mask=torch.ones_like(ids), encoded=model._encoded(batch))
    found: torch.Tensor = decoded.logits
    return found


def test_prompts_of_embeddings_find_the_token_embedding(model: OfaModel, batch: Batch) -> None:
    """peft looks for it inside the part; in front of the text, they move its positions."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    for part in ofa.PARTS:
        config = PromptTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=3)
        model.replace_part(part, get_peft_model(model.part(part), config))
    model.module.eval()
    torch.autograd.backward(model.loss(batch))
    trained = [p for n, p in model.module.named_parameters() if "prompt_encoder" in n]
    assert len(trained) == 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert model.generate(batch, GREEDY) == greedy(model, batch, GREEDY.max_new_tokens)


def test_loss_is_the_released_codes_and_padding_changes_nothing(model: OfaModel, batch: Batch) -> None:
    """Smoothing spread over the wrong tokens, mean over the answers' tokens, the question's asked for by nobody."""
    chances = logits(model, batch, batch["decoder_ids"]).log_softmax(-1)
    asked = batch["labels"] != -100
    chances, gold = chances[asked], batch["labels"][asked]
    right = chances.gather(1, gold[:, None])[:, 0]
    wrong = chances.sum(1) - right
    expected = -(0.9 * right + 0.1 / (chances.shape[1] - 1) * wrong).mean()
    torch.testing.assert_close(model.loss(batch), expected)
    wider = dict(batch)
    for name, filler in (("question_ids", 1), ("question_mask", 0), ("decoder_ids", 1), ("decoder_mask", 0)):
        wider[name] = functional.pad(batch[name], (0, 7), value=filler)
    wider["labels"] = functional.pad(batch["labels"], (0, 7), value=-100)
    torch.testing.assert_close(model.loss(wider), expected)


def test_the_decoder_reads_question_and_answer_and_is_asked_for_the_answer(model: OfaModel) -> None:
    batch = model.collate(images()[:2], ["what is it?", "color"], ["left lung", "red"])
    words = [model.tokens._tokenizer.id_to_token(i) for i in range(model.tokens.size)]
    texts = {
        name: [" ".join("-" if i == -100 else words[i] for i in row) for row in batch[name].tolist()]
        for name in ("decoder_ids", "labels", "question_ids")
    }
    assert texts == {
        "decoder_ids": ["<s> what is it ? left lung", "<s> color ? red <pad> <pad> <pad>"],
        "labels": ["- - - - left lung </s>", "- - red </s> - - -"],
        "question_ids": ["<s> what is it ? </s>", "<s> color ? </s> <pad> <pad>"],
    }


@pytest.mark.parametrize("method", ["F", "prefix"])
def test_fused_attention_computes_the_same(method: str) -> None:
    losses, answers = [], []
    for attention in ("eager", "sdpa"):
        model = micro_ofa(attention=attention)
        put(model, {"decoder": method})
        losses.append(model.loss(batch_of(model)))
        answers.append(model.generate(batch_of(model), BEAMS))
    torch.testing.assert_close(*losses)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("method", ["T", *METHODS])
def test_checkpointed_gradients_are_the_same(method: str) -> None:
    found = []
    for checkpointed in (False, True):
        model = micro_ofa(network=OFA["network"] | {"dropout": 0.1, "drop_path": 0.1})
        put(model, {"encoder": "T" if method == "T" else "F", "decoder": method})
        if checkpointed:
            model.checkpoint_activations()
        model.module.train()
        found.append(gradients(model))
    torch.testing.assert_close(*found)


def test_a_frozen_resnet_keeps_its_statistics(model: OfaModel, batch: Batch) -> None:
    norm = model.module.encoder.embed_images.bn1
    for trained, moved in ((False, False), (True, True)):
        before = norm.running_mean.clone()
        model.module.requires_grad_(trained)
        model.module.train()
        model.loss(batch)
        assert (not torch.equal(norm.running_mean, before)) is moved


def test_dropout_and_drop_path_act_in_training_only() -> None:
    model = micro_ofa(network=OFA["network"] | {"drop_path": 0.5})
    batch = batch_of(model)
    model.module.requires_grad_(False)
    assert torch.equal(model.loss(batch), model.loss(batch))
    model.module.train()
    assert len({model.loss(batch).item() for _ in range(8)}) > 1


def test_a_text_beyond_the_position_table_is_refused(model: OfaModel, batch: Batch) -> None:
    with pytest.raises(BenchError, match="max_positions 160"):
        model.generate(batch, GenerateOptions(num_beams=1, max_new_tokens=200))


def constrained(known: list[str] = KNOWN) -> OfaModel:
    model = micro_ofa(constrain="answers", constrain_loss=True, label_smoothing=SMOOTHING)
    model.learn_answers(known)
    return model


def constrained_by_hand(model: OfaModel, batch: Batch) -> float:
    """One answer token after the other: softmax over what may follow in any known answer, smoothing over the others."""
    decoded = model.part("decoder")(
        input_ids=batch["decoder_ids"], attention_mask=batch["decoder_mask"], encoded=model._encoded(batch)
    )
    scores = decoded.logits[:, -batch["labels"].shape[1] :]
    texts = [model.answer_ids(text) for text in KNOWN]
    losses: list[float] = []
    for row, labels in zip(scores, batch["labels"].tolist(), strict=True):
        answer: list[int] = []
        for place, label in enumerate(labels):
            if label < 0:
                continue
            allowed = sorted(
                {text[len(answer)] for text in texts if text[: len(answer)] == answer and len(text) > len(answer)}
            )
            logs = row[place, allowed].log_softmax(0).tolist()
            right = logs[allowed.index(label)]
            others = [log for token, log in zip(allowed, logs, strict=True) if token != label]
            spread = -SMOOTHING * sum(others) / len(others) if others else 0.0
            losses.append(-(1 - SMOOTHING) * right + spread)
            answer.append(label)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("method", ["F", *METHODS])
def test_the_constrained_loss_is_what_counting_by_hand_gives(method: str) -> None:
    model = constrained()
    trained = put(model, {"decoder": method})
    batch = batch_of(model)
    assert model.loss(batch).item() == pytest.approx(constrained_by_hand(model, batch), rel=1e-5)
    if method == "F":
        assert model.loss(batch).item() < micro_ofa(label_smoothing=SMOOTHING).loss(batch).item() / 2
    else:
        assert_trained(model, trained)


def test_the_only_known_answer_costs_nothing_and_an_unknown_one_is_an_error() -> None:
    model = constrained(["yes"])
    assert model.loss(model.collate(images()[:2], ["what is it?", "color"], ["yes", "yes"])).item() == 0
    with pytest.raises(BenchError, match="not among the known answers"):
        batch_of(model)


def test_constrained_inputs_on_meta_are_those_of_collate_and_give_a_loss() -> None:
    model = constrained()
    batch = batch_of(model)
    lengths = InputLengths(question_tokens=batch["question_ids"].shape[1], answer_tokens=batch["answer_ids"].shape[1])
    settings = model.settings.model_copy(update={"network": ofa.NetworkSettings(**OFA["network"], vocab_size=64)})
    on_meta = ofa.build(settings, texts=KNOWN, device="meta")
    inputs = on_meta.meta_inputs(len(ANSWERS), lengths, with_answers=True)
    assert inputs.keys() == batch.keys()
    assert {inputs[name].shape == tensor.shape for name, tensor in batch.items() if name.startswith("answer")} == {True}
    assert on_meta.loss(inputs).shape == ()
