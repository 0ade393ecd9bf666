import torch
from torch.nn import functional as F

from hybridlab.evaluation.kernels import kernels_of
from hybridlab.ops.op import kernel_serves, scan_kernel_serves


def test_a_kernel_of_ours_is_seen_where_it_is_written_for_the_widths():
    x = torch.zeros(1)
    with kernels_of() as kernels:
        assert not kernel_serves(x, 64)  # on a CPU nothing changes
    with kernels_of() as too_wide:
        kernel_serves(x, 129)
    with kernels_of() as scanned:
        assert not scan_kernel_serves(x, 13)
    with kernels_of() as too_large:
        scan_kernel_serves(x, 200)
    assert (kernels, too_wide, scanned, too_large) == (["Triton"], [], ["Triton"], [])


def test_pytorchs_attention_is_seen_on_any_device():
    q = torch.zeros(1, 1, 4, 16, device="meta")
    with kernels_of() as kernels:
        F.scaled_dot_product_attention(q, q, q)
    with kernels_of() as none:
        q @ q.mT
    assert (kernels, none) == (["PyTorch"], [])
