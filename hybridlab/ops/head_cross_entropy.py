"""The head and its loss in one: the negative log-likelihood of targets, without all logits of a large vocabulary at once."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off

LOGITS = 2**25  # held at a time: 128 MiB in float32


def head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return -log softmax(x weight^T)[target] of each row, in nats, in float32 at least; under autocast by its products.

    The chunked form makes each logit twice, to hold few of them. Where all fit into one chunk it would save nothing.
    """
    if len(x) * len(weight) <= LOGITS:
        return naive_head_cross_entropy(x, weight, targets)
    return chunked_head_cross_entropy(x, weight, targets, max(1, LOGITS // len(weight)))


def naive_head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Compute it as it is defined, from the n · v logits."""
    logits = F.linear(x, weight)
    return F.cross_entropy(logits.to(accumulation_dtype(logits)), targets, reduction="none")


def chunked_head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"], chunk: int
) -> Float[Tensor, " n"]:
    """Compute it for `chunk` rows at a time, forward and backward: chunk · v logits are held, not n · v."""
    kind = x.device.type
    product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return _Chunked.apply(x, weight, targets, chunk, product)


class _Chunked(torch.autograd.Function):
    """Keeps log sum exp(logits) of each row; the backward pass makes the logits again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, chunk: int, product: torch.dtype) -> Tensor:
        head = weight.to(product)
        nll = x.new_empty(len(x), dtype=accumulation_dtype(head))
        log_sum = torch.empty_like(nll)
        with autocast_off(x):
            for first in range(0, len(x), chunk):
                rows = slice(first, first + chunk)
                logits = _logits(x[rows], head)
                log_sum[rows] = logits.logsumexp(-1)
                nll[rows] = log_sum[rows] - logits.gather(-1, targets[rows, None])[:, 0]
        ctx.save_for_backward(x, weight, targets, log_sum)
        ctx.chunk, ctx.product = chunk, product
        return nll

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, targets, log_sum = ctx.saved_tensors
        head = weight.to(ctx.product)
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=log_sum.dtype)
        with autocast_off(x):
            for first in range(0, len(x), ctx.chunk):
                rows = slice(first, first + ctx.chunk)
                # (softmax - one-hot) · gradient, in the memory of the logits
                error = _logits(x[rows], head).sub_(log_sum[rows, None]).exp_()
                error[torch.arange(len(error), device=x.device), targets[rows]] -= 1
                error = error.mul_(gradient[rows, None]).to(ctx.product)
                of_x[rows] = error @ head
                of_weight += error.T @ x[rows].to(ctx.product)
        return of_x, of_weight.to(weight.dtype), None, None, None


def _logits(x: Tensor, head: Tensor) -> Tensor:
    logits = x.to(head.dtype) @ head.T
    return logits.to(accumulation_dtype(logits))
