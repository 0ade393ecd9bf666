"""Gated linear attention: bad values and tags."""

import re
from typing import Any

import pytest

from hybridlab.mixers.linear.gla import GLA


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 0}, "heads=0: must be a whole number of at least 1"),
        ({"chunk": 48}, "chunk=48: must be a power of two"),
        ({"expand_k": 0.3}, "expand_k=0.3: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"expand_v": 0.0}, "expand_v=0.0: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"expand_v": -1.0}, "expand_v=-1.0: times the width, 64, must be a multiple of heads, 4, above 0"),
        ({"heads": 64}, "expand_k=0.5: times the width, 64, must be a multiple of heads, 64, above 0"),
        ({"temperature": 0.0}, "temperature=0.0: must be a number above 0"),
    ],
    ids=str,
)
def test_bad_values_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GLA(width=64, **settings)


def test_tags_what_takes_no_decay_and_keeps_its_initialisation() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in GLA(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {"decay_bias": (False, False), "norm": (False, False)}
