"""scikit-learn's digits, as they are installed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from bench.datasets import digits
from bench.datasets.common import dataset
from bench.errors import DataError

SETTINGS = digits.Settings(name="digits")


def test_splits_are_fixed_and_stratified() -> None:
    data = digits.load(SETTINGS)
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (1_433, 364)
    assert {e.question_id for e in train}.isdisjoint(e.question_id for e in test)
    for split, lowest, highest in ((train, 139, 146), (test, 35, 37)):
        counts = Counter(e.answer for e in split)
        assert sorted(counts) == [str(digit) for digit in range(10)]
        assert lowest <= min(counts.values()) <= max(counts.values()) <= highest
    assert [e.question_id for e in train[:3]] == ["0", "1", "2"]
    assert not any(e.questions for e in train)
    assert data.texts() == [str(digit) for digit in range(10)]


def test_images_are_the_packages_pixels() -> None:
    from sklearn.datasets import load_digits

    data = digits.load(SETTINGS)
    example = data.split("test")[7]
    image = data.image(example)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    for x, y in ((3, 0), (4, 5), (0, 0)):
        level = round(load_digits().images[int(example.question_id)][y][x] * 255 / 16)
        assert image.getpixel((x, y)) == (level, level, level)
    assert image.getextrema()[0] == (0, 255)


def test_digest_is_stable_and_does_not_import_the_package() -> None:
    code = "import sys; from bench.datasets import digits as d; print(d.digest(d.Settings(name='digits')))"
    code += "; assert not {'sklearn', 'numpy', 'PIL'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == digits.digest(SETTINGS)


def test_absent_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match="pip install"):
        digits.load(SETTINGS)
