"""The GPU kernels give what the PyTorch forms give, in outputs and gradients. Run by `pytest -m gpu`."""

import pytest
import torch
from torch.nn import functional as F

from hybridlab.ops.delta_rule import chunked_delta_rule

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("t", [64, 200, 1000])
@pytest.mark.parametrize("decays", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("width", [16, 64, 128])
def test_delta_rule(t: int, decays: bool, width: int) -> None:
    torch.manual_seed(0)
    shape = (2, 3, t)
    q, k = (F.normalize(torch.randn(*shape, width), dim=-1).cuda().bfloat16() for _ in range(2))
    v, beta = torch.randn(*shape, width).cuda().bfloat16(), torch.rand(shape).cuda().bfloat16()
    inputs = [q, k, v, beta, *([-torch.rand(shape).cuda()] if decays else [])]
    exact = [x.double().requires_grad_() for x in inputs]
    rounded = [x.requires_grad_() for x in inputs]
    (expected, _), (found, _) = chunked_delta_rule(*exact), chunked_delta_rule(*rounded)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), exact)
    given = torch.autograd.grad((found.double() * weights).sum(), rounded)
    for ours, theirs in zip((found, *given), (expected, *wanted), strict=True):
        assert (ours.double() - theirs).norm() < 0.02 * theirs.norm()
