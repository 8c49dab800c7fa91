"""Transformers models that read a text: they learn, write and label, and padding changes nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from bench.errors import AuditError, BenchError, SpecError, WeightsError
from bench.models import hf
from bench.plugins.contracts import CutTexts, GenerateOptions, TaskFacts
from bench.training.audit import check_evaluation, check_gradients
from bench.training.data import Batch
from tests.models.hf import models as tiny
from tests.models.hf.models import ANSWERS, LABEL, QUESTIONS, WORDS, WRITE
from tests.training.runs import make_run

WRITERS = ("gpt2", "llama", "opt", "t5", "bart", "bert")
LABELLERS = ("bert", "roberta", "modernbert", "gpt2", "llama", "t5", "bart")
KINDS = [*((name, WRITE) for name in WRITERS), *((name, LABEL) for name in LABELLERS)]
BOTH = pytest.mark.parametrize(("name", "task"), KINDS, ids=lambda v: v if isinstance(v, str) else v.name)


def read(folder: Path, task: TaskFacts) -> Any:
    return tiny.build(hf.Settings(family="hf", path=folder), task)


@BOTH
def test_learns_answers_one_by_one_as_together_and_is_saved(name: str, task: TaskFacts, tmp_path: Path) -> None:
    model = tiny.make(name, task)
    tiny.put(model, dict.fromkeys(model.part_facts, "T"))
    first, last = tiny.train(model, lambda: tiny.loss(model, task))
    assert last < 0.3 * first
    together = tiny.predict(model, task, QUESTIONS)
    if task.output == "text":
        assert together == ANSWERS
    assert tiny.same(together, [tiny.predict(model, task, [question])[0] for question in QUESTIONS])
    hf.save(model, tmp_path / "saved")
    assert tiny.same(tiny.predict(read(tmp_path / "saved", task), task, QUESTIONS), together)

    check_lengths(tiny.make(name, task, question_max_tokens=4), task)


def check_lengths(model: Any, task: TaskFacts) -> None:
    lengths = model.lengths(QUESTIONS, ANSWERS)
    for answers in ([], ANSWERS if task.output == "text" else []):
        batch = model.collate([], QUESTIONS, answers)
        assert tiny.shapes(model.meta_inputs(4, lengths, with_answers=bool(answers))) == tiny.shapes(batch)
        if answers:
            assert [int((row != -100).sum()) for row in batch["labels"]] == [2] * 4, "a word and the end"
    assert model.lengths(["bad " * 50], ["neg " * 50]) == model.max_lengths()


def test_a_prompt_is_put_around_the_question() -> None:
    model = tiny.make("gpt2", WRITE, prompt="good {question} .", question_max_tokens=2)
    assert model.tokens.tokenizer.decode(model.question("a bad one"), skip_special_tokens=True) == "good a bad."


@pytest.mark.parametrize(("template", "written"), [("so {{ messages[0]['content'] }} .", "so bad."), ("so .", None)])
def test_a_chat_template_is_used(template: str, written: str | None, tmp_path: Path) -> None:
    tokenizer = tiny.make("gpt2", WRITE).tokens.tokenizer
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    if written is None:
        with pytest.raises(SpecError, match="leaves out what a user says"):
            tiny.make("gpt2", WRITE, tokenizer=str(tmp_path))
        return
    model = tiny.make("gpt2", WRITE, tokenizer=str(tmp_path), question_max_tokens=2)
    prompts = [model.tokens.tokenizer.decode(model.question(text)) for text in ("bad", "bad bad bad")]
    assert prompts == [written, "so bad bad."]


def test_a_head_for_other_labels_starts_anew_and_nothing_else(tmp_path: Path) -> None:
    hf.save(tiny.make("bert", LABEL), tmp_path)
    three = replace(LABEL, labels=("a", "b", "c"))
    assert tiny.predict(read(tmp_path, three), three, ["bad"])[0].shape == (3,)
    with pytest.raises(WeightsError, match=r"missing: cls\.predictions"):
        read(tmp_path, WRITE)


@pytest.mark.parametrize(
    ("name", "task", "most"), [("bert", LABEL, -2), ("roberta", LABEL, -3), ("gpt2", WRITE, -34), ("opt", WRITE, -34)]
)
def test_a_question_longer_than_the_table_of_positions_is_refused(name: str, task: TaskFacts, most: int) -> None:
    """Two tokens stand around a text, or one in front and one behind, with 32 for an answer; RoBERTa has one position
    less, behind its padding."""
    longest = tiny.make(name, task).base.config.max_position_embeddings + most
    model = tiny.make(name, task, question_max_tokens=longest)
    batch = model.collate([], ["bad " * 3000], ["good " * 300] if task is WRITE else [])
    assert batch["input_ids"].shape[1] == longest + (34 if task is WRITE else 2)
    model.model(**batch)
    with pytest.raises(SpecError, match=f"question_max_tokens is {longest + 1}, .* at most {longest}, or"):
        tiny.make(name, task, question_max_tokens=longest + 1)
    assert tiny.make("llama", WRITE, question_max_tokens=10**4)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_an_answer_ends_where_the_positions_do(name: str) -> None:
    """Without an end of sentence, so that the answer would go on; the table has 64 positions."""
    model = tiny.make(name, WRITE)
    model.base.generation_config.eos_token_id = None
    batch = model.collate([], QUESTIONS, [])
    for most in (3, 10_000):
        assert len(model.generate(batch, GenerateOptions(num_beams=1, max_new_tokens=most))) == len(QUESTIONS)


def test_a_part_that_is_not_there_is_named() -> None:
    model = tiny.make("bert", LABEL)
    with pytest.raises(SpecError, match=r"no part 'decoder', only embeddings, encoder, head"):
        tiny.put(model, {"decoder": "LoRA"}, LoRA=tiny.method("lora"))
    with pytest.raises(BenchError, match="decoder"):
        tiny.put(model, {"decoder": "T"})


def test_declared_parts() -> None:
    model = tiny.make("bert", LABEL, parts={"late": "bert.encoder.layer.1", "top": ["bert.pooler", "classifier"]})
    assert list(model.part_facts) == ["late", "top"]
    tiny.put(model, {"late": "LoRA", "top": "T"}, LoRA=tiny.method("lora", r=2))
    trained = {name for name, p in model.module.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained if "lora" not in name} == {"bert", "classifier"}
    assert all("layer.1." in name for name in trained if "lora" in name)
    with pytest.raises(SpecError, match="names no module"):
        tiny.make("bert", LABEL, parts={"late": "bert.encoder.layers.1"})


def test_a_text_is_cut_by_its_ids() -> None:
    model = tiny.make("bert", LABEL, question_max_tokens=6)
    for text in ("zzz yyy a good man so bad bad", "good <s> bad </s> a one bad bad", "zzz </s> a"):
        assert model.question(text) == [2, *model.tokens.encode(text, special=False)[:6], 3]
    assert model.question("zzz yyy a good man so bad")[1:3] == [1, 1], "unknown words stay"
    assert 3 in model.question("good </s> bad a a a a a")[1:-1], "a separator stays"


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_the_prompt_around_a_cut_question_stays(name: str) -> None:
    model = tiny.make(name, WRITE, prompt="so zzz {question} . bad", question_max_tokens=2)
    longer, short = model.question("a </s> one one one"), model.question("a </s>")
    assert longer == short
    assert len(longer) == model.max_lengths().question_tokens


def test_cut_texts_are_counted() -> None:
    model = tiny.make("t5", WRITE, question_max_tokens=2, answer_max_tokens=2)
    assert model.cut_texts(["a good one", "so bad", "a a a"], ["pos", "neg neg"]) == CutTexts(questions=2, answers=1)
    labels = tiny.make("bert", LABEL, question_max_tokens=3)
    assert labels.cut_texts(["a good", "bad"], [], ["one", "so long one"]) == CutTexts(questions=1, answers=0)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_pair_has_its_separator_and_token_types(name: str) -> None:
    model = tiny.make(name, LABEL, question_max_tokens=5)
    firsts, seconds = ["a good one", "bad"], ["so bad", "a very long and bad one"]
    batch = model.collate([], firsts, [], seconds)
    words = [model.tokens.tokenizer.convert_ids_to_tokens(row.tolist()) for row in batch["input_ids"]]
    assert words[0] == ["<s>", "a", "good", "one", "</s>", "so", "bad", "</s>"]
    assert len(words[1]) == 8, "both together at most five tokens, the longer one cut"
    assert words[1][:3] == ["<s>", "bad", "</s>"]
    types = batch["token_type_ids"][0].tolist() if name == "bert" else batch.get("token_type_ids")
    assert types == ([0, 0, 0, 0, 0, 1, 1, 1] if name == "bert" else None), "ModernBERT has none"
    lengths = model.lengths(firsts, [], seconds)
    assert tiny.shapes(model.meta_inputs(2, lengths, with_answers=False)) == tiny.shapes(batch)
    assert model.logits(batch).shape == (2, 2)


def test_texts_that_would_run_into_one_are_no_pair() -> None:
    model = tiny.make("bert", LABEL)
    model.tokens.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(SpecError, match=r"puts nothing between two texts.*remove data\.columns\.text_pair"):
        model.collate([], ["a"], [], ["good"])


_ONE = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_TWO_MODELS = {
    "model_type": "encoder-decoder",
    "encoder": {**_ONE, "intermediate_size": 32},
    "decoder": {**_ONE, "intermediate_size": 32, "is_decoder": True, "add_cross_attention": True},
}


class _Writes:
    facts = WRITE

    def predict(self, model: Any, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        answers: list[str] = model.generate(batch, options)
        return answers


@pytest.mark.parametrize("name", ["mbart", "plbart", "encoder-decoder", "fsmt", "bart", "t5"])
def test_training_starts_an_answer_as_generation_does(name: str) -> None:
    """Whatever the library's own shift of the labels does."""
    if transformers.__version__.startswith("5.17.") and name in ("encoder-decoder", "fsmt"):
        pytest.skip("this release builds the first from no configuration; the audit refuses the second")
    config = _TWO_MODELS if name == "encoder-decoder" else tiny.small(name)
    model = tiny.build(hf.Settings(family="hf", config=config), WRITE, WORDS)
    model.module.eval()
    question, answer = WORDS[0], f"{WORDS[1]} {WORDS[2]}"
    batch = model.collate([], [question], [])
    with torch.no_grad():
        first = model.model.generate(**batch, max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
        taught = model.model(**model.collate([], [question], [answer])).logits
    torch.testing.assert_close(taught[:, 0], first.logits[0], atol=1e-5, rtol=1e-4)
    task: Any = _Writes()
    options = GenerateOptions(num_beams=1, max_new_tokens=3)
    assert not check_evaluation(make_run(model, task, options, {}, {}), Batch(examples=(), tensors=batch))


@pytest.mark.parametrize(("name", "task"), [("big_bird", LABEL), ("xlnet", LABEL), ("luke", LABEL), ("led", WRITE)])
def test_tensors_without_a_part_in_the_loss_are_named_with_a_remedy_that_trains_the_rest(
    name: str, task: TaskFacts
) -> None:
    """A pooler, the vector of a hidden word, layers of entities, and attention of tokens that see all."""

    def backward(model: Any) -> None:
        questions = [" ".join(WORDS[:7]), " ".join(WORDS[5:25])]
        if task.output == "text":
            loss = model.loss(model.collate([], questions, WORDS[30:32]))
        else:
            loss = cross_entropy(model.logits(model.collate([], questions, [])), torch.tensor([0, 1]))
        loss.backward()

    model = tiny.make_small(name, task)
    parts = dict.fromkeys(model.part_facts, "T")
    tiny.put(model, parts)
    backward(model)
    with pytest.raises(AuditError, match="They take no part in this task's loss; train the rest: part") as refused:
        check_gradients(model)
    methods = {}
    for part, shown in re.findall(r"part (\w+): a method {type: subset, exclude: \[(.*?)\]}", str(refused.value)):
        parts[part] = f"{part}_rest"
        methods[parts[part]] = tiny.method("subset", exclude=[text.strip('"') for text in shown.split(", ")])
    again = tiny.make_small(name, task)
    tiny.put(again, parts, **methods)
    backward(again)
    check_gradients(again)
    left = {name for name, p in again.module.named_parameters() if not p.requires_grad}
    assert left == {name for name, p in model.module.named_parameters() if p.grad is None}
