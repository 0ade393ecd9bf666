"""Sizes that matching set are no choices of an author."""

from hybridlab.records.matched_sizes import without_matched

MAMBA2 = {
    "stack.groups.all.mixer": "mamba2",
    "stack.groups.all.settings.mamba2._target_": "hybridlab.mixers.ssm.mamba2.Mamba2",
    "stack.groups.all.settings.mamba2.state": 120,
    "stack.groups.all.settings.mamba2.conv_size": 4,
    "stack.channel.expansion": 2.6687,
}
WINDOW = {
    "stack.groups.all.settings.sliding._target_": "hybridlab.mixers.sparse.sliding.Sliding",
    "stack.groups.all.settings.sliding.window": 64,
}


def test_the_sizes_of_an_unmatched_stack_are_choices():
    assert without_matched({**MAMBA2, "stack.match": None}) == ({**MAMBA2, "stack.match": None}, {})


def test_a_fitted_size_is_derived_and_the_rest_is_declared():
    declared, derived = without_matched({**MAMBA2, "stack.match": "params"})
    assert derived == {"stack.groups.all.settings.mamba2.state": 120, "stack.channel.expansion": 2.6687}
    assert {**declared, **derived} == {**MAMBA2, "stack.match": "params"}


def test_a_size_that_has_no_parameters_is_fitted_to_state_only():
    declared, derived = without_matched({**WINDOW, "stack.match": "params"})
    assert (derived, len(declared)) == ({}, 3)
    _, derived = without_matched({**WINDOW, "stack.match.state": "gla"})
    assert derived == {"stack.groups.all.settings.sliding.window": 64}
