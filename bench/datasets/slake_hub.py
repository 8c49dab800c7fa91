"""SLAKE from the Hub: the annotation files as tables, the images in ``imgs.zip`` beside them; CC BY 4.0.

The same questions and splits as ``slake`` (the Hub's ``validation`` is ``validate`` here, too).
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.datasets import slake
from bench.datasets.common.dataset import DataSet, encode_examples
from bench.datasets.common.hub import HubSettings, HubTables, opened_once
from bench.datasets.common.images import decode_image
from bench.errors import DataError
from bench.plugins import Example

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = {"train": "train.json", "validate": "validation.json", "test": "test.json"}
ARCHIVE = "imgs.zip"
MAX_BYTES = 100_000_000
"""Larger files in the archive are not unpacked."""


class SlakeHubSettings(HubSettings):
    """Files ``train.json``, ``validation.json``, ``test.json`` and ``imgs.zip``."""

    name: Literal["slake_hub"]
    id: str = "BoKelvin/SLAKE"
    """Id on the Hub, or a local folder in the same layout."""
    language: slake.Language = "en"
    """Language of the questions."""


Settings = SlakeHubSettings


def digest(settings: SlakeHubSettings) -> str:
    """SHA-256 over questions, answers and the archive's list; as slow as loading."""
    return load(settings).digest()


@opened_once
def load(settings: SlakeHubSettings) -> DataSet:
    """The three splits. Raises DataError for broken records and for images that the archive lacks or has twice."""
    hub = HubTables(settings, FILES)
    splits = {s: slake.examples_of(hub.source(s), list(hub.rows(s)), settings.language) for s in hub.tables}
    path = _archive_path(settings)
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a zip archive: {error}") from error
    places = _places(path, archive.namelist(), {e.image_name for split in splits.values() for e in split})

    def image(example: Example) -> Image:
        info = archive.getinfo(places[example.image_name])
        where = f"{path}: {info.filename} (question {example.question_id})"
        if info.file_size > MAX_BYTES:  # a zip bomb
            raise DataError(f"{where}: unpacks to more than {MAX_BYTES:,} bytes")
        try:
            content = archive.read(info)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise DataError(f"{where}: cannot be unpacked: {error}") from error
        return decode_image(content, where, hub.notes)

    def digest() -> str:
        sha = hashlib.sha256(encode_examples(splits))
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            sha.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\n".encode())
        return sha.hexdigest()

    return DataSet(splits=splits, image=image, digest=digest, kept_notes=hub.notes)


def _archive_path(settings: SlakeHubSettings) -> Path:
    if Path(settings.id).is_dir():
        return Path(settings.id) / ARCHIVE
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(settings.id, ARCHIVE, repo_type="dataset", revision=settings.revision))
    except (OSError, ValueError) as error:
        raise settings.unavailable(error) from error


def _places(archive: Path, members: Iterable[str], names: set[str]) -> dict[str, str]:
    """Image name -> path in the archive. Raises DataError if an image is missing or there twice."""
    # Archives differ in the folder above the images: ``imgs/``, another one or none.
    depth = max((name.count("/") for name in names), default=0) + 1
    places: dict[str, str] = {}
    for member in members:
        name = "/".join(member.split("/")[-depth:])
        if name not in names or member.startswith("__MACOSX/"):  # there macOS keeps metadata under the same names
            continue
        if name in places:
            raise DataError(f"{archive}: has the image {name} twice, as {places[name]} and {member}; remove one")
        places[name] = member
    missing = sorted(names - set(places))
    if missing:
        raise DataError(f"{archive}: {len(missing)} of {len(names)} images are missing; the first is {missing[0]}")
    return places
