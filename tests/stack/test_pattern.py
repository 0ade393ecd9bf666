import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.stack.pattern import expand_pattern


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("full", ["full"]),
        ("(mamba2 mamba2 full)x2 sliding", ["mamba2", "mamba2", "full", "mamba2", "mamba2", "full", "sliding"]),
        ("((a b)x2 c)x2", ["a", "b", "a", "b", "c"] * 2),
        ("(a)", ["a"]),
        ("(a)x0 b", ["b"]),
        ("  a   b ", ["a", "b"]),
    ],
)
def test_a_pattern_expands_to_its_list(text, names):
    assert expand_pattern(text) == names


@pytest.mark.parametrize("text", ["(a", "a)", "a,b", "(a)x", "a x2)", "2a", "(a))"])
def test_a_broken_pattern_is_refused(text):
    with pytest.raises(ValueError, match=r"cannot be read|without its"):
        expand_pattern(text)


@given(st.lists(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), min_size=1), st.integers(1, 4))
def test_a_list_and_its_spelling_agree(names, times):
    assert expand_pattern(" ".join(names)) == names
    assert expand_pattern(f"({' '.join(names)})x{times}") == names * times
