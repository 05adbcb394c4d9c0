"""Real sentences: from the bodies of mails, as they stand there, of mixed lengths."""

from __future__ import annotations

import random
import re

from tests.real_models import mails


def bodies() -> list[tuple[str, str, str]]:
    """Group, subject and body of each mail that has both, quotations and signatures left out."""
    found = []
    for group, text in mails():
        head, _, body = text.partition("\n\n")
        subject = re.search(r"^Subject: (.*)$", head, re.MULTILINE)
        lines = [line for line in body.split("\n-- \n")[0].splitlines() if not line.startswith((">", "|"))]
        plain = re.sub(r"<[^>]{1,200}>", " ", "\n".join(lines))
        if subject and len(plain.split()) > 20:
            found.append((group, re.sub(r"^(re|fwd?): *", "", subject[1].strip(), flags=re.I), plain))
    return found


def sentences(n: int) -> list[str]:
    """n sentences and paragraphs, 3 to 200 words each, the same each time."""
    rng = random.Random(20261130)
    texts = bodies()
    rng.shuffle(texts)
    found: list[str] = []
    for _, _, body in texts:
        paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", body)]
        pieces = paragraphs + [s for p in paragraphs for s in re.split(r"(?<=[.!?]) ", p)]
        pieces = [piece for piece in pieces if 3 <= len(piece.split()) <= 200 and _is_prose(piece)]
        if pieces:
            found.append(rng.choice(pieces))
        if len(found) == n:
            break
    return found


def _is_prose(text: str) -> bool:
    """Whether most of it is letters, and words have lengths that words have."""
    letters = sum(character.isascii() and character.isalpha() for character in text)
    return len(text) < 1200 and letters > 0.7 * len(text) and max(map(len, text.split())) < 25
