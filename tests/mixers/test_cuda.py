"""The contract on a GPU: agreement with the CPU, mixed precision, compilation (`pytest -m gpu`)."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.base import Mixer
from hybridlab.training.compiler import compile_soundly
from tests.mixers.subject import Subject, in_chunks, tokens

pytestmark = [
    pytest.mark.gpu,
    # PyTorch's, at the first product in its backward thread.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning"),
    # torch 2.11 imports its own deprecated decorator when it compiles.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    # torch 2.11 calls its own deprecated check when it compiles a diagonal.
    pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated:FutureWarning"),
    # It makes an instance of a function's base class, too, which it warns of.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    # Products of Fourier transforms are left to PyTorch's own kernels.
    pytest.mark.filterwarnings(
        "ignore:Torchinductor does not support code generation for complex operators:UserWarning"
    ),
    # The compiler's note on how it took a softmax of two numbers.
    pytest.mark.filterwarnings(r"ignore:\s*Online softmax is disabled:UserWarning"),
    # The compiler's advice; the states' float32 is meant.
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]


def test_gpu_gives_what_the_cpu_gives(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(2, subject.long).requires_grad_()  # the identity has nothing else
    moved = copy.deepcopy(mixer).cuda()
    y, expected = moved(x.cuda()), mixer(x)
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-9, atol=1e-9)
    expected.square().sum().backward()
    y.square().sum().backward()
    for ours, theirs in zip(moved.parameters(), mixer.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_chunks_give_what_the_whole_gives(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build().cuda(), tokens(2, causal_subject.long).cuda()
    y, _ = in_chunks(mixer, x, [5, 1, 1, causal_subject.long - 7])
    torch.testing.assert_close(y, mixer(x), rtol=1e-8, atol=1e-8)


def test_mixed_precision_is_close_to_float32(subject: Subject) -> None:
    mixer, x = subject.build(torch.float32).cuda(), tokens(2, subject.long, torch.float32).cuda().requires_grad_()
    y, *gradients = _in_mixed_precision(mixer, mixer, x)
    expected = mixer(x)
    assert (y - expected).norm() <= 0.05 * expected.norm()
    assert all(each.isfinite().all() for each in gradients)


def test_compiled_is_close_to_eager(subject: Subject) -> None:
    torch.compiler.reset()
    mixer, x = subject.build(torch.float32).cuda(), tokens(2, subject.long, torch.float32).cuda().requires_grad_()
    expected = _in_mixed_precision(mixer, mixer, x)
    found = _in_mixed_precision(compile_soundly(mixer, fullgraph=True), mixer, x)
    # The gradient of a small parameter can be little more than the rounding of large terms.
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 0.2 * theirs.norm()
    (y, *gradients), (expected_y, *expected_gradients) = found, expected
    assert (y - expected_y).norm() <= 0.05 * expected_y.norm()
    whole, expected_whole = (torch.cat([x.flatten() for x in each]) for each in (gradients, expected_gradients))
    assert (whole - expected_whole).norm() <= 0.05 * expected_whole.norm()


def _in_mixed_precision(function: Callable[[Tensor], Tensor], mixer: Mixer, x: Tensor) -> list[Tensor]:
    """Return outputs and the gradients of x and all parameters, in float32."""
    with torch.autocast("cuda", torch.bfloat16):
        y = function(x)
    into = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    return [each.float() for each in (y, *torch.autograd.grad(y, [x, *mixer.parameters()], into))]


@torch.no_grad()
def test_chunks_in_mixed_precision(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(torch.float32).cuda(), tokens(2, 60, torch.float32).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        y, _ = in_chunks(mixer, x, [20, 1, 39])
    assert (y.float() - mixer(x)).norm() <= 0.05 * mixer(x).norm()
