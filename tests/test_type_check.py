"""What fits a type hint, and how an error message names the hint."""

from typing import Any, Literal, Optional

import pytest

from hybridlab.type_check import fits, in_words


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (3.5, float),
        ("a", str),
        (True, bool),
        (None, type(None)),
        (None, int | None),
        (None, Optional[int]),  # noqa: UP045
        ([1], list),
        (["a"], list[int]),
        ({"a": 1}, dict[str, Any]),
        ("anything", Any),
        ("anything", Literal["a", "b"]),
    ],
)
def test_a_value_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (False, float),
        (3.0, int),
        ("3", int),
        (3, str),
        (1, bool),
        (None, int),
        ("a", int | None),
        ((1,), list[int]),
        ([], dict[str, Any]),
    ],
)
def test_a_value_does_not_fit(value, hint):
    assert not fits(value, hint)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (int | float | None, "a number or null"),
        (list[int] | None, "a list or null"),
        (dict[str, Any], "a mapping"),
    ],
)
def test_a_hint_in_words(hint, words):
    assert in_words(hint) == words
