"""Transformers models that read learn to label and to write, and look at no padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import BenchError, SpecError, WeightsError
from bench.models import hf
from bench.plugins.contracts import CutTexts, GenerateOptions, TaskFacts
from tests.models import hf_models as own
from tests.models.hf_models import ANSWERS, LABEL, QUESTIONS, WRITE

WRITERS = ("gpt2", "llama", "opt", "t5", "bart", "bert")
LABELLERS = ("bert", "roberta", "modernbert", "gpt2", "llama", "t5", "bart")
KINDS = [*((name, WRITE) for name in WRITERS), *((name, LABEL) for name in LABELLERS)]
BOTH = pytest.mark.parametrize(("name", "task"), KINDS, ids=lambda v: v if isinstance(v, str) else v.name)


def same(one: list[Any], other: list[Any]) -> bool:
    if isinstance(one[0], str):
        return one == other
    return torch.allclose(torch.stack(one), torch.stack(other), atol=1e-5)


@BOTH
def test_learns_answers_one_by_one_as_together_and_is_saved(name: str, task: TaskFacts, tmp_path: Path) -> None:
    model = own.make(name, task)
    own.put(model, dict.fromkeys(model.part_facts, "T"))
    first, last = own.train(model, lambda: own.loss(model, task))
    assert last < 0.3 * first
    together = own.predict(model, task, QUESTIONS)
    if task.output == "text":
        assert together == ANSWERS
    assert same(together, [own.predict(model, task, [question])[0] for question in QUESTIONS])
    hf.save(model, tmp_path / "saved")
    again = hf.build(hf.Settings(family="hf", path=tmp_path / "saved"), texts=[], device="cpu", task=task)
    assert same(own.predict(again, task, QUESTIONS), together)


@BOTH
def test_parts_are_the_whole_model_and_count_alike_on_meta(name: str, task: TaskFacts) -> None:
    model, on_meta = own.make(name, task), own.make(name, task, device="meta")
    ids = [{id(p) for p in model.part(part).parameters()} for part in model.part_facts]
    assert sum(map(len, ids)) == len(set().union(*ids)) == len(list(model.module.parameters()))
    for part in model.part_facts:
        assert [p.shape for p in model.part(part).parameters()] == [p.shape for p in on_meta.part(part).parameters()]


@BOTH
def test_lora_on_the_blocks_trains(name: str, task: TaskFacts) -> None:
    model = own.make(name, task)
    blocks = next(part for part in ("decoder", "encoder") if part in model.part_facts)
    parts = {part: "LoRA" if part == blocks else "F" for part in model.part_facts if part != "head"} | (
        {"head": "T"} if "head" in model.part_facts else {}
    )
    own.put(model, parts, LoRA=own.method("lora", r=4, lora_dropout=0.0))
    first, last = own.train(model, lambda: own.loss(model, task), steps=10)
    assert last < first
    with pytest.raises(WeightsError, match="adapters"):
        hf.save(model, Path("nowhere"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_loss_is_of_answers_alone(name: str) -> None:
    batch = own.make(name, WRITE).collate([], QUESTIONS, ANSWERS)
    assert [int((row != -100).sum()) for row in batch["labels"]] == [2, 2, 2, 2]  # a word and the end


@BOTH
def test_lengths_are_those_of_a_batch(name: str, task: TaskFacts) -> None:
    model = own.make(name, task, question_max_tokens=4)
    answers = ANSWERS if task.output == "text" else []
    found = model.lengths(QUESTIONS, ANSWERS)
    for given in ([], answers):
        batch = model.collate([], QUESTIONS, given)
        shapes = {key: (tuple(t.shape), t.dtype) for key, t in batch.items()}
        on_meta = model.meta_inputs(4, found, with_answers=bool(given))
        assert {key: (tuple(t.shape), t.dtype) for key, t in on_meta.items()} == shapes
    assert model.lengths(["bad " * 50], ["neg " * 50]) == model.max_lengths()


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gpt2"])
def test_checkpointed_layers_train_the_same(name: str) -> None:
    task = LABEL if name == "bert" else WRITE
    found = []
    for checkpointed in (False, True):
        model = own.make(name, task)
        own.put(model, dict.fromkeys(model.part_facts, "T"))
        if checkpointed:
            model.checkpoint_activations()
            assert any(getattr(m, "gradient_checkpointing", False) for m in model.module.modules())
        model.module.train()
        torch.manual_seed(1)
        own.loss(model, task).backward()  # type: ignore[no-untyped-call]
        found.append([p.grad for p in model.module.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def test_a_prompt_is_put_around_the_question() -> None:
    model = own.make("gpt2", WRITE, prompt="good {question} .", question_max_tokens=2)
    words = model.tokens.tokenizer.decode(model.question("a bad one"), skip_special_tokens=True)
    assert words == "good a bad."


@pytest.mark.parametrize(("template", "written"), [("so {{ messages[0]['content'] }} .", "so bad."), ("so .", None)])
def test_a_chat_template_is_used(template: str, written: str | None, tmp_path: Path) -> None:
    tokenizer = own.make("gpt2", WRITE).tokens.tokenizer
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    if written is None:
        with pytest.raises(SpecError, match="leaves out what a user says"):
            own.make("gpt2", WRITE, tokenizer=str(tmp_path))
        return
    model = own.make("gpt2", WRITE, tokenizer=str(tmp_path), question_max_tokens=2)
    assert [model.tokens.tokenizer.decode(model.question(text)) for text in ("bad", "bad bad bad")] == [
        written,
        "so bad bad.",
    ]


def test_weights_that_know_the_labels_keep_their_order(tmp_path: Path) -> None:
    model = own.make("bert", LABEL)
    hf.save(model, tmp_path)
    turned = TaskFacts(name="label", inputs=("text",), output="label", labels=LABEL.labels[::-1])
    again = hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=turned)
    flipped = [row.flip(0) for row in own.predict(again, turned, QUESTIONS)]
    assert same(flipped, own.predict(model, LABEL, QUESTIONS))
    in_capitals = replace(turned, labels=tuple(label.upper() for label in turned.labels))
    again = hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=in_capitals)
    assert same([row.flip(0) for row in own.predict(again, in_capitals, QUESTIONS)], flipped)


@pytest.mark.parametrize(
    ("name", "task", "most"), [("bert", LABEL, -2), ("roberta", LABEL, -3), ("gpt2", WRITE, -34), ("opt", WRITE, -34)]
)
def test_a_question_longer_than_the_table_of_positions_is_refused(name: str, task: TaskFacts, most: int) -> None:
    """Two tokens stand around a text, or one in front and one behind, with 32 for an answer; RoBERTa has one position
    less, behind its padding."""
    longest = own.make(name, task).base.config.max_position_embeddings + most
    model = own.make(name, task, question_max_tokens=longest)
    batch = model.collate([], ["bad " * 3000], ["good " * 300] if task is WRITE else [])
    assert batch["input_ids"].shape[1] == longest + (34 if task is WRITE else 2)
    model.model(**batch)
    with pytest.raises(SpecError, match=f"question_max_tokens is {longest + 1}, .* at most {longest}, or"):
        own.make(name, task, question_max_tokens=longest + 1)
    assert own.make("llama", WRITE, question_max_tokens=10**4)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_an_answer_ends_where_the_positions_do(name: str) -> None:
    """Without an end of sentence, so that the answer would go on; the table has 64 positions."""
    model = own.make(name, WRITE)
    model.base.generation_config.eos_token_id = None
    batch = model.collate([], QUESTIONS, [])
    for asked in (3, 10_000):
        assert len(model.generate(batch, GenerateOptions(num_beams=1, max_new_tokens=asked))) == len(QUESTIONS)


def test_a_head_for_other_labels_starts_anew_and_nothing_else(tmp_path: Path) -> None:
    hf.save(own.make("bert", LABEL), tmp_path)
    three = TaskFacts(name="label", inputs=("text",), output="label", labels=("a", "b", "c"))
    model = hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=three)
    assert own.predict(model, three, ["bad"])[0].shape == (3,)
    with pytest.raises(WeightsError, match=r"missing: cls\.predictions"):
        hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=WRITE)


def test_a_part_that_is_not_there_is_named() -> None:
    model = own.make("bert", LABEL)
    with pytest.raises(SpecError, match=r"no part 'decoder', only embeddings, encoder, head"):
        own.put(model, {"decoder": "LoRA"}, LoRA=own.method("lora"))
    with pytest.raises(BenchError, match="decoder"):
        own.put(model, {"decoder": "T"})


def test_parts_of_ones_own() -> None:
    model = own.make("bert", LABEL, parts={"late": "bert.encoder.layer.1", "top": ["bert.pooler", "classifier"]})
    assert list(model.part_facts) == ["late", "top"]
    own.put(model, {"late": "LoRA", "top": "T"}, LoRA=own.method("lora", r=2))
    trained = {name for name, p in model.module.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained if "lora" not in name} == {"bert", "classifier"}
    assert all("layer.1." in name for name in trained if "lora" in name)
    with pytest.raises(SpecError, match="names no module"):
        own.make("bert", LABEL, parts={"late": "bert.encoder.layers.1"})


def test_a_text_is_cut_by_its_ids() -> None:
    model = own.make("bert", LABEL, question_max_tokens=6)
    tokens = model.tokens
    for text in ("zzz yyy a good man so bad bad", "good <s> bad </s> a one bad bad", "zzz </s> a"):
        ids = tokens.encode(text, special=False)
        assert model.question(text) == [2, *ids[:6], 3]
    assert model.question("zzz yyy a good man so bad")[1:3] == [1, 1], "unknown words stay"
    assert 3 in model.question("good </s> bad a a a a a")[1:-1], "a separator stays"


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_what_is_around_a_cut_question_stays(name: str) -> None:
    model = own.make(name, WRITE, prompt="so zzz {question} . bad", question_max_tokens=2)
    longer, short = model.question("a </s> one one one"), model.question("a </s>")
    assert longer == short
    assert len(longer) == model.max_lengths().question_tokens


def test_cut_texts_are_counted() -> None:
    model = own.make("t5", WRITE, question_max_tokens=2, answer_max_tokens=2)
    assert model.cut_texts(["a good one", "so bad", "a a a"], ["pos", "neg neg"]) == CutTexts(questions=2, answers=1)
    labels = own.make("bert", LABEL, question_max_tokens=3)
    assert labels.cut_texts(["a good", "bad"], [], ["one", "so long one"]) == CutTexts(questions=1, answers=0)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_pair_has_its_separator_and_segments(name: str) -> None:
    model = own.make(name, LABEL, question_max_tokens=5)
    firsts, seconds = ["a good one", "bad"], ["so bad", "a very long and bad one"]
    batch = model.collate([], firsts, [], seconds)
    words = [model.tokens.tokenizer.convert_ids_to_tokens(row.tolist()) for row in batch["input_ids"]]
    assert words[0] == ["<s>", "a", "good", "one", "</s>", "so", "bad", "</s>"]
    assert len(words[1]) == 8, "both together at most five tokens, the longer one cut"
    assert words[1][:3] == ["<s>", "bad", "</s>"]
    if name == "bert":
        assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    else:
        assert "token_type_ids" not in batch, "ModernBERT has none"
    lengths = model.lengths(firsts, [], seconds)
    on_meta = model.meta_inputs(2, lengths, with_answers=False)
    assert {key: tuple(t.shape) for key, t in on_meta.items()} == {key: tuple(t.shape) for key, t in batch.items()}
    assert model.logits(batch).shape == (2, 2)


def test_texts_that_would_run_into_one_are_no_pair() -> None:
    model = own.make("bert", LABEL)
    model.tokens.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(SpecError, match=r"puts nothing between two texts.*remove data\.columns\.text_pair"):
        model.collate([], ["a"], [], ["good"])
