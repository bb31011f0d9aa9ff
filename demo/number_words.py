"""Numbers in English words."""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
ONES, TENS = _ONES.split(), _TENS.split()
LARGEST = 999_999_999
_IRREGULAR = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip


def cardinal(number: int, with_and: bool = True) -> str:
    """The words of 0 <= number <= LARGEST, "three hundred and five"; without `with_and` "three hundred five"."""
    if not 0 <= number <= LARGEST:
        raise ValueError(f"a number to be spoken must lie in 0..{LARGEST}, got {number}")
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            link = " and" if with_and and 0 < rest < 100 else ""
            return f"{cardinal(number // size, with_and)} {name}{link}" + (f" {cardinal(rest, with_and)}" if rest else "")
    raise AssertionError("every number from 100 up is at least one hundred")


def year(number: int) -> str:
    """A year as it is read: "nineteen eighty four", "nineteen oh five", "two thousand and six", "nineteen hundred"."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def ordinal(number: int) -> str:
    """The words of a place in a row, "twenty first"."""
    *before, last = cardinal(number).split()
    place = _IRREGULAR.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return " ".join([*before, place])
