"""Encoders: mixers are bidirectional, sequences are averaged, and padding has no effect."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout


def encoder(mixer, mixers=None, *, width=32, readout=Readout.SEQUENCE_MEAN):
    stack = {"width": width, "groups": {"all": {"layers": 2, "mixer": mixer}}}
    torch.manual_seed(0)
    return (
        Stack(expand(stack, mixers or {}, mixer_files(), causal=False), 20, readout=readout, classes=5).double().eval()
    )


def test_a_sequence_gets_the_logits_of_its_classes():
    assert encoder("full")(torch.arange(14).view(2, 7)).shape == (2, 5)


def test_mixers_take_their_bidirectional_form_if_they_have_one():
    both, one = (encoder(name).layers[0].mixer for name in ("full", "delta"))
    assert not both.causal
    assert one.causal


def test_a_mixer_can_be_kept_causal():
    assert encoder("full", {"full": {"causal": True}}).layers[0].mixer.causal


def test_every_position_sees_the_whole_sequence():
    stack, x = encoder("full"), torch.randn(1, 9, 32, dtype=torch.float64)
    other = torch.cat([x[:, :8], torch.randn(1, 1, 32, dtype=torch.float64)], dim=1)
    assert ((stack.run(other) - stack.run(x)).abs().amax(-1) > 1e-9).all()


@pytest.mark.parametrize("mixer", mixer_files())
def test_padding_changes_nothing(mixer):
    """Sequences of several lengths give their own logits, whatever the padding holds."""
    stack, rows = encoder(mixer, width=64), torch.randint(19, (3, 40))
    lengths = (40, 33, 7)
    documents = torch.where(torch.arange(40) < torch.tensor(lengths)[:, None], 0, -1)
    found = [stack(torch.where(documents < 0, token, rows), documents) for token in (19, 3)]
    alone = torch.cat([stack(row[None, :length]) for row, length in zip(rows, lengths, strict=True)])
    for logits in found:
        torch.testing.assert_close(logits, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixer", mixer_files())
def test_the_documents_of_a_pair_are_encoded_separately_and_compared(mixer):
    stack, rows = encoder(mixer, width=64, readout=Readout.PAIR_OF_MEANS), torch.randint(19, (1, 50))
    documents = torch.tensor([[0] * 30 + [1] * 12 + [-1] * 8])
    one, other = (stack.norm(stack.hidden(rows[:, piece]).mean(1)) for piece in (slice(0, 30), slice(30, 42)))
    expected = stack.head(torch.cat([one, other, one * other, one - other], dim=-1))
    torch.testing.assert_close(stack(rows, documents), expected, rtol=1e-9, atol=1e-9)
    target = torch.tensor([3])
    torch.testing.assert_close(
        stack.nll(stack.pooled(stack.hidden(rows, documents), documents), target), -expected.log_softmax(-1)[:, 3]
    )


def test_bidirectional_settings_are_refused_in_a_causal_task():
    stack = {"width": 32, "groups": {"all": {"mixer": {"name": "full", "causal": False}}}}
    with pytest.raises(ConfigError, match="sees the future, and the task is causal"):
        expand(stack, {}, mixer_files())
    with pytest.raises(ConfigError, match=r"mixer=linformer`: sees the future.*did you mean `linformer_causal`"):
        expand({"width": 32, "groups": {"all": {"mixer": "linformer"}}}, {}, mixer_files())


def test_an_encoder_learns_what_the_mean_of_the_tokens_cannot_show():
    """The class is the token right after the marker, wherever the marker is."""
    stack = encoder(["short_conv", "full"]).float()
    optimiser = torch.optim.AdamW(stack.parameters(), lr=3e-3)
    for step in range(200):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(4, (64, 12), generator=generator)
        place = torch.randint(11, (64,), generator=generator)
        rows = torch.arange(64)
        tokens[rows, place] = 9
        loss = torch.nn.functional.cross_entropy(stack(tokens), tokens[rows, place + 1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3
