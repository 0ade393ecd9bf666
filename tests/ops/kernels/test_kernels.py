"""The GPU kernels match the PyTorch forms in outputs and gradients. Run with `pytest -m gpu`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.attention.block_attention import block_attention
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.sliding_attention import sliding_attention
from hybridlab.ops.conv.causal_conv import causal_conv
from hybridlab.ops.linear.channel_delta_rule import chunked_channel_delta_rule
from hybridlab.ops.linear.delta_rule import chunked_delta_rule
from hybridlab.ops.linear.diagonal_plus_low_rank import chunked_diagonal_plus_low_rank
from hybridlab.ops.linear.gated_linear_attention import chunked_gated_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.linear.taylor_attention import chunked_taylor_attention
from hybridlab.ops.linear.triangular import solve_unit_lower
from hybridlab.ops.ssm.elementwise_scan import elementwise_scan
from hybridlab.ops.ssm.selective_scan import selective_scan
from tests.ops.attention.test_block_attention import chosen_blocks
from tests.ops.kept import saved_elements

# PyTorch warns at the first product in its backward thread.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning")]


@pytest.mark.parametrize("t", [1, 64, 200, 1000])
@pytest.mark.parametrize("decays", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(
    ("width", "values"),
    [(16, 16), (32, 32), (64, 64), (128, 128), (64, 16), (16, 64), (64, 32), (48, 96), (24, 300), (96, 192)],
)
def test_delta_rule(t: int, decays: bool, width: int, values: int) -> None:
    torch.manual_seed(0)
    q, k = (F.normalize(torch.randn(2, 3, t, width), dim=-1).bfloat16() for _ in range(2))
    v, beta, start = (
        torch.randn(2, 3, t, values).bfloat16(),
        torch.rand(2, 3, t).bfloat16(),
        torch.randn(2, 3, width, values),
    )
    inputs = [each.cuda() for each in (q, k, v, beta, start, *([-torch.rand(2, 3, t)] if decays else []))]

    def rule(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, log_decay: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return chunked_delta_rule(q, k, v, beta, log_decay, state)

    _alike(rule, inputs, 0.02)


@pytest.mark.parametrize("t", [1, 63, 200, 3000])
@pytest.mark.parametrize("strength", [0.0, 0.1, 20.0, 1000.0])
@pytest.mark.parametrize("d", [5, 200])
def test_elementwise_scan(t: int, strength: float, d: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, t, d), -strength * torch.rand(2, t, d), torch.randn(2, d)]
    _alike(elementwise_scan, [each.cuda() for each in inputs], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("t", [1, 31, 32, 65, 3000])
@pytest.mark.parametrize("d", [5, 200])
@pytest.mark.parametrize("n", [1, 13, 16, 64, 128])
def test_selective_scan(n: int, d: int, t: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    u, key, query = (torch.randn(2, t, width).to(dtype) for width in (d, n, n))
    step, rate, start = torch.rand(2, t, d), -0.1 - 2 * torch.rand(n, d), torch.randn(2, n, d)
    inputs = [each.cuda() for each in (u, step, rate, key, query, start)]
    _alike(selective_scan, inputs, 1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("t", "d"), [(1, 64), (2, 5), (64, 70), (1000, 200)])
@pytest.mark.parametrize(
    ("length", "biased", "continued"), [(1, True, False), (4, False, True), (4, True, True), (64, True, False)]
)
def test_short_convolution(length: int, biased: bool, continued: bool, t: int, d: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, t, d).to(dtype), torch.randn(d, length), torch.randn(d), torch.randn(2, length - 1, d)]

    def convolve(x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        bias, past = rest[0] if biased else None, rest[-1] if continued else None
        return causal_conv(x, weight, bias, past)

    given = [*inputs[:2], *([inputs[2]] if biased else []), *([inputs[3]] if continued else [])]
    _alike(convolve, [each.cuda() for each in given], 1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("strength", [0.0, 20.0, 1000.0])
def test_selective_scan_of_extreme_decays(strength: float) -> None:
    torch.manual_seed(0)
    u, key, query, step = (torch.randn(1, 300, width) for width in (40, 16, 16, 40))
    _alike(selective_scan, [each.cuda() for each in (u, step.abs(), -strength * torch.rand(16, 40), key, query)], 1e-5)


@pytest.mark.parametrize("read", ["outputs", "state"])
def test_either_result_of_the_selective_scan_can_go_unused(read: str) -> None:
    torch.manual_seed(0)
    u, key, query, step = (torch.randn(2, 70, width) for width in (40, 16, 16, 40))
    pick = ["outputs", "state"].index(read)
    inputs = [each.cuda() for each in (u, step.abs(), -torch.rand(16, 40), key, query)]
    _alike(lambda *x: (selective_scan(*x)[pick],), inputs, 1e-5)


def test_the_selective_scan_saves_only_a_fraction_of_the_states() -> None:
    t, d, n = 1024, 64, 16
    u, step = torch.randn(1, t, d, device="cuda", requires_grad=True), torch.rand(1, t, d, device="cuda")
    key, query, rate = *torch.randn(2, 1, t, n, device="cuda"), -torch.rand(n, d, device="cuda")
    inputs = sum(each.numel() for each in (u, step, rate, key, query))
    assert saved_elements(lambda: selective_scan(u, step, rate, key, query)) == inputs + t * n * d // 32


@pytest.mark.parametrize("strength", [0.0, 0.1, 20.0, 1000.0])
@pytest.mark.parametrize("t", [5, 64, 200, 1000])
@pytest.mark.parametrize(
    ("width", "values"), [(16, 16), (64, 64), (128, 128), (64, 16), (32, 128), (48, 96), (24, 200), (100, 256)]
)
@pytest.mark.parametrize("op", ["gated linear attention", "channel delta rule", "diagonal plus low rank"])
def test_channel_recurrence(op: str, width: int, values: int, t: int, strength: float) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, t, size).bfloat16() / size**0.5 for size in (width, width, values))
    log_decay, start = -strength * torch.rand(2, 3, t, width), torch.randn(2, 3, width, values)
    unit, share = F.normalize(torch.randn(2, 3, t, width), dim=-1), torch.rand(2, 3, t, 1)
    if op == "gated linear attention":
        inputs, function = [q, k, v, log_decay, start], chunked_gated_linear_attention
    elif op == "channel delta rule":
        inputs, function = (
            [q, unit.bfloat16(), v, share[..., 0].bfloat16(), log_decay, start],
            chunked_channel_delta_rule,
        )
    else:
        inputs = [q, k, v, -unit.bfloat16(), (unit * share).bfloat16(), log_decay, start]
        function = chunked_diagonal_plus_low_rank
    _alike(function, [each.cuda() for each in inputs], 0.02)


# A first token without a past always reads its own value, so that its query has no gradient to
# compare.
@pytest.mark.parametrize(("t", "past"), [(1, 50), (64, 0), (64, 50), (300, 0), (2000, 0), (2000, 50)])
@pytest.mark.parametrize(("width", "values"), [(16, 64), (8, 16), (16, 120)])
def test_taylor_attention(width: int, values: int, t: int, past: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, past + t, size).bfloat16() for size in (width, width, values))
    inputs = [each[:, :, past:] for each in (q, k, v)]
    if past:
        inputs.append(chunked_taylor_attention(*(each[:, :, :past].float() for each in (q, k, v)))[1])
    _alike(chunked_taylor_attention, [each.cuda() for each in inputs], 0.02)


# If a token sees a single key, its query has no gradient to compare.
@pytest.mark.parametrize(
    ("n", "past", "causal"),
    [(1, 300, True), (70, 3, True), (1000, 0, True), (1000, 200, True), (70, 0, False), (1000, 0, False)],
)
@pytest.mark.parametrize("window", [2, 64, 129, 2000])
@pytest.mark.parametrize(("width", "sharing"), [(64, 1), (16, 3), (120, 2)])
def test_sliding_attention(width: int, sharing: int, window: int, n: int, past: int, causal: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, 2 * sharing, n, width).bfloat16()
    k, v = torch.randn(2, 2, 2, past + n, width).bfloat16()
    inputs = [each.cuda() for each in (q, k, v)]
    _alike(lambda q, k, v: (sliding_attention(q, k, v, window, causal=causal),), inputs, 0.02)


# If a token sees a single key, its query has no gradient to compare.
@pytest.mark.parametrize(("n", "past"), [(1, 300), (100, 1), (1000, 0), (1000, 200)])
@pytest.mark.parametrize(("block", "local", "first", "count"), [(64, 2, True, 3), (64, 1, False, 2), (192, 1, True, 1)])
@pytest.mark.parametrize(("heads", "choosing", "kept"), [(16, 1, 1), (4, 4, 2), (6, 2, 2)])
@pytest.mark.parametrize(("width", "values"), [(64, 64), (16, 40), (128, 96)])
def test_block_attention(
    width: int, values: int, heads: int, choosing: int, kept: int,
    block: int, local: int, first: bool, count: int, n: int, past: int,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    q, k = torch.randn(2, heads, n, width).bfloat16(), torch.randn(2, kept, past + n, width).bfloat16()
    v = torch.randn(2, kept, past + n, values).bfloat16()
    chosen = chosen_blocks((2, choosing, n, count), past + n, block, local, first).cuda()
    inputs = [each.cuda() for each in (q, k, v)]
    _alike(lambda q, k, v: (block_attention(q, k, v, chosen, block, local, first),), inputs, 0.02)


def test_fused_attention_takes_a_gradient_in_any_layout() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 64, 32, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    exact = [each.detach().double().requires_grad_() for each in (q, k, v)]
    for into in (torch.randn(2, 4, 64, 32, device="cuda"), torch.randn(2, 64, 4, 32, device="cuda").transpose(1, 2)):
        found = torch.autograd.grad(fused_attention(q, k, v, causal=True), (q, k, v), into.bfloat16())
        wanted = torch.autograd.grad(fused_attention(*exact, causal=True), exact, into.bfloat16().double())
        for ours, theirs in zip(found, wanted, strict=True):
            assert (ours - theirs).norm() <= 0.02 * theirs.norm()


def test_all_kernels_are_compiled_at_the_first_run() -> None:
    import triton  # pyright: ignore[reportMissingImports]

    compiled: list[str] = []
    inputs = [torch.randn(1, 1, 64, 16, device="cuda", dtype=torch.float16).requires_grad_() for _ in range(3)]
    strengths = torch.rand(1, 1, 64, device="cuda", dtype=torch.float16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.knobs.compilation, "listener", lambda src, **_: compiled.append(src.name))
        o, _ = chunked_channel_delta_rule(*inputs, strengths, -torch.rand(1, 1, 64, 16, device="cuda"))
        forward = list(compiled)
        torch.autograd.grad(o.sum(), inputs)
    assert "vectors_gradients_kernel" in forward
    assert compiled == forward


def _alike(function: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], tolerance: float) -> None:
    """Compare outputs and gradients with those of the PyTorch form, which runs in float64."""
    exact, rounded = [each.double().requires_grad_() for each in inputs], [each.requires_grad_() for each in inputs]
    wanted, found = function(*exact), function(*rounded)
    into = [torch.randn_like(each) for each in wanted]
    wanted_too = torch.autograd.grad(wanted, exact, into, materialize_grads=True)
    given = torch.autograd.grad(
        found, rounded, [a.to(b.dtype) for a, b in zip(into, found, strict=True)], materialize_grads=True
    )
    for ours, theirs in zip((*found, *given), (*wanted, *wanted_too), strict=True):
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm() + 1e-9


@pytest.mark.parametrize("spread", [0.0, 0.1, 10.0])
def test_unit_lower_systems(spread: float) -> None:
    torch.manual_seed(0)
    keys = F.normalize(torch.randn(20, 1, 64) + spread * torch.randn(20, 64, 64), dim=-1)
    inputs = [each.cuda() for each in (keys @ keys.mT, torch.randn(20, 64, 40))]
    _alike(lambda below, right: (solve_unit_lower(below, right),), inputs, 1e-4)


@pytest.mark.parametrize("t", [5, 64, 200, 1000])
@pytest.mark.parametrize("decays", [False, True], ids=["plain", "decaying"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("width", "values"),
    [
        (16, 16),
        (64, 72),
        (128, 128),
        (64, 160),
        (64, 16),
        (64, 32),
        (128, 8),
        (48, 96),
        (20, 10),
        (272, 72),
        (256, 512),
    ],
)
def test_linear_attention(t: int, decays: bool, groups: int, width: int, values: int) -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(2, groups, t, width).bfloat16() / width**0.5 for _ in range(2))
    v, start = torch.randn(2, 4, t, values).bfloat16(), torch.randn(2, 4, width, values)
    inputs = [each.cuda() for each in (q, k, v, start, *([-0.1 * torch.rand(2, 4, t)] if decays else []))]

    def attend(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, ...]:
        return chunked_linear_attention(q, k, v, log_decay, state)

    _alike(attend, inputs, 0.02)


@pytest.mark.parametrize(("width", "values"), [(129, 64), (256, 512)])
def test_gated_linear_attention_with_wide_keys(width: int, values: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 200, size).bfloat16() / size**0.5 for size in (width, width, values))
    inputs = [q, k, v, -0.1 * torch.rand(2, 3, 200, width), torch.randn(2, 3, width, values)]
    _alike(chunked_gated_linear_attention, [each.cuda() for each in inputs], 0.02)
