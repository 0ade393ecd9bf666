"""Output head and loss in one op: the negative log-likelihood of targets, without all logits in
memory at once."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hybridlab.ops.precision import accumulation_dtype, autocast_off

LOGITS = 2**25  # in memory at a time: 128 MiB in float32


def head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return -log softmax(x weight^T)[target] per target, in nats, in float32 at least; products
    follow autocast.

    The chunked form computes each logit twice to keep few of them. If all fit into one chunk, the
    direct form runs.
    """
    if len(x) * len(weight) <= LOGITS:
        return naive_head_cross_entropy(x, weight, targets)
    return chunked_head_cross_entropy(x, weight, targets, max(1, LOGITS // len(weight)))


def naive_head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Compute the definition from all n · v logits."""
    logits = F.linear(x, weight)
    return F.cross_entropy(logits.to(accumulation_dtype(logits)), targets, reduction="none")


def chunked_head_cross_entropy(
    x: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"], chunk: int
) -> Float[Tensor, " n"]:
    """Compute it for `chunk` targets at a time, forward and backward: chunk · v logits are in
    memory, not n · v."""
    kind = x.device.type
    product = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return _Chunked.apply(x, weight, targets, chunk, product)


class _Chunked(torch.autograd.Function):
    """The chunked loss: saves log sum exp(logits) per target; the backward pass recomputes the
    logits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, chunk: int, product: torch.dtype) -> Tensor:
        head = weight.to(product)
        nll = x.new_empty(len(x), dtype=accumulation_dtype(head))
        log_sum = torch.empty_like(nll)
        with autocast_off(x):
            for first in range(0, len(x), chunk):
                part = slice(first, first + chunk)
                logits = _logits(x[part], head)
                log_sum[part] = logits.logsumexp(-1)
                nll[part] = log_sum[part] - logits.gather(-1, targets[part, None])[:, 0]
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
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=log_sum.dtype)
        with autocast_off(x):
            for first in range(0, len(x), ctx.chunk):
                part = slice(first, first + ctx.chunk)
                # (softmax - one-hot) · gradient, in the memory of the logits
                error = _logits(x[part], head).sub_(log_sum[part, None]).exp_()
                error[torch.arange(len(error), device=x.device), targets[part]] -= 1
                error = error.mul_(gradient[part, None]).to(ctx.product)
                grad_x[part] = error @ head
                grad_weight += error.T @ x[part].to(ctx.product)
        return grad_x, grad_weight.to(weight.dtype), None, None, None


def _logits(x: Tensor, head: Tensor) -> Tensor:
    logits = x.to(head.dtype) @ head.T
    return logits.to(accumulation_dtype(logits))
