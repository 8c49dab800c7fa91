"""Writes the samples beside it: reviews.csv (text classification) and phrases_*.jsonl (text generation).

    python specs/examples/data/make.py

They are made from short lists of words by the rules below and are in the public domain (CC0). Running this again writes
the same bytes.
"""

from __future__ import annotations

import csv
import json
import random
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SEED = 4
TEST_SHARE = 0.25

# --- reviews.csv: is a review of a restaurant positive, negative, or mixed? -----------------------------------
# Words alone do not tell: "not" turns an opinion round, "but" joins opposites in one sentence and corrects in another,
# and what others say does not count. Whatever is said in a test sentence (an adjective of a thing) is said in no
# training sentence, so that only what holds for all sentences of the kind can be learnt.
REVIEWS_PER_CLASS = {"train": 230, "test": 70}
CLASSES = ("positive", "negative", "mixed")
THINGS = ("soup", "salad", "bread", "fish", "steak", "pasta", "coffee", "wine", "cake", "service", "waiter", "music")
ADJECTIVES = {
    True: ("good", "great", "excellent", "lovely", "wonderful", "superb", "pleasant", "perfect"),
    False: ("bad", "awful", "terrible", "poor", "horrible", "disappointing", "unpleasant", "dreadful"),
}
OPINIONS = (  # the polarity of the adjective counts, or its opposite
    (True, "the {thing} was {word}"),
    (True, "the {thing} was really {word}"),
    (True, "we found the {thing} {word}"),
    (False, "the {thing} was not {word}"),
    (False, "the {thing} was never {word}"),
    (False, "the {thing} was anything but {word}"),
)
CORRECTIONS = (  # one thing, two opposite adjectives: the second counts
    "the {thing} was not {other} but {word}",
    "they say the {thing} is {other}, but it was {word}",
    "we expected a {other} {thing}, but it was {word}",
)
BOTH = ("{0} and {1}", "{0}; {1} too", "{0}, and also {1}")
OPPOSED = ("{0} but {1}", "although {0}, {1}", "{0} and {1}", "{0}; {1} though")


def reviews() -> list[dict[str, str]]:
    """Distinct sentences, as many of each class in each split as ``REVIEWS_PER_CLASS`` says."""
    rng = random.Random(SEED)
    said = [(thing, word) for thing in THINGS for polarity in (True, False) for word in ADJECTIVES[polarity]]
    held_out = set(rng.sample(said, int(TEST_SHARE * len(said))))
    rows: dict[str, dict[str, str]] = {}
    for split, count in REVIEWS_PER_CLASS.items():
        known = held_out if split == "test" else set(said) - held_out
        for label in CLASSES:
            wanted = len(rows) + count
            while len(rows) < wanted:
                text = review(rng, label, known)
                rows.setdefault(text, {"review": text, "opinion": label, "split": split})
    ordered = list(rows.values())
    rng.shuffle(ordered)
    return sorted(ordered, key=lambda row: row["split"], reverse=True)


def review(rng: random.Random, label: str, known: set[tuple[str, str]]) -> str:
    """A sentence of a class."""
    if label == "mixed":
        first = rng.random() < 0.5
        text = rng.choice(OPPOSED).format(opinion(rng, first, known), opinion(rng, not first, known))
    else:
        positive = label == "positive"
        one = rng.choice((opinion, correction))(rng, positive, known)
        text = one if rng.random() < 0.5 else rng.choice(BOTH).format(one, opinion(rng, positive, known))
    return text[0].upper() + text[1:] + "."


def opinion(rng: random.Random, positive: bool, known: set[tuple[str, str]]) -> str:
    """A clause that finds something good or bad."""
    plain, pattern = rng.choice(OPINIONS)
    thing, word = pick(rng, positive == plain, known)
    return pattern.format(thing=thing, word=word)


def correction(rng: random.Random, positive: bool, known: set[tuple[str, str]]) -> str:
    """A clause that first names what is not so."""
    thing, word = pick(rng, positive, known)
    return rng.choice(CORRECTIONS).format(thing=thing, word=word, other=rng.choice(ADJECTIVES[not positive]))


def pick(rng: random.Random, positive: bool, known: set[tuple[str, str]]) -> tuple[str, str]:
    """A thing and an adjective of this polarity that may be said of it."""
    return rng.choice(sorted(pair for pair in known if pair[1] in ADJECTIVES[positive]))


# --- phrases_*.jsonl: short phrases in French and Spanish --------------------------------------------------------
# Article and adjective follow the noun's gender, which must be remembered per noun and language. A test phrase joins a
# noun and an adjective that no training phrase joins, in either language; each of the two words is in training.
NOUNS = {  # French and Spanish, each with its gender
    "house": ("maison f", "casa f"),
    "book": ("livre m", "libro m"),
    "table": ("table f", "mesa f"),
    "cat": ("chat m", "gato m"),
    "car": ("voiture f", "coche m"),
    "flower": ("fleur f", "flor f"),
    "chair": ("chaise f", "silla f"),
    "dog": ("chien m", "perro m"),
    "shirt": ("chemise f", "camisa f"),
    "train": ("train m", "tren m"),
    "boat": ("bateau m", "barco m"),
    "key": ("clé f", "llave f"),
    "city": ("ville f", "ciudad f"),
    "bridge": ("pont m", "puente m"),
    "milk": ("lait m", "leche f"),
    "nose": ("nez m", "nariz f"),
    "tooth": ("dent f", "diente m"),
    "wall": ("mur m", "pared f"),
}
ADJECTIVE_FORMS = {  # French masculine and feminine, Spanish masculine and feminine
    "black": ("noir", "noire", "negro", "negra"),
    "white": ("blanc", "blanche", "blanco", "blanca"),
    "red": ("rouge", "rouge", "rojo", "roja"),
    "green": ("vert", "verte", "verde", "verde"),
    "yellow": ("jaune", "jaune", "amarillo", "amarilla"),
    "grey": ("gris", "grise", "gris", "gris"),
    "clean": ("propre", "propre", "limpio", "limpia"),
    "cold": ("froid", "froide", "frío", "fría"),
    "heavy": ("lourd", "lourde", "pesado", "pesada"),
    "dry": ("sec", "sèche", "seco", "seca"),
    "strange": ("étrange", "étrange", "extraño", "extraña"),
    "perfect": ("parfait", "parfaite", "perfecto", "perfecta"),
}
ARTICLES = ({"m": "le", "f": "la"}, {"m": "el", "f": "la"})
LANGUAGES = ("French", "Spanish")


def phrases() -> dict[str, list[dict[str, str]]]:
    """Split -> every noun with every adjective, in both languages; a share of the pairs is for testing."""
    rng = random.Random(SEED)
    pairs = list(product(NOUNS, ADJECTIVE_FORMS))
    held_out = set(rng.sample(pairs, int(TEST_SHARE * len(pairs))))
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for (noun, adjective), language in product(pairs, range(len(LANGUAGES))):
        word, gender = NOUNS[noun][language].split()
        form = ADJECTIVE_FORMS[adjective][2 * language + (gender == "f")]
        prompt = f"{LANGUAGES[language]}: the {adjective} {noun}"
        answer = f"{ARTICLES[language][gender]} {word} {form}"
        rows["test" if (noun, adjective) in held_out else "train"].append({"prompt": prompt, "answer": answer})
    for split in rows.values():
        rng.shuffle(split)
    return rows


def main() -> None:
    """Write the files."""
    with (FOLDER / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("review", "opinion", "split"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(reviews())
    for split, rows in phrases().items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (FOLDER / f"phrases_{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
