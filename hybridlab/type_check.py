"""Whether a plain value, as YAML or JSON holds it, fits a type hint."""

import types
import typing
from typing import Any

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits a hint made of int, float, str, bool, None, list, dict and their
    unions.

    A whole number fits `float`; true and false fit neither `int` nor `float`. The items of lists
    and mappings are not checked. Every value fits a hint of any other kind.

    >>> fits(3, float | None), fits(True, int), fits([1], list[str])
    (True, False, True)
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(hint))
    hint = typing.get_origin(hint) or hint
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) and hint in _WORDS else True


def in_words(hint: Any) -> str:
    """Return what a hint allows, in the words of an error message.

    >>> in_words(float | None)
    'a number or null'
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not int or float not in typing.get_args(hint)]
        return " or ".join(map(in_words, parts))
    return _WORDS.get(typing.get_origin(hint) or hint, str(hint))
