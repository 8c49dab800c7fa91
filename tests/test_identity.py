"""Every input that decides a result is in a cell's id or in a digest: change the content of any file, and it reruns.

The settings models are enumerated, so that a new field that names a file fails here until a probe covers it.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from pydantic import BaseModel

from bench import registry
from bench.execution import inputs
from bench.execution.inputs import inputs_of, why_not_done
from bench.methods import _library
from bench.plugins.settings import LocalPathMark
from bench.spec.cell import Cell
from bench.spec.sections import EvaluateSettings, RunSettings, TrainSettings
from tests.datasets.conftest import rad, write_json
from tests.factories import make_record
from tests.sweeps import make_cell

Place = tuple[str, str, str]
"""Kind of plugin, its name, dotted field."""

OUTPUTS = {
    ("train", "", "save_model"),
    ("trackers", "tensorboard", "folder"),
}
"""Where a run writes: decides nothing."""
CHECKS = {("datasets", "slake", "manifest"), ("datasets", "slake", "verify"), ("datasets", "*", "follow_links")}
"""Refuse images, and change none; which images there are is digested."""
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


def fields() -> dict[Place, bool]:
    found: dict[Place, bool] = {}
    for kind in ("models", "datasets", "tasks", "trackers"):
        for name in registry.names(kind):
            settings = registry.load(kind, name).Settings
            found |= {(kind, name, field): marked for field, marked in text_fields(settings)}
    for name, settings in (("train", TrainSettings), ("evaluate", EvaluateSettings), ("run", RunSettings)):
        found |= {(name, "", field): marked for field, marked in text_fields(settings) if "trackers" not in field}
    return found


def probed() -> set[Place]:
    return {(kind, name, field) for kind, name, field, *_ in PROBES}


def test_every_field_that_names_a_file_is_covered() -> None:
    for place, marked in fields().items():
        kind, _, field = place
        known = probed() | OUTPUTS | CHECKS
        assert not marked or place in known or (kind, "*", field) in CHECKS, (
            f"{place} names a file: add a probe of its content"
        )
        if marked or field.rpartition(".")[2] in DISCRIMINATORS:
            continue
        plain = place in PLAIN or (kind, "*", field) in PLAIN or kind in ("tasks", "trackers")
        containers = re.search(r"(^|\.)(columns|label_names|labels|parts|arguments|config)($|\.)", field)
        assert place in known or plain or containers, f"{place} is a text: say whether it may name a file"


# --- a probe of each field: files are made, the settings name them, and each file is changed ------------------------


def _folder(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def _bmp(path: Path, colour: tuple[int, int, int] = (255, 0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path)
    return path


def _csv(path: Path, *rows: tuple[str, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


CONFIG = json.dumps({"model_type": "bert", "hidden_size": 16})
BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json", "chat_template.jinja", "adapter_config.json"),
    "additional_chat_templates/tool.jinja",
)


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


def _hf_folder(folder: Path) -> Path:
    return _folder(folder, **{"config.json": CONFIG, "model.safetensors": "w", "tokenizer.json": "{}"})


def _hf_path(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _hf_folder(folder / "m")
    names = ["model.safetensors", *BESIDE, *vocabularies()]
    _folder(folder / "m", **{name.replace("/", "__"): CONFIG for name in names})
    return {"family": "hf", "path": folder / "m"}, [folder / "m" / name for name in names]


def _hf_shapes(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    settings, files = _hf_path(folder)
    return settings | {"random_weights": True}, [path for path in files if path.suffix != ".safetensors"]


def _hf_shards(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
    files = {"config.json": CONFIG, "model.safetensors.index.json": index} | dict.fromkeys(names, "w")
    _folder(folder, **files)
    return {"family": "hf", "path": folder}, [folder / name for name in files]


def _hf_named(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    config = json.dumps({"model_type": "bert", "transformers_weights": "own.safetensors"})
    _folder(folder, **{"config.json": config, "model.safetensors": "not read", "own.safetensors": "w"})
    return {"family": "hf", "path": folder}, [folder / "own.safetensors"]


def _hf_tokenizer(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder / "t", **{"tokenizer.json": "{}"})
    return {"family": "hf", "config": json.loads(CONFIG), "tokenizer": str(folder / "t")}, [folder / "t/tokenizer.json"]


def _hf_tokenizer_beside(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder / "t", **{"tokenizer.json": "{}"})
    _hf_folder(folder / "m")
    given = {"family": "hf", "path": folder / "m", "tokenizer": str(folder / "t")}
    return given, [folder / "t/tokenizer.json", folder / "m/config.json"]


def _timm_folder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder, **{"config.json": "{}", "model.safetensors": "w"})
    weights = {"kind": "folder", "path": folder}
    return {"family": "timm", "architecture": "resnet18", "weights": weights}, list(folder.iterdir())


def _timm_file(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder, **{"a.safetensors": "w"})
    weights = {"kind": "file", "path": folder / "a.safetensors"}
    return {"family": "timm", "architecture": "resnet18", "weights": weights}, list(folder.iterdir())


def _miss_folder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder, **{"config.json": "{}", "model.safetensors": "w", "vocab.txt": "a"})
    return {"family": "miss", "weights": {"kind": "folder", "path": folder}}, list(folder.iterdir())


def _miss_checkpoint(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder, **{"a.pth": "w", "v__vocab.txt": "a"})
    weights = {"kind": "checkpoint", "path": folder / "a.pth", "vocab": folder / "v"}
    return {"family": "miss", "weights": weights}, [folder / "a.pth", folder / "v/vocab.txt"]


def _miss_adapter(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    names = ("adapter_config.json", "adapter_model.safetensors")
    _folder(folder, **{"a.pth": "w", "vocab.txt": "a"} | {f"l__{name}": "{ }" for name in names})
    weights = {"kind": "checkpoint", "path": folder / "a.pth", "adapter": {"jtm": folder / "l"}}
    return {"family": "miss", "weights": weights}, [folder / "a.pth", *(folder / "l" / name for name in names)]


def _ofa_folder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    _folder(folder, **{"model.safetensors": "w", "words.txt": "a"})
    return {"family": "ofa", "weights": {"kind": "folder", "path": folder}}, list(folder.iterdir())


def _ofa_checkpoint(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    bpe = ("encoder.json", "vocab.bpe", "dict.txt")
    _folder(folder, **{"a.pt": "w"} | {f"b__{name}": "a" for name in bpe})
    weights = {"kind": "checkpoint", "path": folder / "a.pt", "tokenizer": folder / "b"}
    return {"family": "ofa", "weights": weights}, [folder / "a.pt", *(folder / "b" / name for name in bpe)]


def _image_folder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    files = [_bmp(folder / split / "cat" / "0.bmp") for split in ("train", "test")]
    return {"name": "image_folder", "root": folder}, files


def _table(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    files = {split: _csv(folder / f"{split}.csv", ("t", "l"), (split, "x")) for split in ("train", "test")}
    return {"name": "table", "files": files, "columns": {"text": "t", "label": "l"}}, list(files.values())


def _table_file(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    file = _csv(folder / "a.csv", ("i", "l"), *((f"{i}.bmp", "x") for i in range(6)))
    images = [_bmp(folder / "images" / f"{i}.bmp") for i in range(6)]
    given = {"file": file, "test_share": 0.5, "image_root": folder / "images", "columns": {"image": "i", "label": "l"}}
    return {"name": "table"} | given, images


def _rad(folder: Path, name: str = "r") -> tuple[Path, list[Path]]:
    root = folder / name
    records = [
        rad(1, "synpic1.jpg", "is it", "yes", "CLOSED"),
        rad(2, "synpic2.jpg", "has it", "no", "CLOSED", "test_freeform"),
    ]
    file = write_json(root / "VQA_RAD Dataset Public.json", records)
    return root, [file, _bmp(root / "images/synpic1.jpg"), _bmp(root / "images/synpic2.jpg")]


def _vqa_rad(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    root, files = _rad(folder)
    return {"name": "vqa_rad", "root": root}, files


def _slake(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    files = []
    for i, split in enumerate(("train", "validate", "test")):
        record = {
            "qid": i,
            "img_name": f"x{i}/source.jpg",
            "question": "q",
            "answer": "a",
            "answer_type": "OPEN",
            "q_lang": "en",
        }
        files += [write_json(folder / f"{split}.json", [record]), _bmp(folder / f"imgs/x{i}/source.jpg")]
    return {"name": "slake", "root": folder}, files


def _instruction(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    record = {"qid": "9", "img_name": "vqa-rad/synpic9.jpg", "answer": "a", "question_pool": ["{what} is it"]}
    own = write_json(folder / "i/instruction_data.json", [record])
    image = _bmp(folder / "i/image/vqa-rad/synpic9.jpg")
    root, files = _rad(folder)
    given = {"name": "mile_instruction", "root": folder / "i", "evaluate_on": "vqa_rad", "test_root": root}
    return given, [own, image, *files]


Probe = Callable[[Path], tuple[dict[str, Any], list[Path]]]
PROBES: list[tuple[str, str, str, Probe]] = [
    ("models", "hf", "path", _hf_path),
    ("models", "hf", "path", _hf_shapes),
    ("models", "hf", "path", _hf_shards),
    ("models", "hf", "path", _hf_named),
    ("models", "hf", "tokenizer", _hf_tokenizer),
    ("models", "hf", "tokenizer", _hf_tokenizer_beside),
    ("models", "timm", "weights.path", _timm_folder),
    ("models", "timm", "weights.path", _timm_file),
    ("models", "miss", "weights.path", _miss_folder),
    ("models", "miss", "weights.path", _miss_checkpoint),
    ("models", "miss", "weights.vocab", _miss_checkpoint),
    ("models", "miss", "weights.adapter", _miss_adapter),
    ("models", "ofa", "weights.path", _ofa_folder),
    ("models", "ofa", "weights.path", _ofa_checkpoint),
    ("models", "ofa", "weights.tokenizer", _ofa_checkpoint),
    ("datasets", "image_folder", "root", _image_folder),
    ("datasets", "table", "files", _table),
    ("datasets", "table", "file", _table_file),
    ("datasets", "table", "image_root", _table_file),
    ("datasets", "vqa_rad", "root", _vqa_rad),
    ("datasets", "slake", "root", _slake),
    ("datasets", "mile_instruction", "root", _instruction),
    ("datasets", "mile_instruction", "test_root", _instruction),
]
REPOSITORIES: list[Place] = [
    ("models", "hf", "id"),
    ("models", "timm", "weights.id"),
    ("models", "miss", "weights.id"),
    *(("datasets", name, "id") for name in ("hub", "slake_hub", "vqa_rad_hub")),
    ("datasets", "hub", "data_files"),
]
"""Ids on the Hub, or folders in the same layout: digested as what lies there (tests/models, tests/datasets)."""
PROBES += [(kind, name, field, lambda _: ({}, [])) for kind, name, field in REPOSITORIES]


def _cell(settings: dict[str, Any], kind: str) -> Cell:
    content = make_cell("ok").model_dump(mode="json") | {"model" if kind == "models" else "data": settings}
    return Cell.model_validate(json.loads(json.dumps(content, default=str)))


@pytest.mark.parametrize(
    ("kind", "probe"),
    list(dict.fromkeys((kind, probe) for kind, _, _, probe in PROBES if probe.__name__ != "<lambda>")),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_cell_reruns_when_a_file_changes(tmp_path: Path, kind: str, probe: Probe) -> None:
    """Each file is changed to as many other bytes."""
    settings, files = probe(tmp_path / "files")
    cell = _cell(settings, kind)
    (now,) = inputs_of([cell]).values()
    record = make_record(cell, cuda=False, data_digest=now.data_digest, weights_digest=now.weights_digest)
    assert why_not_done(record, now) is None
    for file in files:
        before = file.read_bytes()
        _change(file)
        (changed,) = inputs_of([cell]).values()
        assert why_not_done(record, changed) in ("stale (data changed)", "stale (weights changed)"), file.name
        file.write_bytes(before)
    (now,) = inputs_of([cell]).values()
    assert why_not_done(record, now) is None


def test_the_part_that_an_adapter_is_on_counts(tmp_path: Path) -> None:
    settings, _ = _miss_adapter(tmp_path)
    other = settings | {"weights": settings["weights"] | {"adapter": {"dec": tmp_path / "l"}}}
    assert inputs.weights_digest(_cell(settings, "models")) != inputs.weights_digest(_cell(other, "models"))


def _change(file: Path) -> None:
    content = file.read_bytes()
    if content[:2] == b"BM":
        _bmp(file, (0, 0, 255))
    elif file.suffix == ".json" and len(content) > 2:
        file.write_bytes(b" " + content if content[:1] in b"[{" else content)
    elif file.suffix == ".csv":
        file.write_bytes(content.replace(b",x", b",y"))
    else:
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert file.read_bytes() != content


def test_files_that_methods_name_are_digested(tmp_path: Path) -> None:
    """Saved prompts, tokenizers and statistics: whatever a field of the library's methods names."""
    saved = _folder(tmp_path, **{"p.bin": "1", "t__vocab.txt": "1"})
    methods = {
        "A": {"type": "peft_config", "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2,
              "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": str(saved / "t")},
        "B": {"type": "peft_config", "peft_type": "LORA", "corda_config": {"covariance_file": str(saved / "p.bin")}},
    }  # fmt: skip
    content = make_cell("ok").model_dump(mode="json") | {"methods": methods}
    cell = Cell.model_validate(content)
    first = inputs.weights_digest(cell)
    for name in ("p.bin", "t/vocab.txt"):
        (saved / name).write_text("2")
        assert inputs.weights_digest(cell) != first
        (saved / name).write_text("1")
    assert inputs.weights_digest(cell) == first


