"""The contract of a mixer as a class and a function: see hybridlab/mixers/base.py."""

import inspect
import io
from itertools import product
from typing import get_args

import jaxtyping
import pytest
import torch
from torch.func import functional_call

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer
from tests.mixers.subject import LONGEST, WIDTH, Subject, tokens

KINDS = {"full", "sparse", "linear", "low-rank", "ssm", "recurrence", "convolution", "parallel", "none"}


def test_class_declares_its_properties(subject: Subject) -> None:
    assert issubclass(subject.cls, Mixer)
    assert subject.cls.kind in KINDS
    assert isinstance(subject.cls.paper, str)
    assert subject.cls.paper
    assert isinstance(subject.cls.causal, bool)
    assert isinstance(subject.cls.bounded_state, bool)
    assert subject.build().causal == subject.causal
    assert (subject.cls.extend is not Mixer.extend) == subject.cls.causal, "a mixer is decoded if it has a causal form"


def test_constructor_is_keyword_only(subject: Subject) -> None:
    assert {p.kind for p in subject.signature.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert "width" in subject.signature
    assert set(subject.own_settings) <= set(subject.signature) - set(subject.given)


def test_unknown_hyper_parameter_is_refused(subject: Subject) -> None:
    with pytest.raises(TypeError, match="no_such_setting"):
        subject.cls(**subject.own_settings, **subject.given, no_such_setting=1)


def test_sizes_below_one_are_refused(subject: Subject) -> None:
    for key, value in subject.counts.items():
        for bad in (0, -1) if value > 0 else (-1,):
            with pytest.raises(ValueError, match=rf"^{key}={bad}: \w+"):
                subject.cls(**{**subject.own_settings, key: bad}, **subject.given)


def test_sizes_of_another_type_are_refused(subject: Subject) -> None:
    whole = [key for key, each in subject.signature.items() if int in (each.annotation, *get_args(each.annotation))]
    for key, bad in product(set(whole) - set(subject.given), (2.5, True, "many")):
        with pytest.raises(ConfigError, match=rf"^`mixers.mine.{key}={bad}`: .*whole number"):
            build({**subject.settings, key: bad}, "mixers.mine", **subject.given)


def test_unknown_settings_are_refused_with_the_near_miss(subject: Subject) -> None:
    for key in subject.own_settings:
        with pytest.raises(ConfigError, match=rf"`mixers.mine.{key}x=1`: .* has no such setting"):
            build({**subject.settings, f"{key}x": 1}, "mixers.mine", **subject.given)


def test_shapes_at_any_length(subject: Subject) -> None:
    mixer = subject.build(torch.float32)
    for t in subject.lengths:
        for batch in (1, 3):
            y = mixer(tokens(batch, t, torch.float32))
            assert y.shape == (batch, t, WIDTH)
            assert y.dtype == torch.float32
            assert y.isfinite().all()


def test_layout_of_input_does_not_matter(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(2, 33)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(mixer(strided), mixer(x), rtol=1e-9, atol=1e-9)


def test_input_is_not_changed(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(2, 33)
    before = x.clone()
    mixer(x)
    assert torch.equal(x, before)


def test_no_position_depends_on_later_ones(causal_subject: Subject) -> None:
    subject, mixer = causal_subject, causal_subject.build()
    for t in subject.lengths[1:]:
        cuts = sorted(cut for cut in {1, t // 2, t - 1, *subject.counts.values()} if 0 < cut < t)
        x = tokens(1, t).repeat(len(cuts), 1, 1)
        other = x.clone()
        for i, cut in enumerate(cuts):
            other[i, cut:] = 3 * tokens(1, t - cut, seed=2)[0]
        with torch.no_grad():
            moved = (mixer(other) - mixer(x)).abs().amax(-1)
        for i, cut in enumerate(cuts):
            assert moved[i, :cut].max() < 1e-9, f"length {t}: tokens before {cut} see later ones"
            sees = bool(moved[i, cut:].max() > 1e-9)
            assert sees == (subject.cls.kind != "none"), f"length {t}: tokens from {cut} on see none of themselves"


def test_bidirectional_forms_see_later_tokens(bidirectional_subject: Subject) -> None:
    mixer, x = bidirectional_subject.build(), tokens(1, 33)
    other = torch.cat([x[:, :32], 3 * tokens(1, 1, seed=2)], dim=1)
    assert (mixer(other) - mixer(x))[0, :32].abs().max() > 1e-9


def test_sequences_of_a_batch_are_independent(subject: Subject) -> None:
    mixer = subject.build()
    for t in (1, 33, subject.long):
        x = tokens(3, t).requires_grad_()
        y = mixer(x)
        for i in range(3):
            torch.testing.assert_close(y[i], mixer(x[i : i + 1])[0], rtol=1e-9, atol=1e-9)
        (gradient,) = torch.autograd.grad(y[1].square().sum(), x)
        assert (gradient[1].abs().max() > 0) == (subject.cls.kind != "none")
        assert gradient[[0, 2]].abs().max() == 0


def test_every_parameter_gets_a_gradient(subject: Subject) -> None:
    mixer = subject.build(torch.float32)
    mixer(tokens(2, subject.long, torch.float32).requires_grad_()).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_gradients_are_those_of_the_function(subject: Subject, long: bool) -> None:
    mixer = subject.build()
    names = [name for name, _ in mixer.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in mixer.parameters()]

    def function(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(mixer, dict(zip(names, parameters, strict=True)), (x,))

    x = tokens(2, subject.long if long else 5).requires_grad_()
    # Fast mode checks a random direction; its time does not grow with the number of parameters.
    assert torch.autograd.gradcheck(function, (x, *values), fast_mode=True)


def test_bfloat16_is_close_to_float32(subject: Subject) -> None:
    exact = subject.build(torch.float32)
    x = tokens(2, subject.long, torch.float32).requires_grad_()
    expected = exact(x)
    rounded = subject.build(torch.float32).to(torch.bfloat16)
    scale = expected.square().mean().sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = exact(x)
    pure = rounded(x.to(torch.bfloat16))
    assert pure.dtype == torch.bfloat16
    for y in (mixed, pure):
        assert (y.float() - expected).square().mean().sqrt() <= 0.05 * scale
    for mixer, y in ((exact, mixed), (rounded, pure)):
        y.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_long_sequences_stay_finite(subject: Subject, dtype: torch.dtype) -> None:
    mixer = subject.build(dtype)
    x = (3 * tokens(1, 4096, dtype)).requires_grad_()
    y = mixer(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())


def test_saved_weights_give_the_same_mixer(subject: Subject) -> None:
    mixer, x = subject.build(seed=0), tokens(2, 33)
    file = io.BytesIO()
    torch.save(mixer.state_dict(), file)
    file.seek(0)
    other = subject.build(seed=1)
    assert torch.equal(other(x), mixer(x)) == (not mixer.state_dict())
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), mixer(x))


def test_shapes_on_the_meta_device(subject: Subject) -> None:
    with torch.device("meta"):
        mixer = subject.cls(**subject.own_settings, **subject.given)
    assert all(p.is_meta for p in mixer.parameters())
    y = mixer(torch.empty(2, LONGEST, WIDTH, device="meta"))
    assert y.is_meta
    assert y.shape == (2, LONGEST, WIDTH)


# torch 2.11 imports its own deprecated decorator when it compiles.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiles_as_one_graph(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the compiler cannot trace shape checks
    torch.compiler.reset()
    mixer, x = subject.build(), tokens(2, subject.long)
    compiled = torch.compile(mixer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), mixer(x), rtol=1e-9, atol=1e-9)
