"""SLAKE from the Hub: the annotation files as tables, the images in ``imgs.zip`` beside them; CC BY 4.0.

The same questions and splits as ``slake`` (the Hub's ``validation`` is ``validate`` here, too).
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.datasets import slake
from bench.datasets.common import files, hub, images, records
from bench.errors import DataError
from bench.plugins.contracts import Example

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = {"train": "train.json", "validate": "validation.json", "test": "test.json"}
ARCHIVE = "imgs.zip"
MAX_BYTES = 100_000_000
"""Larger files in the archive are not unpacked."""


class SlakeHubSettings(hub.HubSettings):
    """Files ``train.json``, ``validation.json``, ``test.json`` and ``imgs.zip``."""

    name: Literal["slake_hub"]
    id: str = "BoKelvin/SLAKE"
    """Id on the Hub, or a local folder in the same layout."""
    language: slake.Language = "en"
    """Which questions."""


Settings = SlakeHubSettings


def digest(settings: SlakeHubSettings) -> str:
    """See ``DataPlugin.digest``; takes the seconds that loading takes."""
    return load(settings).digest()


def load(settings: SlakeHubSettings) -> ZippedImages:
    """See ``DataPlugin.load``."""
    return hub.once(settings, lambda: _load(settings))


def _load(settings: SlakeHubSettings) -> ZippedImages:
    found = hub.load_splits(settings, FILES)
    splits = {}
    for split, table in found.splits.items():
        source = f"{settings.id} ({split})"
        splits[split] = slake.examples_of(source, records.records_of(source, table), settings.language)
    return ZippedImages(splits, _archive(settings))


def _archive(settings: SlakeHubSettings) -> Path:
    if Path(settings.id).is_dir():
        return Path(settings.id) / ARCHIVE
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(settings.id, ARCHIVE, repo_type="dataset", revision=settings.revision))
    except (OSError, ValueError) as error:
        raise hub.unavailable(settings, error) from error


def _places(archive: Path, members: Iterable[str], names: set[str]) -> dict[str, str]:
    """Image name -> where it is in the archive: below ``imgs/``, another folder or none. Raises DataError if an image
    is there twice."""
    depth = max((name.count("/") for name in names), default=0) + 1
    places: dict[str, str] = {}
    for member in members:
        name = "/".join(member.split("/")[-depth:])
        if name not in names or member.startswith("__MACOSX/"):
            continue
        if name in places:
            raise DataError(f"{archive}: has the image {name} twice, as {places[name]} and {member}; remove one")
        places[name] = member
    return places


class ZippedImages(files.Splits):
    """``OpenedData`` on images in an archive, which is not unpacked."""

    def __init__(self, splits: Mapping[str, Sequence[Example]], archive: Path) -> None:
        super().__init__(splits)
        self._path = archive
        try:
            self._archive = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{archive}: cannot be read as a zip archive: {error}") from error
        names = {example.image_name for split in splits.values() for example in split}
        self._places = _places(archive, self._archive.namelist(), names)
        missing = sorted(names - set(self._places))
        if missing:
            raise DataError(f"{archive}: {len(missing)} of {len(names)} images are missing; the first is {missing[0]}")

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        place = self._places[example.image_name]
        where = f"{self._path}: {place} (question {example.question_id})"
        info = self._archive.getinfo(place)
        if info.file_size > MAX_BYTES:
            raise DataError(f"{where}: unpacks to more than {MAX_BYTES:,} bytes")
        try:
            data = self._archive.read(info)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise DataError(f"{where}: cannot be unpacked: {error}") from error
        return images.decode_image(data, where, self.kept_notes)

    def digest(self) -> str:
        """SHA-256 over all questions and answers, and the archive's names, sizes and checksums."""
        sha = hashlib.sha256(files.examples_text(self._splits).encode())
        for info in sorted(self._archive.infolist(), key=lambda info: info.filename):
            sha.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\n".encode())
        return sha.hexdigest()
