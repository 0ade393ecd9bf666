"""What holds for every measure: of conf/evaluation/measures, and of the folder in `--measures`."""

import math
from contextlib import nullcontext
from functools import cache

import pytest
import torch

from hybridlab.evaluation.describe import described
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.passes import interventions
from hybridlab.records.record import RunRecord
from tests.evaluation.examples import USUAL, by_name, take
from tests.evaluation.measures.subject import CASES, GROUPINGS, UNMIXED, package_subjects

DECODER = CASES["decoder"]


def taken(measures, case, stack=None, batch=3):
    """Return what the measures that apply to a kind of task find, in their order."""
    task = case.task(batch)
    apply = [measure for measure in measures if measure.applies_to(task)]
    return take(apply, stack or case.stack(), task, task.batches, groupings=GROUPINGS, batch=batch)


@cache
def found_by(subject, case):
    """Return what one measure finds, taken once for several tests."""
    return taken([subject.build()], case)


@cache
def found_by_all():
    """Return what the measures of the package find together on the decoder."""
    return taken([subject.build() for subject in package_subjects()], DECODER)


def test_the_class_says_what_it_measures(subject):
    measure = subject.build()
    assert isinstance(measure, Measure)
    assert type(measure) is subject.cls
    assert measure.name == subject.name
    assert all(isinstance(text, str) and text for text in (measure.unit, measure.definition, measure.source))
    assert measure.better in ("lower", "higher", "")
    described = measure.describe()
    assert (described.unit, described.definition, described.better) == (
        measure.unit,
        measure.definition,
        measure.better,
    )
    assert described.title


def test_it_measures_something(subject):
    assert any(found_by(subject, case) for case in CASES.values())


def test_its_measurements_are_whole(subject, case):
    """On a task that it says nothing about, it does not apply or yields nothing."""
    measure, task = subject.build(), case.task()
    found = found_by(subject, case)
    by_name(found)
    for each in found:
        assert (each.measure, each.unit, each.split) == (measure.name, measure.unit, USUAL["split"])
        assert math.isfinite(each.value)
        assert (each.low is None) == (each.high is None) == (not each.interval)
        if each.interval:
            slack = 1e-9 * max(1, abs(each.value))
            assert each.low - slack <= each.value <= each.high + slack
        assert each.n > 0
        assert each.tokens > 0
    record = RunRecord(
        run_id="r",
        name="contract",
        status="finished",
        seed=0,
        config={},
        choices={},
        created="2024-01-01T00:00:00.000+00:00",
        **described(found, [measure], task),
    )
    assert RunRecord.from_json(record.to_json()) == record
    assert all(each.slice in record.slices for each in found if each.slice)


def test_slices_of_the_position_add_up_to_the_whole(subject, case):
    found = found_by(subject, case)
    whole = {about(each): each.tokens for each in found if not each.slice}
    for key in {about(each) for each in found if each.slice == "position"}:
        buckets = [each.tokens for each in found if each.slice == "position" and about(each) == key]
        assert sum(buckets) == whole[key]


@pytest.mark.parametrize(("kind", "batch"), [("decoder", 1), ("encoder", 1), *((kind, 8) for kind in CASES)])
def test_numbers_do_not_depend_on_the_size_of_batches(subject, kind, batch):
    case = CASES[kind]
    one, other = by_name(found_by(subject, case)), by_name(taken([subject.build()], case, batch=batch))
    assert one.keys() == other.keys()
    for name, each in one.items():
        same = other[name]
        assert (each.n, each.tokens, each.interval) == (same.n, same.tokens, same.interval)
        ends = ("value", "low", "high") if each.interval else ("value",)
        for end in ends:
            assert getattr(each, end) == pytest.approx(getattr(same, end), rel=1e-6, abs=1e-7)


def test_it_holds_nothing_and_other_measures_change_nothing(subject):
    measure, stack = subject.build(), DECODER.stack()
    alone = taken([measure], DECODER, stack)
    assert taken([measure], DECODER, stack) == alone
    together = found_by_all()
    if subject not in package_subjects():
        together = taken([*(other.build() for other in package_subjects()), measure], DECODER)
    assert [each for each in together if each.measure == measure.name] == alone


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_the_stack_is_left_as_it_was(subject, kind):
    case = CASES[kind]
    stack = case.stack().train()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    random = torch.get_rng_state()
    taken([subject.build()], case, stack)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in stack.parameters())
    for module in stack.modules():
        assert module.training
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_a_difference_is_zero_if_the_interventions_change_nothing(difference_subject, monkeypatch):
    requests = difference_subject.differences(DECODER)
    for cls in {type(term.intervention) for request in requests for term in request.terms}:
        monkeypatch.setattr(cls, "applied", lambda self, stack, calibration: nullcontext())
    found = taken([difference_subject.build()], DECODER)
    assert {(each.value, each.low, each.high) for each in found} == {(0, 0, 0)}


def test_a_difference_is_zero_for_mixers_that_add_nothing(difference_subject):
    """On a stack of `identity`, for the interventions on mixers that come with the package."""
    mixers = {
        about(request)
        for request in difference_subject.differences(UNMIXED)
        if all(is_of_package(term.intervention) and term.intervention.part == "mixer" for term in request.terms)
    }
    found = [each for each in taken([difference_subject.build()], UNMIXED) if about(each) in mixers]
    assert {about(each) for each in found} == mixers
    assert all((each.value, each.low, each.high) == (0, 0, 0) for each in found)


def about(each):
    """Return the part of the stack that a measurement or a request is about."""
    return each.grouping, each.group, each.part, each.block


def is_of_package(intervention):
    return type(intervention).__module__ == interventions.__name__
