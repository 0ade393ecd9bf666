"""Every mixer against layers that were not written for it: outputs and all gradients; their table
in docs/mixers.md."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference, all_references
from tests.mixers.reference_table import committed, table
from tests.mixers.references.llama import Llama
from tests.mixers.subject import CONF

CASES = [
    pytest.param(
        each,
        number,
        id=f"{each.mixer}-{each.__name__}-{','.join(f'{key}={value}' for key, value in settings.items())}",
        marks=[pytest.mark.slow] if each.slow else [],
    )
    for each in all_references()
    for number, settings in enumerate(each.cases)
]


@pytest.mark.parametrize(("reference", "case"), CASES)
def test_layer_is_that_of_the_reference(reference: type[Reference], case: int) -> None:
    if reference.package is not None:
        try:
            version(reference.package)
        except PackageNotFoundError:
            pytest.skip(f"{reference.package} is not installed: it comes with hybridlab[test]")
    assert reference.largest_difference(reference.cases[case]) <= reference.bound


class HalfGradient(Llama):
    """A layer with the outputs of ours, but half the gradient through its keys."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer.k_proj.register_forward_hook(lambda _, __, keys: keys / 2 + keys.detach() / 2)


class Incomplete(Llama):
    """A layer that leaves one of our weights as it is."""

    def weights(self) -> Mapping[str, Tensor]:
        weights = dict(super().weights())
        del weights["out.weight"]
        return weights


class Unused(Llama):
    """A layer with a weight that nothing depends on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.idle = nn.Parameter(torch.ones(3))


def test_what_would_pass_unseen_is_refused() -> None:
    settings = Llama.cases[0]
    assert HalfGradient.largest_difference(settings) > 1e-3
    with pytest.raises(AssertionError, match=re.escape("out.weight")):
        Incomplete.largest_difference(settings)
    with pytest.raises(AssertionError, match=re.escape("nothing depends on ['idle']")):
        Unused.largest_difference(settings)


def test_every_mixer_has_a_reference() -> None:
    named = {file.stem for file in CONF.glob("*.yaml")} - {"identity"}
    assert {each.mixer for each in all_references()} == named


def test_the_docs_have_the_table_of_all_references() -> None:
    """Its differences were measured on one machine; they must have been within the bounds."""
    rows, present = (text.splitlines()[2:] for text in (committed(), table(lambda _: "-")))
    assert [without_figures(row) for row in rows] == [without_figures(row) for row in present]
    for row in rows:
        difference, bound = (float(cell) for cell in row.split(" | ")[3:5])
        assert difference <= bound


def without_figures(row: str) -> str:
    """Return a row without its difference and the versions of packages."""
    cells = row.split(" | ")
    return " | ".join([cells[0], re.sub(r"(, \S+) \d+\.[\w.]+$", r"\1", cells[1]), cells[2], *cells[4:]])
