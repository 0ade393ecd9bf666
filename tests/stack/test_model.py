import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack, initialise
from hybridlab.stack.plan import expand, has_causal_form, single_layer

CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}


@pytest.fixture(scope="module")
def stack():
    torch.manual_seed(0)
    causal = [name for name in mixer_files() if has_causal_form(single_layer(name, 64, {}, mixer_files()))]
    groups = {"all": {"mixer": " ".join(causal)}}
    plan = expand({"width": 64, "groups": groups, "channel": CHANNEL}, {}, mixer_files())
    return Stack(plan, 11).double()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_decoding_in_chunks_gives_the_logits_of_the_whole_sequence(stack, chunks):
    tokens = torch.randint(11, (2, sum(chunks)))
    state, logits = stack.initial_state(2), []
    for chunk in tokens.split(chunks, dim=1):
        more, state = stack.extend(chunk, state)
        logits.append(more)
    torch.testing.assert_close(torch.cat(logits, dim=1), stack(tokens))


def test_initialisation_keeps_tagged_parameters_and_shrinks_what_writes_to_the_residual_stream(stack):
    again = copy.deepcopy(stack)
    for old, new in zip(stack.parameters(), again.parameters(), strict=True):
        new.takes_initialisation = getattr(old, "takes_initialisation", True)
    initialise(again)
    kept = [
        (old, new) for old, new in zip(stack.parameters(), again.parameters(), strict=True) if torch.equal(old, new)
    ]
    assert all(old.ndim < 2 or not new.takes_initialisation for old, new in kept)
    for layer in again.layers:
        out = layer.channel.out.weight.detach()
        assert float(out.std()) == pytest.approx((2 * len(again.layers) * out.shape[1]) ** -0.5, rel=0.2)
    assert again.head.weight is again.embedding.weight


def test_every_stack_of_the_configuration_can_be_built():
    from hybridlab.config import compose, conf_dir
    from hybridlab.training.spec import prepare

    for file in sorted((conf_dir() / "stack").glob("*.yaml")):
        stack = prepare(compose([f"stack={file.stem}"])).build_stack()
        assert stack(torch.randint(257, (1, 5))).shape == (1, 5, 257)
