"""Every input that decides a result is in a cell's id or in a digest: change the content of any file, and it reruns.

The settings models are enumerated, so that a new field that names a file fails here until a probe covers it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from PIL import Image
from pydantic import BaseModel

from bench import registry
from bench.execution import inputs
from bench.execution.inputs import inputs_of, why_not_done
from bench.methods.common import library
from bench.plugins.settings import LocalPathMark
from bench.spec.cell import Cell
from bench.spec.sections import EvaluateSettings, RunSettings, TrainSettings
from tests import factories
from tests.datasets.conftest import rad
from tests.factories import make_record
from tests.sweeps import make_cell

Files = Mapping[str, str | bytes]
Key = tuple[str, str, str]
"""Kind of plugin, its name, dotted field."""

DECIDE_NOTHING = {
    ("train", "", "save_model"),  # where a run writes
    ("trackers", "tensorboard", "folder"),
    ("datasets", "slake", "manifest"),  # refuse images, and change none; which images there are is digested
    ("datasets", "slake", "verify"),
    ("datasets", "*", "follow_links"),
}
PLAIN = {
    ("datasets", "*", "train_split"),
    ("datasets", "*", "test_split"),
    ("datasets", "table", "encoding"),
    ("datasets", "table", "delimiter"),
    ("datasets", "hub", "configuration"),
    ("datasets", "*", "revision"),
    ("models", "*", "revision"),
    ("models", "*", "weights.revision"),
    ("models", "hf", "prompt"),
    ("models", "timm", "architecture"),
    ("models", "miss", "weights.name"),
    ("methods", "*", "adapter_config"),
}
"""Texts that mean what they say: in the id as they stand, as is the content of an ``adapter_config``. A revision goes
with a repository whose files are digested."""
REPOSITORIES: set[Key] = {
    ("models", "hf", "id"),
    ("models", "timm", "weights.id"),
    ("models", "miss", "weights.id"),
    *(("datasets", name, "id") for name in ("hub", "slake_hub", "vqa_rad_hub")),
    ("datasets", "hub", "data_files"),
}
"""Ids on the Hub, or folders in the same layout: digested as what lies there (tests/models, tests/datasets)."""
DISCRIMINATORS = {"name", "family", "type", "kind", "peft_type"}


def text_fields(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted fields that hold a text or a path of the user's choice; whether it is marked as a path."""
    for name, field in settings.model_fields.items():
        marked = any(isinstance(mark, LocalPathMark) for mark in _marks(field.metadata, field.annotation))
        kinds = set(_types(field.annotation))
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from text_fields(kind, f"{prefix}{name}.")
        if marked or kinds & {str, Path}:
            yield f"{prefix}{name}", marked


def _marks(metadata: list[Any], annotation: Any) -> Iterator[Any]:
    yield from metadata
    for option in get_args(annotation):
        yield from _marks(list(getattr(option, "__metadata__", ())), option)


def _types(annotation: Any) -> Iterator[Any]:
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for option in inner:
        if not isinstance(option, str | int | float | bool):
            yield from _types(option)


def fields() -> dict[Key, bool]:
    found: dict[Key, bool] = {}
    for kind in ("models", "datasets", "tasks", "trackers"):
        for name in registry.names(kind):
            settings = factories.plugin(kind, name).Settings
            found |= {(kind, name, field): marked for field, marked in text_fields(settings)}
    for name, settings in (("train", TrainSettings), ("evaluate", EvaluateSettings), ("run", RunSettings)):
        found |= {(name, "", field): marked for field, marked in text_fields(settings) if "trackers" not in field}
    return found


def test_every_field_that_names_a_file_is_covered() -> None:
    probed = {(probe.kind, probe.name, field) for probe in PROBES for field in probe.fields}
    for key, marked in fields().items():
        kind, _, field = key
        covered = {key, (kind, "*", field)} & (probed | REPOSITORIES | DECIDE_NOTHING)
        assert not marked or covered, f"{key} names a file: add a probe of its content"
        if marked or field.rpartition(".")[2] in DISCRIMINATORS:
            continue
        plain = {key, (kind, "*", field)} & PLAIN or kind in ("tasks", "trackers")
        containers = re.search(r"(^|\.)(columns|label_names|labels|parts|arguments|config)($|\.)", field)
        assert covered or plain or containers, f"{key} is a text: say whether it may name a file"


