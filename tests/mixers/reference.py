"""A layer that was not written for hybridlab, and how far ours is from it.

A file in tests/mixers/references/ holds a class for each comparison. The contract in
test_reference_layers.py runs all of them, and `python -m tests.mixers.reference_table` writes the
table of docs/mixers.md.
"""

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from hybridlab.mixers.base import Mixer
from tests.mixers.subject import CONF

FOLDER = Path(__file__).parent / "references"


class Reference(nn.Module):
    """A whole layer with weights of its own: another project's, or one written from the equations.

    It is built from the width and the same settings as our mixer, a dictionary of `cases` after the
    other. `weights` says what our parameters are as functions of its own, so that gradients with
    respect to its weights can be taken through both layers. Parameters that ours does not have
    (biases, as a rule) are set to zero and frozen in the constructor.

    Import the other project in the constructor: collecting the tests must stay quick. What is
    written from equations goes token by token and imports nothing from `hybridlab.ops`.
    """

    mixer: ClassVar[str]  # its name in conf/mixers
    source: ClassVar[str]  # the class or function, or the paper and its equations
    package: ClassVar[str | None] = None  # the distribution that it is imported from; None: written from the paper
    compared: ClassVar[Literal["layer", "op"]] = "layer"  # "op": theirs, in a layer written from the paper
    choices: ClassVar[str]  # how our layer differs by choice, beyond these cases
    cases: ClassVar[tuple[dict[str, Any], ...]]  # settings
    bound: ClassVar[float] = 1e-10  # on the largest difference
    width: ClassVar[int] = 16
    lengths: ClassVar[tuple[int, ...]] = (1, 7, 33, 65, 130)
    dtype: ClassVar[torch.dtype] = torch.float64
    noise: ClassVar[float] = 0.1  # added to all weights, so that those which start at 0 or 1 matter too
    slow: ClassVar[bool] = False  # runs with the slow tests

    def __init__(self, *, width: int, **settings: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Mix x, b t d."""
        raise NotImplementedError

    def weights(self) -> Mapping[str, Tensor]:
        """Return each parameter of our mixer, by name, as a function of the parameters here."""
        raise NotImplementedError

    @classmethod
    def title(cls) -> str:
        """Return the source, with the version of the package that it is imported from."""
        if cls.package is None:
            return f"written out: {cls.source}"
        return f"{cls.source}, {cls.package} {version(cls.package).partition('+')[0]}"

    @classmethod
    def largest_difference(cls, settings: Mapping[str, Any]) -> float:
        """Compare outputs and the gradients of the input and of all weights, at each length.

        A tensor's difference is relative to its own largest value at any of the lengths: gradients
        that are zero on a single token have no scale of their own.
        """
        torch.manual_seed(0)
        theirs = cls(width=cls.width, **settings).to(cls.dtype).eval()
        trained = {name: each for name, each in theirs.named_parameters() if each.requires_grad}
        with torch.no_grad():
            for each in trained.values():
                each.add_(cls.noise * torch.randn_like(each))
        ours = _mixer(cls.mixer, cls.width, settings).to(cls.dtype)
        gaps, sizes = dict.fromkeys(["y", "x", *trained], 0.0), dict.fromkeys(["y", "x", *trained], 0.0)
        for t in cls.lengths:
            x = torch.randn(2, t, cls.width, dtype=cls.dtype, requires_grad=True)
            sought = [x, *trained.values()]
            with Wide(cls.dtype):
                expected = theirs(x)
            y = functional_call(ours, _complete(ours, theirs.weights()), (x,))
            weights = torch.randn_like(y)
            found, wanted = (
                [each, *torch.autograd.grad((each * weights).sum(), sought, materialize_grads=True)]
                for each in (y, expected)
            )
            for name, mine, other in zip(gaps, found, wanted, strict=True):
                mine, other = mine.detach(), other.detach()
                assert mine.shape == other.shape
                assert mine.dtype == other.dtype
                gaps[name] = max(gaps[name], (mine - other).abs().max().item())
                sizes[name] = max(sizes[name], other.abs().max().item())
        unused = [name for name, size in sizes.items() if size < 1e3 * torch.finfo(cls.dtype).eps]
        assert not unused, f"nothing depends on {unused}"
        return max(gaps[name] / sizes[name] for name in gaps)


class Wide(TorchFunctionMode):
    """Make code that asks for float32 compute in float64 where the comparison is in float64.

    Other projects cast to float32 inside (norms, softmax, states), which would hide differences
    below 1e-7.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.dtype == torch.float64:
            func = torch.Tensor.double if func is torch.Tensor.float else func
            args = tuple(self.dtype if each is torch.float32 else each for each in args)
            kwargs = {name: self.dtype if each is torch.float32 else each for name, each in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def all_references() -> list[type[Reference]]:
    """Return the classes in tests/mixers/references/ that name a mixer, by mixer."""
    modules = [importlib.import_module(f"tests.mixers.references.{file.stem}") for file in sorted(FOLDER.glob("*.py"))]
    found = [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Reference) and each.__module__ == module.__name__
    ]
    return sorted((each for each in found if hasattr(each, "mixer")), key=lambda each: each.mixer)


def _mixer(name: str, width: int, settings: Mapping[str, Any]) -> Mixer:
    return get_class(OmegaConf.load(CONF / f"{name}.yaml")._target_)(width=width, **settings)


def _complete(ours: Mixer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, if each of our parameters is among them in its own shape."""
    parameters, buffers = (dict(each) for each in (ours.named_parameters(), ours.named_buffers()))
    assert set(parameters) <= set(weights) <= set(parameters) | set(buffers), set(parameters) ^ set(weights)
    for name, value in weights.items():
        assert value.shape == {**parameters, **buffers}[name].shape, name
    return dict(weights)