def test_no_field_of_the_library_names_a_file_unseen() -> None:
    """Of the installed peft: a new field about a path fails here until ``inputs`` knows it."""
    unseen = []
    for name in _library.types():
        for field in _library.method(name).fields.values():
            told = bool(re.search(r"\b(path|paths|file)\b", f"{field.name} {field.help}".replace("_", " ").lower()))
            texts = "str" in str(field.annotation) or "dict" in str(field.annotation).lower()
            if told and texts and not inputs.METHOD_FILES.search(field.name):
                unseen.append((name, field.name))
    assert [one for one in unseen if one[1] not in _library.NOT_OF_THE_METHOD] == []


def gallery_digest(root: Path, spec: str) -> str:
    (path,) = (root / "results" / "gallery" / spec).glob("*.jsonl")
    digest: str = json.loads(path.read_text(encoding="utf-8").splitlines()[0])["data_digest"]
    return digest


def test_records_of_earlier_versions_are_of_the_same_data(root: Path, shared_data: Path) -> None:
    """Which took the names and sizes of images: those that everybody has are known by their contents."""
    easy_vqa, vqa_rad = (registry.load("datasets", name) for name in ("easy_vqa", "vqa_rad"))
    assert easy_vqa.digest(easy_vqa.Settings(name="easy_vqa")) == gallery_digest(root, "table1")
    settings = vqa_rad.Settings(name="vqa_rad", root=shared_data / "vqa_rad")
    assert vqa_rad.digest(settings) == gallery_digest(root, "vqa_rad_small")


def test_a_changed_image_of_a_published_set_is_seen(tmp_path: Path, shared_data: Path) -> None:
    plugin, root = registry.load("datasets", "vqa_rad"), tmp_path / "copy"
    shutil.copytree(shared_data / "vqa_rad", root)
    settings = plugin.Settings(name="vqa_rad", root=root)
    before = plugin.digest(settings)
    image = next((root / "images").glob("synpic*.jpg"))
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    assert plugin.digest(settings) != before