# --- a probe of each field: files are made, the settings name them, and each file is changed ------------------------

CONFIG = json.dumps({"model_type": "bert", "hidden_size": 16})
BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json", "chat_template.jinja", "adapter_config.json"),
    "additional_chat_templates/tool.jinja",
)


def picture(colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "BMP")
    return buffer.getvalue()


def vocabularies() -> list[str]:
    """Names of the files that any tokenizer of the installed library reads."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    sources = Path(spec.submodule_search_locations[0], "models").glob("*/tokenization_*.py")
    blocks = (
        found for path in sources for found in re.findall(r"VOCAB_FILES_NAMES = \{(.*?)\}", path.read_text(), re.S)
    )
    return sorted({name for block in blocks for name in re.findall(r':\s*"([^"/]+\.\w+)"', block)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    kind: str
    name: str
    fields: tuple[str, ...]
    settings: Callable[[Path], dict[str, Any]]
    files: Files
    """Names below the probe's folder, and contents; each decides the result."""
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Files that are there and decide nothing."""


def slake(split: str) -> str:
    record = {"qid": 1, "img_name": f"{split}/source.jpg", "question": "q", "answer": "a"}
    return json.dumps([record | {"answer_type": "OPEN", "q_lang": "en"}])


RAD: Files = {
    "r/VQA_RAD Dataset Public.json": json.dumps(
        [
            rad(1, "synpic1.jpg", "is it", "yes", "CLOSED"),
            rad(2, "synpic2.jpg", "has it", "no", "CLOSED", "test_freeform"),
        ]
    ),
    "r/images/synpic1.jpg": picture(),
    "r/images/synpic2.jpg": picture(),
}
HF: Files = dict.fromkeys([*BESIDE, *vocabularies()], CONFIG)
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
ADAPTER: Files = dict.fromkeys(("l/adapter_config.json", "l/adapter_model.safetensors"), "{ }")
PROBES = [
    Probe(
        kind="models", name="hf", fields=("path",), settings=lambda at: {"path": at},
        files={**HF, "model.safetensors": "w"},
    ),
    Probe(
        kind="models", name="hf", fields=("path",), settings=lambda at: {"path": at, "random_weights": True},
        files=HF, unread={"model.safetensors": "w"},
    ),
    Probe(
        kind="models", name="hf", fields=("path",), settings=lambda at: {"path": at},
        files={
            "config.json": CONFIG,
            "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}),
            **dict.fromkeys(SHARDS, "w"),
        },
    ),
    Probe(
        kind="models", name="hf", fields=("path",), settings=lambda at: {"path": at},
        files={"own.safetensors": "w"},
        unread={
            "config.json": json.dumps({"model_type": "bert", "transformers_weights": "own.safetensors"}),
            "model.safetensors": "not read",
        },
    ),
    Probe(
        kind="models", name="hf", fields=("tokenizer",), files={"t/tokenizer.json": "{}"},
        settings=lambda at: {"config": json.loads(CONFIG), "tokenizer": str(at / "t")},
    ),
    Probe(
        kind="models", name="hf", fields=("tokenizer",), files={"t/tokenizer.json": "{}", "m/config.json": CONFIG},
        settings=lambda at: {"path": at / "m", "tokenizer": str(at / "t")},
        unread={"m/model.safetensors": "w", "m/tokenizer.json": "{}"},
    ),
    Probe(
        kind="models", name="timm", fields=("weights.path",), files={"config.json": "{}", "model.safetensors": "w"},
        settings=lambda at: {"architecture": "resnet18", "weights": {"kind": "folder", "path": at}},
    ),
    Probe(
        kind="models", name="timm", fields=("weights.path",), files={"a.safetensors": "w"},
        settings=lambda at: {"architecture": "resnet18", "weights": {"kind": "file", "path": at / "a.safetensors"}},
    ),
    Probe(
        kind="models", name="miss", fields=("weights.path",), settings=lambda at: {"weights": _folder(at)},
        files={"config.json": "{}", "model.safetensors": "w", "vocab.txt": "a"},
    ),
    Probe(
        kind="models", name="miss", fields=("weights.path", "weights.vocab"),
        settings=lambda at: {"weights": {"kind": "checkpoint", "path": at / "a.pth", "vocab": at / "v"}},
        files={"a.pth": "w", "v/vocab.txt": "a"},
    ),
    Probe(
        kind="models", name="miss", fields=("weights.adapter",), settings=lambda at: {"weights": _adapted(at, "jtm")},
        files={"a.pth": "w", **ADAPTER}, unread={"vocab.txt": "a"},
    ),
    Probe(
        kind="models", name="ofa", fields=("weights.path",), settings=lambda at: {"weights": _folder(at)},
        files={"model.safetensors": "w", "words.txt": "a"},
    ),
    Probe(
        kind="models", name="ofa", fields=("weights.path", "weights.tokenizer"),
        settings=lambda at: {"weights": {"kind": "checkpoint", "path": at / "a.pt", "tokenizer": at / "b"}},
        files={"a.pt": "w"} | dict.fromkeys(("b/encoder.json", "b/vocab.bpe", "b/dict.txt"), "a"),
    ),
    Probe(
        kind="datasets", name="image_folder", fields=("root",), settings=lambda at: {"root": at},
        files=dict.fromkeys(("train/cat/0.bmp", "test/cat/0.bmp"), picture()),
    ),
    Probe(
        kind="datasets", name="table", fields=("files",), files=dict.fromkeys(("train.csv", "test.csv"), "t,l\na,x\n"),
        settings=lambda at: {
            "files": {split: at / f"{split}.csv" for split in ("train", "test")},
            "columns": {"text": "t", "label": "l"},
        },
    ),
    Probe(
        kind="datasets", name="table", fields=("file", "image_root"),
        settings=lambda at: {
            "file": at / "a.csv", "test_share": 0.5, "image_root": at / "images",
            "columns": {"image": "i", "label": "l"},
        },
        files={
            "a.csv": "i,l\n" + "".join(f"{i}.bmp,x\n" for i in range(6)),
            **{f"images/{i}.bmp": picture() for i in range(6)},
        },
    ),
    Probe(
        kind="datasets", name="vqa_rad", fields=("root",), settings=lambda at: {"root": at / "r"}, files=RAD,
    ),
    Probe(
        kind="datasets", name="slake", fields=("root",), settings=lambda at: {"root": at},
        files={
            **{f"{split}.json": slake(split) for split in ("train", "validate", "test")},
            **{f"imgs/{split}/source.jpg": picture() for split in ("train", "validate", "test")},
        },
    ),
    Probe(
        kind="datasets", name="mile_instruction", fields=("root", "test_root"),
        settings=lambda at: {"root": at / "i", "evaluate_on": "vqa_rad", "test_root": at / "r"},
        files={
            **RAD,
            "i/instruction_data.json": json.dumps(
                [{"qid": "9", "img_name": "vqa-rad/synpic9.jpg", "answer": "a", "question_pool": ["{what} is it"]}]
            ),
            "i/image/vqa-rad/synpic9.jpg": picture(),
        },
    ),
]  # fmt: skip


def _folder(at: Path) -> dict[str, Any]:
    return {"kind": "folder", "path": at}


def _adapted(at: Path, part: str) -> dict[str, Any]:
    return {"kind": "checkpoint", "path": at / "a.pth", "adapter": {part: at / "l"}}


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def cell_with(probe: Probe, folder: Path) -> Cell:
    models = probe.kind == "models"
    settings = {"family" if models else "name": probe.name} | probe.settings(folder)
    content = make_cell("ok").model_dump(mode="json") | {"model" if models else "data": settings}
    return Cell.model_validate(json.loads(json.dumps(content, default=str)))


def changed(content: bytes, suffix: str) -> bytes:
    if content[:2] == b"BM":
        return picture((0, 0, 255))
    if suffix == ".json" and content[:1] in b"[{" and len(content) > 2:
        return b" " + content
    return content.replace(b"x", b"y") if suffix == ".csv" else bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.name} {probe.fields[-1]}")
def test_a_cell_reruns_when_a_file_changes(tmp_path: Path, probe: Probe) -> None:
    folder = write(tmp_path / "files", {**probe.files, **probe.unread})
    cell = cell_with(probe, folder)
    (now,) = inputs_of([cell]).values()
    record = make_record(cell, cuda=False, data_digest=now.data_digest, weights_digest=now.weights_digest)
    assert why_not_done(record, now) is None
    for name in probe.files:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(changed(before, Path(name).suffix))
        (other,) = inputs_of([cell]).values()
        assert why_not_done(record, other) in ("stale (data changed)", "stale (weights changed)"), name
        (folder / name).write_bytes(before)
    assert inputs_of([cell]) == {cell.cell_id: now}


def test_the_part_that_an_adapter_is_on_counts(tmp_path: Path) -> None:
    (probe,) = (probe for probe in PROBES if probe.fields == ("weights.adapter",))
    cell = cell_with(probe, write(tmp_path, {**probe.files, **probe.unread}))
    weights = cell.model.model_dump(mode="json") | {"weights": _adapted(tmp_path, "dec")}
    other = Cell.model_validate(json.loads(json.dumps(cell.model_dump(mode="json") | {"model": weights}, default=str)))
    assert inputs.weights_digest(cell) != inputs.weights_digest(other)


def test_files_that_methods_name_are_digested(tmp_path: Path) -> None:
    """Saved prompts, tokenizers and statistics: whatever a field of the library's methods names."""
    saved = write(tmp_path, {"p.bin": "1", "t/vocab.txt": "1"})
    methods = {
        "A": {"type": "peft_config", "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2,
              "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": str(saved / "t")},
        "B": {"type": "peft_config", "peft_type": "LORA", "corda_config": {"covariance_file": str(saved / "p.bin")}},
    }  # fmt: skip
    cell = Cell.model_validate(make_cell("ok").model_dump(mode="json") | {"methods": methods})
    first = inputs.weights_digest(cell)
    for name in ("p.bin", "t/vocab.txt"):
        write(saved, {name: "2"})
        assert inputs.weights_digest(cell) != first
        write(saved, {name: "1"})
    assert inputs.weights_digest(cell) == first


