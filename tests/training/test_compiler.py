"""The options that stacks are compiled with; results are tested on a GPU."""

import pytest
import torch

from hybridlab.training.compiler import OPTIONS, compile_soundly

# PyTorch imports its own deprecated decorator with its compiler.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


def test_the_compiler_knows_its_options() -> None:
    assert not any(OPTIONS.values())
    compile_soundly(torch.nn.Identity())


def test_an_unknown_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIONS, "padding_of_shapes", False)
    with pytest.raises(RuntimeError, match="padding_of_shapes"):
        compile_soundly(torch.nn.Identity())
