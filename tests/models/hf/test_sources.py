"""Where transformers models come from: folders, the Hub's cache, configurations; and what is said where one fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.errors import SpecError, WeightsError
from bench.models import hf
from bench.models.hf import architectures, files
from bench.plugins.contracts import TaskFacts
from tests.models.hf import models as tiny
from tests.models.hf.models import ASK, LABEL, LOOK, QUESTIONS, WRITE

NAME = "somebody/tiny-bert"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny-bert"
    hf.save(tiny.make("bert", LABEL), path)
    return path


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub lays it out, with the model as its revision ``main`` and no network."""
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    return repository / "snapshots" / commit


def build(task: TaskFacts = LABEL, device: str = "cpu", **given: Any) -> Any:
    return hf.build(hf.Settings(family="hf", **given), texts=tiny.TEXTS, device=device, task=task)


def test_an_id_is_taken_from_the_cache_without_a_network(folder: Path, cache: Path) -> None:
    model = build(id=NAME)
    rows = zip(tiny.predict(model, LABEL, QUESTIONS), tiny.predict(build(path=folder), LABEL, QUESTIONS), strict=True)
    assert all(one.equal(other) for one, other in rows)
    given = hf.Settings(family="hf", id=NAME)
    assert hf.weights_digest(given) == hf.weights_digest(hf.Settings(family="hf", path=folder))
    assert given.describe() == f"hf {NAME}"
    on_meta = build(id=NAME, device="meta")
    assert on_meta.has_vocabulary
    (cache / "model.safetensors").unlink()
    assert build(id=NAME, random_weights=True).has_vocabulary
    with pytest.raises(WeightsError, match=f"hf download {NAME} --local-dir"):
        build(id=NAME)


def test_an_id_that_is_not_here_says_how_to_get_it(cache: Path) -> None:  # noqa: ARG001
    with pytest.raises(WeightsError, match=rf"did you mean '{NAME}'.*hf download somebody/tiny-brt --revision v1"):
        build(id="somebody/tiny-brt", revision="v1")
    facts = hf.parts(hf.Settings(family="hf", id="somebody/tiny-brt"), LABEL)
    assert set(facts) == set(hf.PARTS), "a spec can be checked without the model"


