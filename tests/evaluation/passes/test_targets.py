"""Every kind of task is scored as by a plain loop: decoder, encoder, packed documents, text."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hybridlab.evaluation.passes import outputs
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import (
    CHANGES,
    CPU,
    OF_LAYERS,
    Given,
    by_name,
    complete,
    evaluate,
    evaluation_of,
    stack_of,
)

CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
GROUPS = {"early": {"mixer": "sliding"}, "deep": {"mixer": "full"}}
VOCABULARY = 11


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(3)
    return lambda high, *shape: torch.randint(high, shape, generator=generator)


@pytest.fixture
def decoder(draw):
    """Two batches of three sequences, a document each, with targets at some positions only."""
    batches = []
    for first in (0, 3):
        targets = draw(VOCABULARY, 3, 16)
        targets[draw(3, 3, 16) > 0] = IGNORED
        document = torch.arange(first, first + 3)[:, None].expand(3, 16)
        slices = {"document": document, "position": torch.arange(16).expand(3, 16), "pairs": document % 2 - 1}
        batches.append(Batch(draw(VOCABULARY, 3, 16), targets, slices))
    measures = ("accuracy", "example_accuracy", "bits_per_byte", "nll")
    return Given(batches, vocabulary=VOCABULARY, measures=measures, bytes_of_token=np.arange(VOCABULARY))


def test_a_decoder_is_scored_where_it_is_supervised(decoder):
    stack = stack_of(GROUPS, VOCABULARY)
    measured = evaluate(stack, decoder, "knockout", "lens")
    nll, right, counts, sizes = [], [], [], 0
    with torch.no_grad():
        for batch in decoder.batches:
            logits = stack(batch.inputs)
            nll.append(F.cross_entropy(logits.mT, batch.targets, reduction="none", ignore_index=IGNORED).sum(1))
            right.append((logits.argmax(-1) == batch.targets).sum(1))
            counts.append((batch.targets != IGNORED).sum(1))
            sizes += int(batch.targets.clamp(min=0).sum())
    nll, right, counts = map(torch.cat, (nll, right, counts))
    assert measured["test/nll"].value == pytest.approx(float(nll.sum() / counts.sum()), rel=1e-5)
    assert measured["test/accuracy"].value == pytest.approx(float(right.sum() / counts.sum()))
    assert measured["test/example_accuracy"].value == pytest.approx(float((right / counts).mean()))
    assert measured["test/bits_per_byte"].value == pytest.approx(float(nll.sum()) / math.log(2) / sizes, rel=1e-5)
    assert (measured["test/nll"].tokens, measured["test/nll"].n) == (int(counts.sum()), 6)

    odd = torch.tensor([False, True] * 3)  # a number of pairs below 0 is in no bucket
    assert measured["test/nll/pairs/0"].value == pytest.approx(float(nll[odd].sum() / counts[odd].sum()), rel=1e-5)
    assert "test/nll/pairs/-1" not in measured
    assert measured["test/knockout/group/deep/mixer/pairs/0"].tokens == int(counts[odd].sum())


def test_a_bucket_per_document_comes_on_request(decoder):
    stack = stack_of(GROUPS, VOCABULARY)
    by_document = evaluate(stack, decoder, slices=["document", "recall"])
    names = [name for name, each in by_document.items() if each.measure == "nll"]
    assert names == ["test/nll", *(f"test/nll/document/{number}" for number in range(6))]


def test_the_logits_of_a_large_vocabulary_are_computed_in_chunks(decoder, monkeypatch):
    stack = stack_of(GROUPS, VOCABULARY)
    whole = evaluate(stack, decoder, "knockout", "lens")
    widest = []
    stack.head.register_forward_hook(lambda _module, _inputs, output: widest.append(output.numel()))
    monkeypatch.setattr(outputs, "LOGITS", 2 * VOCABULARY)
    chunked = evaluate(stack, decoder, "knockout", "lens")
    assert max(widest) == 2 * VOCABULARY
    assert {name: each.value for name, each in chunked.items()} == pytest.approx(
        {name: each.value for name, each in whole.items()}, rel=1e-5, abs=1e-6
    )


def test_an_encoder_is_scored_by_sequence(draw):
    documents = torch.where(torch.arange(16) < draw(16, 8, 1) + 1, 0, -1)
    slices = {
        "document": torch.arange(8),
        "position": torch.zeros(8, dtype=torch.int64),
        "length": (documents == 0).sum(1),
    }
    batch = Batch(draw(VOCABULARY, 8, 16), draw(3, 8), slices, documents)
    task = Given([batch], vocabulary=VOCABULARY, classes=3, measures=("accuracy", "nll"))
    stack = stack_of({"early": {"mixer": "full"}, "deep": {"mixer": "linear"}}, VOCABULARY, classes=3, causal=False)
    measured = evaluate(stack, task, "knockout", "lens")
    with torch.no_grad():
        logits = stack(batch.inputs, batch.documents)
    assert measured["test/nll"].value == pytest.approx(float(F.cross_entropy(logits, batch.targets)), rel=1e-5)
    assert measured["test/accuracy"].value == pytest.approx(float((logits.argmax(-1) == batch.targets).float().mean()))
    assert (measured["test/nll"].tokens, measured["test/nll"].n) == (8, 8)
    assert measured["test/lens/group/deep"].value == measured["test/nll"].value
    assert measured["test/knockout/group/early/mixer"].value != 0


@pytest.mark.parametrize("budget", [None, 6.0])
def test_an_encoder_and_packed_documents_take_every_measure_of_layers(draw, budget):
    """The sequences are longer than two of the smallest blocks; an encoder looks both ways."""
    place, document = torch.arange(64).expand(4, 64), torch.arange(4)
    encoded = [
        Batch(draw(VOCABULARY, 4, 64), draw(3, 4), {"document": document + first, "position": 0 * document}, place * 0)
        for first in range(0, 20, 4)
    ]
    packed = [
        Batch(*(draw(VOCABULARY, 4, 64) for _ in range(2)), {"document": halves, "position": place % 32}, halves)
        for halves in (2 * document[:, None] + place // 32 + first for first in range(0, 40, 8))
    ]
    every = evaluation_of(*OF_LAYERS, groupings=["group", "mixer", "layer"], intervention_budget=budget)
    for batches, classes in ((encoded, 3), (packed, None)):
        task = Given(batches, vocabulary=VOCABULARY, classes=classes)
        stack = stack_of(GROUPS, VOCABULARY, classes=classes, causal=classes is None, channel=CHANNEL)
        measured = by_name(complete(every.measure(stack, task, CPU))).values()
        assert {each.measure for each in measured} == {"nll", *OF_LAYERS}
        assert all(math.isfinite(each.value) for each in measured)
        whole = next(each.tokens for each in measured if each.name == "test/nll")
        changed = {each.tokens for each in measured if each.measure in CHANGES and not each.slice}
        assert changed == {whole} if budget is None else max(changed) < whole


def test_packed_documents_are_scored_as_in_sequences_of_their_own(draw):
    """Two documents of 8 tokens in a sequence of 16, or each in a sequence of its own."""
    inputs, targets, documents = draw(VOCABULARY, 4, 8), draw(VOCABULARY, 4, 8), torch.arange(4)[:, None].expand(4, 8)
    slices = {"document": documents, "position": torch.arange(8).expand(4, 8)}
    apart = Batch(inputs, targets, slices)
    packed = Batch(
        inputs.view(2, 16),
        targets.view(2, 16),
        {name: values.reshape(2, 16) for name, values in slices.items()},
        documents.reshape(2, 16),
    )
    stack = stack_of(GROUPS, VOCABULARY)
    one, other = (
        evaluate(stack, Given([batch], vocabulary=VOCABULARY), "knockout", "lens") for batch in (apart, packed)
    )
    assert one.keys() == other.keys()
    for name, each in one.items():
        assert each.value == pytest.approx(other[name].value, rel=1e-4, abs=1e-6)
        assert (each.n, each.tokens) == (other[name].n, other[name].tokens)
