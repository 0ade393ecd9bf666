"""Leaks at some lengths only, up to those of training and of evaluation."""

import pytest
import torch

from hybridlab.evaluation.leak import Kind, mixer_leak, probe_lengths
from hybridlab.evaluation.leak.lengths import TOKEN_BY_TOKEN, cuts, fill, steps
from tests.evaluation.leak.planted import WIDTH, Honest, both, leak_of, without_decoding


def _next(x):
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)


class MultipleOf64(Honest):
    def leak(self, x):
        return _next(x) * (x.shape[1] % 64 == 0)


class OddLengths(Honest):
    def leak(self, x):
        return _next(x) * (x.shape[1] % 2)


class ShortOnly(Honest):
    def leak(self, x):
        return _next(x) * (x.shape[1] < 8)


class Beyond1024(Honest):
    def leak(self, x):
        return _next(x) * (x.shape[1] > 1024)


class Beyond256(Honest):
    def leak(self, x):
        return _next(x) * (x.shape[1] > 256)


class LastBlock(Honest):
    """The tokens after position 256 see the last one."""

    def leak(self, x):
        y = torch.zeros_like(x)
        y[:, 256:] = x[:, -1:]
        return y


@pytest.mark.parametrize("planted", both([MultipleOf64, OddLengths, ShortOnly]))
def test_a_leak_at_some_lengths_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind in (Kind.FUTURE, Kind.LENGTH)


@pytest.mark.parametrize("planted", [Beyond1024, without_decoding(Beyond1024)])
def test_a_leak_beyond_1024_tokens_is_found_if_the_run_goes_there(planted):
    mixer = planted()
    assert mixer_leak(mixer, WIDTH, [1030]) is not None
    assert mixer_leak(mixer, WIDTH, [130]) is None


@pytest.mark.parametrize("planted", both([Beyond256, LastBlock]))
def test_a_leak_in_the_windows_of_evaluation_is_found(planted):
    mixer = planted()
    assert leak_of(mixer) is None
    assert leak_of(mixer, evaluated_length=560) is not None


def test_lengths_are_probed_around_every_size_among_the_hyper_parameters():
    lengths = probe_lengths({"_target_": "x", "window": 40, "rope": 1e4, "gated": True}, 100)
    assert {1, 7, 16, 33, 39, 40, 41, 81, 99} <= set(lengths)
    assert max(lengths) == 99


@pytest.mark.parametrize("length", [1, 2, 3, 130, TOKEN_BY_TOKEN, 2 * TOKEN_BY_TOKEN, 30_000])
def test_chunks_cover_a_length_in_a_bounded_number_of_steps(length):
    assert sum(steps(length)) == length
    assert len(steps(length)) <= TOKEN_BY_TOKEN
    assert sum(fill(length)) == length
    assert all(0 <= cut <= length - 2 for cut in cuts(length))