def test_the_digest_follows_every_file_that_counts(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    given = hf.Settings(family="hf", path=copy)
    first = hf.weights_digest(given)
    assert first == hf.weights_digest(hf.Settings(family="hf", path=folder))
    (copy / "README.md").write_text("words")
    assert hf.weights_digest(given) == first
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        path = copy / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert hf.weights_digest(given) != first
        path.write_bytes(before)
    assert hf.weights_digest(tiny.settings("bert")) is None
    shapes = hf.Settings(family="hf", path=copy, random_weights=True)
    without = hf.weights_digest(shapes)
    assert without not in (None, first), "of the configuration and the tokenizer"
    (copy / "model.safetensors").unlink()
    assert hf.weights_digest(shapes) == without


def test_weights_in_shards(tmp_path: Path) -> None:
    model = tiny.make("bert", LABEL)
    model.base.save_pretrained(tmp_path, max_shard_size="20KB")
    model.tokens.tokenizer.save_pretrained(tmp_path)
    shards = files.weights_in(tmp_path)
    assert len(shards) > 1
    again = build(path=tmp_path)
    assert tiny.predict(again, LABEL, QUESTIONS)[0].equal(tiny.predict(model, LABEL, QUESTIONS)[0])
    shards[1].unlink()
    with pytest.raises(WeightsError, match=f"lacks {shards[1].name}"):
        build(path=tmp_path)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("model.safetensors", "no weights in .*random_weights: true"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, lost: str, message: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / lost).unlink()
    with pytest.raises(WeightsError, match=message):
        build(path=tmp_path / "copy")
    if lost != "config.json":
        assert build(path=tmp_path / "copy", device="meta").has_vocabulary == (lost != "tokenizer.json")


def test_a_folder_that_is_not_there_has_near_names(folder: Path) -> None:
    with pytest.raises(WeightsError, match="did you mean 'tiny-bert'"):
        build(path=folder.parent / "tiny-brt")


def test_a_config_file_stands_for_its_content(folder: Path, tmp_path: Path) -> None:
    given = hf.Settings(family="hf", config=str(folder / "config.json"))
    assert given.config == json.loads((folder / "config.json").read_text())
    assert given.describe() == "hf bert, random weights"
    model = hf.build(given, texts=tiny.TEXTS, device="cpu", task=LABEL)
    assert model.base.config.hidden_size == 32
    (tmp_path / "other.json").write_text("{}")
    for path, message in ((tmp_path / "other.json", "names no model_type"), (tmp_path / "none.json", "No such file")):
        with pytest.raises(ValidationError, match=message):
            hf.Settings(family="hf", config=str(path))


def test_a_tokenizer_of_ones_own(folder: Path) -> None:
    model = build(config={"model_type": "bert", **tiny.CONFIGS["bert"]}, tokenizer=str(folder))
    assert model.base.config.vocab_size == len(model.tokens)
    config = {"model_type": "bert", "vocab_size": 5, **tiny.CONFIGS["bert"]}
    with pytest.raises(SpecError, match=r"tokens, the model only vocab_size 5"):
        build(config=config, tokenizer=str(folder))
    with pytest.raises(WeightsError, match="no folder"):
        build(config=config, tokenizer="./nowhere")


@pytest.mark.parametrize(("model_type", "task"), [("t5", WRITE), ("bart", WRITE), ("gpt2", WRITE), ("roberta", LABEL)])
def test_special_tokens_of_a_new_model_are_those_of_its_words(model_type: str, task: TaskFacts) -> None:
    model = tiny.make(model_type, task)
    config, tokens = model.base.config, model.tokens
    assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (tokens.pad, tokens.end, 2)
    first = {"t5": tokens.pad, "bart": tokens.end}.get(model_type)
    assert getattr(config, "decoder_start_token_id", None) == first
    assert config.vocab_size == len(tokens)


def test_words_are_read_and_written_back() -> None:
    from bench.models.hf.tokens import HfTokens, build_word_tokenizer

    texts = ["Is 3.5 (mm) enough? Yes, it's so.", "line\nline"]
    tokens = HfTokens(build_word_tokenizer(texts))
    assert [tokens.tokenizer.decode(tokens.encode(text), skip_special_tokens=True) for text in texts] == [
        texts[0],
        "line \n line",
    ]
    assert tokens.cut("so so so", 2) == "so so"


def test_a_text_cut_within_a_character_is_no_longer_than_asked_for() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from bench.models.hf.tokens import HfTokens

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer: Any = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrap: Any = PreTrainedTokenizerFast
    tokens = HfTokens(wrap(tokenizer_object=tokenizer, eos_token="!"))
    assert len(tokens.encode("日本")) == 6
    assert [tokens.cut("日本", longest) for longest in (6, 5, 4, 3)] == ["日本", "日", "日", "日"]


@pytest.mark.parametrize(
    ("config", "task", "message"),
    [
        ({"model_type": "brt"}, LABEL, r"'brt' is unknown.*did you mean 'bert'.*trust_remote_code"),
        ({"model_type": "vit"}, LABEL, r"no class of 'vit' for task 'label'"),
        ({"model_type": "bert"}, LOOK, r"no class of 'bert' for task 'look'.*did you mean 'beit'"),
        ({"model_type": "vilt"}, ASK, r"no class of 'vilt'"),
        (
            {"model_type": "bert"},
            TaskFacts(name="odd", inputs=("image", "text"), output="label"),
            r"no kind of model for task 'odd'.*it does text -> label",
        ),
    ],
)
def test_a_task_that_an_architecture_cannot_do(config: dict[str, Any], task: TaskFacts, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        hf.parts(hf.Settings(family="hf", config=config), task)


def test_an_unknown_field_has_near_names() -> None:
    with pytest.raises(SpecError, match=r"BertConfig has no field 'hiden_size'; did you mean 'hidden_size'"):
        build(config={"model_type": "bert", "hiden_size": 3}, device="meta")
    with pytest.raises(SpecError, match=r"text_config: BlipTextConfig has no field 'hiden_size'"):
        build(ASK, config={"model_type": "blip", "text_config": {"hiden_size": 3}}, device="meta")
    with pytest.raises(SpecError, match=r"^model.config: .*'hidden_size'.* expected int.*; correct the field$"):
        build(config={"model_type": "bert", "hidden_size": "3"}, device="meta")


def test_the_librarys_lists_are_read_as_it_has_them() -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    texts = ("CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "MASKED_LM")
    for name in (*texts, "IMAGE_CLASSIFICATION", "IMAGE_TEXT_TO_TEXT", "VISUAL_QUESTION_ANSWERING"):
        assert set(architectures.classes(name)) == set(getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES"))
    assert set(architectures.model_types()) == set(CONFIG_MAPPING)