def test_no_field_of_the_library_names_a_file_unseen() -> None:
    """Of the installed peft: a new field about a path fails here until ``inputs`` knows it."""
    unseen = []
    for name in library.types():
        helps = {
            f.name: f.metadata.get("help", "") for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)])
        }
        for key, field in library.method(name).own_fields.items():
            about = re.search(r"\b(path|paths|file)\b", f"{key} {helps[key]}".replace("_", " ").lower())
            texts = "str" in str(field.annotation) or "dict" in str(field.annotation).lower()
            if about and texts and not inputs.METHOD_FILES.search(key):
                unseen.append((name, key))
    assert unseen == []


def test_records_of_earlier_versions_are_of_the_same_data(root: Path, shared_data: Path) -> None:
    """Which took the names and sizes of images: those that everybody has are known by their contents."""
    roots: dict[str, dict[str, Any]] = {"easy_vqa": {}, "vqa_rad": {"root": shared_data / "vqa_rad"}}
    for (name, settings), spec in zip(roots.items(), ("table1", "vqa_rad_small"), strict=True):
        (path,) = (root / "results" / "gallery" / spec).glob("*.jsonl")
        stored = json.loads(path.read_text(encoding="utf-8").splitlines()[0])["data_digest"]
        plugin = factories.plugin("datasets", name)
        assert plugin.digest(plugin.Settings(name=name, **settings)) == stored


def test_a_changed_image_of_a_published_set_is_seen(tmp_path: Path, shared_data: Path) -> None:
    plugin, root = factories.plugin("datasets", "vqa_rad"), tmp_path / "copy"
    shutil.copytree(shared_data / "vqa_rad", root)
    settings = plugin.Settings(name="vqa_rad", root=root)
    before = plugin.digest(settings)
    image = next((root / "images").glob("synpic*.jpg"))
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    assert plugin.digest(settings) != before
