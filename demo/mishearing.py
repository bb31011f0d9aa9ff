"""Words as a listener who cannot spell might take them down: letters that sound alike, and here and there a word torn apart."""

from __future__ import annotations

from numpy.random import Generator

# Spellings of one line may stand for each other; "-" is nothing at all, a letter that is not heard.
ALIKE = """
c k ck q
s c z ss
f ph ff v
t d tt
b p bb pp
g k gg j dge
m n mm nn
n kn nn
l ll
r rr
w wh
h -
e -
sh ti ch si
tion sion shun
th f d
a e o u i
ee ea ie e y i
ai ay a ei
oa ow o
ou ow
oo u ew ue
au aw o
er or ar ur ir re
igh i y ie
"""
LONGEST = 4  # letters of a spelling


def alternatives() -> dict[str, list[str]]:
    """Each spelling of ALIKE, and what it may be taken for."""
    found: dict[str, list[str]] = {}
    for line in ALIKE.split("\n"):
        for spelling in set(line.split()) - {"-"}:
            found.setdefault(spelling, []).extend(other.strip("-") for other in line.split() if other != spelling)
    return found


ALTERNATIVES = alternatives()


def misheard(word: str, rate: float, random: Generator) -> str:
    """The word; at a share `rate` of its letters another spelling begins, and behind a tenth as many it is torn apart.

    A word that falls silent altogether is left as it is.
    """
    heard, at = "", 0
    while at < len(word):
        here = [word[at : at + length] for length in range(1, LONGEST + 1) if word[at : at + length] in ALTERNATIVES]
        if here and random.random() < rate:
            spelling = here[random.integers(len(here))]
            others = ALTERNATIVES[spelling]
            heard, at = heard + others[random.integers(len(others))], at + len(spelling)
        else:
            heard, at = heard + word[at] + " " * (random.random() < rate / 10), at + 1
    return " ".join(heard.split()) or word
