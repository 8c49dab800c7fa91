"""Sources of weights that several families share. Imports no torch."""

from __future__ import annotations

from typing import Protocol

from bench.plugins.settings import LocalPath, Settings


class HubWeights(Settings):
    """A repository on the Hugging Face Hub; the local cache works offline."""

    id: str
    revision: str | None = None
    """Branch, tag or commit; null: the default branch."""

    def describe(self) -> str:
        """Id and revision, for captions."""
        return f"{self.id} at {self.revision}" if self.revision else self.id


class LocalWeights(Settings):
    """A file or folder of weights."""

    path: LocalPath

    def describe(self) -> str:
        """Name of the file or folder, for captions."""
        return self.path.name


class _Source(Protocol):
    def describe(self) -> str: ...


def describe_model(family: str, name: str, weights: _Source | None) -> str:
    """``miss base, weights Salesforce/blip-vqa-base``."""
    return f"{family} {name}, " + (f"weights {weights.describe()}" if weights else "random weights")
