"""Parsers for the command line: from the text of an option to its value."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "above_zero",
    "comma",
    "confident",
    "cut",
    "folder",
    "fraction",
    "fractions",
    "name_among",
    "names_among",
    "numbers",
    "port",
    "positive",
    "shard",
    "step",
    "threshold",
    "whole",
]


def comma(values: str) -> list[str]:
    """Split at the commas."""
    return [value.strip() for value in values.split(",")]


def names_among(known: list[str]) -> Callable[[str], list[str]]:
    """Make a parser for known names, separated by commas; neither case nor hyphens matter."""
    plain = {_plain(name): name for name in known}

    def parse(values: str) -> list[str]:
        named = comma(values)
        for name in named:
            if _plain(name) not in plain:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return list(dict.fromkeys(plain[_plain(name)] for name in named))

    return parse


def name_among(known: list[str]) -> Callable[[str], str]:
    """Make a parser for one known name; neither case nor hyphens matter."""

    def parse(value: str) -> str:
        return names_among(known)(value.replace(",", " "))[0]

    return parse


def _plain(name: str) -> str:
    return re.sub("[-_ ]", "", name.lower())


def numbers(count: int | None, *, above_zero: bool = False) -> Callable[[str], list[float]]:
    """Make a parser for ``count`` numbers separated by commas, or for at least one if ``count`` is None."""

    def parse(values: str) -> list[float]:
        try:
            parsed = [float(value) for value in values.split(",")]
        except ValueError:
            parsed = []
        if not parsed or len(parsed) != (count or len(parsed)) or not all(map(math.isfinite, parsed)):
            wanted = {
                None: "a list of numbers separated by commas",
                1: "a number",
                2: "two numbers separated by a comma",
                3: "three numbers separated by commas",
            }
            raise argparse.ArgumentTypeError(f"{values!r} is not {wanted[count]}")
        if above_zero and min(parsed) <= 0:
            raise argparse.ArgumentTypeError(f"{values!r}: must be above 0")
        return parsed

    return parse


def positive(value: str) -> int:
    """Parse a positive whole number."""
    if not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive whole number")
    return int(value)


def port(value: str) -> int:
    """Parse the number of a port that any user may open."""
    if not value.isdigit() or not 1024 <= int(value) <= 65535:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port, 1024 to 65535")
    return int(value)


def whole(value: str) -> int:
    """Parse a whole number, 0 or above."""
    if not value.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, 0 or above")
    return int(value)


def above_zero(value: str) -> float:
    """Parse a number above 0."""
    return numbers(1, above_zero=True)(value)[0]


def fraction(value: str) -> float:
    """Parse a number in [0, 1)."""
    return _fractions(value, 1)[0]


def fractions(value: str) -> list[float]:
    """Parse two numbers in [0, 1); the first must not be greater than the second."""
    found = _fractions(value, 2)
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(f"{value!r}: the first must not be greater than the second")
    return found


def confident(value: str) -> list[float] | str:
    """Parse "best", one number in [0, 1), or two, of which the first must not be greater than the second."""
    if value == "best":
        return value
    return fractions(value) if "," in value else [fraction(value)]


def _fractions(value: str, count: int) -> list[float]:
    try:
        found = numbers(count)(value)
    except argparse.ArgumentTypeError:
        found = []
    if not found or not all(0 <= number < 1 for number in found):
        wanted = {1: "a number in [0, 1)", 2: "two numbers in [0, 1) separated by a comma"}
        raise argparse.ArgumentTypeError(f"{value!r} is not {wanted[count]}")
    return found


def step(value: str) -> float:
    """Parse a number above 0 and below 1."""
    found = fraction(value)
    if not found:
        raise argparse.ArgumentTypeError(f"{value!r} is not above 0")
    return found


def threshold(value: str) -> float | None:
    """Parse a number in [0, 1), or "best", which gives None."""
    return None if value == "best" else fraction(value)


def cut(value: str) -> float | str:
    """Parse a number in [0, 1), or "otsu"."""
    if value == "otsu":
        return value
    try:
        return fraction(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or otsu") from error


def shard(value: str) -> tuple[int, int]:
    """Parse a shard, such as 3/16: its number, from 1, and the number of shards."""
    index, _, count = value.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{value!r} is not a shard such as 3/16, from 1/16 to 16/16")
    return int(index), int(count)


def folder(path: str) -> Path:
    """Parse the path of a folder to write to."""
    if Path(path).exists() and not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a file; give a folder")
    return Path(path)
