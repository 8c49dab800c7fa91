"""The training loss among the tokens that the trie of the known answers allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.errors import BenchError
from bench.models import ofa
from bench.models.ofa.model import OfaModel
from bench.plugins.contracts import InputLengths
from tests.models.ofa_models import ANSWERS, METHODS, MICRO, adapted, batch_of, images, micro

KNOWN = [*ANSWERS, "a b", "left hand", "color"]
SMOOTHING = 0.1
Batch = dict[str, torch.Tensor]


def constrained() -> OfaModel:
    model = micro(constrain="answers", constrain_loss=True, label_smoothing=SMOOTHING)
    model.learn_answers(KNOWN)
    return model


def by_hand(model: OfaModel, batch: Batch) -> float:
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


def test_it_is_what_counting_by_hand_gives() -> None:
    model = constrained()
    batch = batch_of(model)
    assert model.loss(batch).item() == pytest.approx(by_hand(model, batch), rel=1e-5)
    assert model.loss(batch).item() < micro(label_smoothing=SMOOTHING).loss(batch).item() / 2


@pytest.mark.parametrize("method", METHODS)
def test_with_an_adapter_on_the_decoder(method: str) -> None:
    model = constrained()
    trained = adapted(model, "decoder", method)
    batch = batch_of(model)
    loss = model.loss(batch)
    assert loss.item() == pytest.approx(by_hand(model, batch), rel=1e-5)
    torch.autograd.backward(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_the_only_known_answer_costs_nothing() -> None:
    model = micro(constrain="answers", constrain_loss=True)
    model.learn_answers(["yes"])
    batch = model.collate(images()[:2], ["what is it?", "color"], ["yes", "yes"])
    assert model.loss(batch).item() == 0


def test_an_answer_that_is_not_known_is_an_error() -> None:
    model = micro(constrain="answers", constrain_loss=True)
    model.learn_answers(["red"])
    with pytest.raises(BenchError, match="not among the known answers"):
        batch_of(model)


def test_inputs_on_meta_are_those_of_collate_and_give_a_loss() -> None:
    model = constrained()
    batch = batch_of(model)
    lengths = InputLengths(question_tokens=batch["question_ids"].shape[1], answer_tokens=batch["answer_ids"].shape[1])
    network: Any = MICRO["network"]
    settings = model.settings.model_copy(update={"network": ofa.NetworkSettings(**network, vocab_size=64)})
    on_meta = ofa.build(settings, texts=KNOWN, device="meta")
    inputs = on_meta.meta_inputs(len(ANSWERS), lengths, with_answers=True)
    assert inputs.keys() == batch.keys()
    assert {inputs[name].shape == tensor.shape for name, tensor in batch.items() if name.startswith("answer")} == {True}
    assert on_meta.loss(inputs).shape == ()


def test_it_needs_the_known_answers() -> None:
    with pytest.raises(ValidationError, match="constrain_loss needs the known answers"):
        ofa.Settings.model_validate({**MICRO, "constrain_loss": True})
