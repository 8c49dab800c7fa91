"""What a reader of the scores must know about how the data were read; each matter said once for a whole data set."""

from __future__ import annotations


class Notes:
    """Collects matters by their text, each with one place where it was met."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def add(self, text: str, place: str = "") -> None:
        """``text`` is a sentence without its full stop; of several places the first by name is kept, so that the order
        in which examples are read changes nothing."""
        self._places[text] = min(self._places.get(text, place), place)

    def texts(self) -> list[str]:
        """One sentence per matter, sorted."""
        return sorted(f"{text} (e.g. {place})" if place else text for text, place in self._places.items())
