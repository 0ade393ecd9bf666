import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.records.run_id import CHANGES_NO_RESULT, identity_digest, identity_fields
from hybridlab.records.run_id import run_id as shortened
from tests.records.examples import MAPPINGS, VALUES


@settings(deadline=None, max_examples=50)
@given(MAPPINGS, st.randoms())
def test_the_order_of_keys_changes_nothing(config, random):
    assert re.fullmatch("[0-9a-f]{12}", run_id(config))
    assert run_id(_shuffled(config, random)) == run_id(config)


@settings(deadline=None, max_examples=50)
@given(MAPPINGS, st.sampled_from(sorted(CHANGES_NO_RESULT)), VALUES)
def test_what_changes_no_result_changes_no_id(config, path, value):
    config = {"trainer": {"max_steps": 3}, **config}
    if isinstance(config["trainer"], dict):
        assert run_id(_with(config, path, value)) == run_id(config)


@settings(deadline=None, max_examples=50)
@given(st.integers(), st.integers())
def test_everything_else_does(one, other):
    first, second = ({"seed": seed, "trainer": {"max_steps": 3}} for seed in (one, other))
    assert (run_id(first) == run_id(second)) == (one == other)


@pytest.mark.parametrize("path", ["trainer.max_steps", "task.name", "stack.logger", "trainer.accumulate", "seed"])
def test_only_the_listed_paths_are_left_out(path):
    assert run_id(_with({"trainer": {}}, path, 1)) != run_id(_with({"trainer": {}}, path, 2))


def test_an_id_lasts_over_versions():
    config = {"seed": 0, "stack": {"width": 128}, "optimizer": {"lr": 1e-3, "clip": float("inf")}}
    assert run_id(config) == "f93e5c498c98"


def run_id(config):
    return shortened(identity_digest(identity_fields(config)))


def _with(config, path, value):
    parent, _, key = path.rpartition(".")
    if not parent:
        return {**config, key: value}
    return {**config, parent: {**config.get(parent, {}), key: value}}


def _shuffled(value, random):
    if isinstance(value, list):
        return [_shuffled(item, random) for item in value]
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    random.shuffle(items)
    return {key: _shuffled(item, random) for key, item in items}
