"""Strings of words of the training speech: digits, numbers, letters, commands, and what is said on telephones.

A string is a list of the words of its label; the spoken form is what a synthesiser reads, with letters by their names.
"""

from __future__ import annotations

import numpy as np

from demo.number_words import ONES, TENS, cardinal, ordinal, year

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple(ONES[:10])
_COMMANDS = (
    "yes no on off up down left right stop go start pause play next previous open close volume louder quieter forward backward follow "
    "learn happy house marvin sheila tree visual wow bed bird cat dog light lights music door window call cancel repeat help hello "
    "back home menu select delete save turn set timer alarm increase decrease lamp kitchen bedroom mute answer record message thanks"
)
COMMANDS = tuple(_COMMANDS.split())
_PHRASES = (
    "turn left|turn right|turn on the light|turn off the light|turn off the music|volume up|volume down|go back|go forward|go home|"
    "play music|stop the music|next page|previous page|open the door|close the door|open the window|set an alarm|set a timer|"
    "start recording|stop recording|call back|help me|turn up the volume|turn down the volume|switch on the lamp|pause the music|"
    "please wait|try again|good morning|good night|thank you|lights on|lights off|yes please|no thanks|repeat the message|"
    "cancel the call|delete the message|save and close|select all|bed and house|cat and dog"
)
PHRASES = tuple(_PHRASES.split("|"))
_NUMBERS = ("hundred", "thousand", "million", "and", "oh", "point", "dollars", "cents")
STRING_WORDS = {*LETTERS, *COMMANDS, *ONES, *TENS, *_NUMBERS, *(word for phrase in PHRASES for word in phrase.split())}

# Said alone, nobody can tell them from a word of the strings, which is what is meant then.
_SOUND_LIKE = (
    "too to for fore won ate be bee see sea are you ewe why oh owe tea tee queue cue jay kay pea pee gee eye aye know write rite clothes "
    "knight lite tern sense scents buy bye by thyme weight ell em en es"
)
SOUND_LIKE_STRING_WORDS = frozenset(_SOUND_LIKE.split())
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday"
_SPELLING = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo sierra tango uniform "
    "victor whiskey yankee zulu"
)
_SIGNS = "star pound hash dash dot slash comma colon plus minus equals percent at space quote underscore"
MONTHS, DAYS, SPELLING, SIGNS = (tuple(words.split()) for words in (_MONTHS, _DAYS, _SPELLING, _SIGNS))
KEYS = ("press", "dial", "enter", "extension", "number")
_PLACES = {word for number in (*range(1, 32), *range(40, 110, 10)) for word in ordinal(number).split()}
TELEPHONE_WORDS = {*MONTHS, *DAYS, *SPELLING, *SIGNS, *KEYS, *_PLACES, "the", "of"}


def word_string(rng: np.random.Generator) -> list[str]:
    """A string of 1 to about 12 words: digits, numbers, letters, commands, phrases, or several of them."""
    makers = (_digits, _digits, _number, _letters, _commands, _commands, _phrase, _mixed)
    return makers[rng.integers(len(makers))](rng)


def single_word(rng: np.random.Generator) -> str:
    """One word of the strings, digits and letters most often."""
    words = (DIGITS, LETTERS, COMMANDS, (*ONES, *TENS, "hundred", "thousand"))[rng.choice(4, p=(0.35, 0.3, 0.2, 0.15))]
    return words[rng.integers(len(words))]


def _digits(rng: np.random.Generator) -> list[str]:
    names = (*DIGITS[1:], "oh") if rng.random() < 0.25 else DIGITS
    return [names[index] for index in rng.integers(0, 10, rng.integers(1, 10))]


def _letters(rng: np.random.Generator) -> list[str]:
    return [LETTERS[index] for index in rng.integers(0, 26, rng.integers(1, 8))]


def _commands(rng: np.random.Generator) -> list[str]:
    return [COMMANDS[index] for index in rng.integers(0, len(COMMANDS), rng.integers(1, 6))]


