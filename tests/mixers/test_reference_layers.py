"""Every mixer against layers that were not written for it: outputs and all gradients."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.mixers.reference import Reference, all_references

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
