"""Data sets that ship in packages: scikit-learn's digits and easy-VQA, as they are installed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from bench.datasets import digits, easy_vqa

DIGITS = digits.Settings(name="digits")


def test_digits_are_split_within_each_class() -> None:
    data = digits.load(DIGITS)
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (1_433, 364)
    for split, lowest, highest in ((train, 139, 146), (test, 35, 37)):
        counts = Counter(e.answer for e in split)
        assert sorted(counts) == [str(digit) for digit in range(10)]
        assert lowest <= min(counts.values()) <= max(counts.values()) <= highest
    assert [e.question_id for e in train[:3]] == ["0", "1", "2"]
    assert data.texts() == [str(digit) for digit in range(10)]


def test_digits_are_the_packages_pixels() -> None:
    from sklearn.datasets import load_digits

    data = digits.load(DIGITS)
    example = data.split("test")[7]
    image = data.image(example)
    assert image.size == (8, 8)
    for x, y in ((3, 0), (4, 5), (0, 0)):
        level = round(load_digits().images[int(example.question_id)][y][x] * 255 / 16)
        assert image.getpixel((x, y)) == (level, level, level)
    assert image.getextrema()[0] == (0, 255)


def test_the_digest_of_the_digits_does_not_import_the_package() -> None:
    code = "import sys; from bench.datasets import digits as d; print(d.digest(d.Settings(name='digits')))"
    code += "; assert not {'sklearn', 'numpy', 'PIL'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == digits.digest(DIGITS)


def test_easy_vqa_has_the_published_questions_and_images() -> None:
    data = easy_vqa.load(easy_vqa.Settings(name="easy_vqa"))
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (38_575, 9_673)
    assert len({e.answer for e in train}) == 13
    assert {e.answer for e in test if e.answer_type == "closed"} == {"yes", "no"}
    assert not {"yes", "no"} & {e.answer for e in test if e.answer_type == "open"}
    assert data.image(test[0]).size == (64, 64)
    assert {"teal", "what color is the shape?"} <= set(data.texts())