def _phrase(rng: np.random.Generator) -> list[str]:
    return PHRASES[rng.integers(len(PHRASES))].split()


def _number(rng: np.random.Generator) -> list[str]:
    kind = rng.integers(6)
    number = int(10 ** rng.uniform(1, 6))
    if kind == 0:
        return year(int(rng.integers(1100, 2100))).split()
    if kind == 1:
        return [*cardinal(int(rng.integers(1, 100))).split(), "dollars", "and", *cardinal(int(rng.integers(2, 100))).split(), "cents"]
    if kind == 2:
        return [*cardinal(int(rng.integers(0, 100))).split(), "point", *_digits(rng)[:3]]
    if kind == 3:
        return [*cardinal(int(rng.integers(1, 13))).split(), *cardinal(int(rng.integers(10, 60))).split()]  # a time of day
    return cardinal(number if kind == 4 else number % 1000, with_and=bool(rng.integers(2))).split()


def _mixed(rng: np.random.Generator) -> list[str]:
    makers = (_digits, _number, _letters, _commands, _phrase)
    first, second = rng.choice(len(makers), 2, replace=False)
    joined = makers[first](rng)[:4] + makers[second](rng)[:4]
    return [word for word in joined if word != "oh"]  # next to letters "oh" could be either


def telephone_string(rng: np.random.Generator) -> list[str]:
    """What is hardest of what people say to telephones: letters, words said several times, dates, the spelling alphabet, keys."""
    makers = (_letters, _letters, _letters, _repeated, _date, _date, _spelling, _spelling, _keys)
    return makers[rng.integers(len(makers))](rng)


def _repeated(rng: np.random.Generator) -> list[str]:
    """Digits, letters or commands, of which some come two to four times."""
    words = (_digits, _letters, _commands)[rng.integers(3)](rng)[:5]
    counts = [int(rng.integers(2, 5)) if rng.random() < 0.4 else 1 for _ in words]
    return [word for word, count in zip(words, counts, strict=True) for _ in range(count)]


def _date(rng: np.random.Generator) -> list[str]:
    """A place in a row, a month or a day, alone or together."""
    place = ordinal(int(rng.integers(1, 32)) if rng.random() < 0.8 else int(rng.integers(1, 11)) * 10).split()
    month, day = MONTHS[rng.integers(12)], DAYS[rng.integers(len(DAYS))]
    forms = (place, [month], [day], [month, *place], [day, month, *place], ["the", *place, "of", month])
    return forms[rng.integers(len(forms))]


def _spelling(rng: np.random.Generator) -> list[str]:
    return [SPELLING[index] for index in rng.integers(0, len(SPELLING), rng.integers(1, 6))]


def _keys(rng: np.random.Generator) -> list[str]:
    """What a telephone's menu asks for: "press star six nine"."""
    signs = [SIGNS[index] for index in rng.integers(0, len(SIGNS), rng.integers(1, 4))]
    before = [KEYS[rng.integers(len(KEYS))]] if rng.random() < 0.5 else []
    return [*before, *signs, *(_digits(rng)[:4] if rng.random() < 0.5 else [])]


def spoken_word(word: str) -> str:
    """How to write one word of a string so that every synthesiser says it: a letter by its name."""
    if word in LETTERS:
        return "eigh" if word == "a" else word.upper()  # several voices read a lone "A" as the article
    return word


def spoken_string(words: list[str], rng: np.random.Generator) -> str:
    """One spoken line for a string of words, with commas between some of them."""
    phrase = " ".join(words) in PHRASES
    commas = 0.0 if phrase else float(rng.choice([0.0, 0.3, 1.0]))
    # In a phrase "a" is the article, elsewhere the letter.
    said = list(words) if phrase else [spoken_word(word) for word in words]
    line = said[0]
    for word in said[1:]:
        line += (", " if rng.random() < commas else " ") + word
    return line[0].upper() + line[1:] + "."
