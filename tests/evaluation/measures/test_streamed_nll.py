"""The NLL of documents that are read in chunks, against that of whole sequences."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.errors import ConfigError
from hybridlab.evaluation.measures.streamed_nll import StreamedNLL
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import Given, by_name, evaluate, stack_of, take


def test_the_streamed_nll_is_that_of_documents_read_whole(corpus):
    stack = stack_of({"all": {"mixer": "mamba2 sliding"}}, 257).double().train()
    task = Documents(seed=0, length=32, batch=2, path=str(corpus), test_share=0.3)
    with torch.no_grad():
        batches = list(task.evaluation_batches("test", window=10**6, stride=10**6, limit=None, batch=3))
        whole = sum(float(F.cross_entropy(stack(b.inputs).mT, b.targets, reduction="sum")) for b in batches)
    measured = by_name(take([StreamedNLL(chunk=20, batch=3)], stack, task, batches))
    assert stack.training
    found, scored = measured["test/streamed_nll"], sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    assert found.value == pytest.approx(whole / scored, rel=1e-9)
    documents = sum(len(batch.inputs) for batch in batches)
    assert (found.tokens, found.n, found.interval) == (scored, documents, "bootstrap over documents")
    by_position = [each for each in measured.values() if each.slice == "position"]
    assert sum(each.tokens for each in by_position) == found.tokens
    assert sum(each.value * each.tokens for each in by_position) / found.tokens == pytest.approx(found.value)


def test_an_encoder_is_not_streamed():
    sequences = torch.randint(257, (2, 9), generator=torch.Generator().manual_seed(1))
    batch = Batch(sequences, torch.tensor([0, 1]), {"document": torch.arange(2)})
    task = Given([batch], vocabulary=257, classes=2)
    assert not StreamedNLL().applies_to(task)
    stack = stack_of({"all": {"mixer": "full"}}, 257, classes=2, causal=False)
    assert evaluate(stack, task, "streamed_nll").keys() == {"test/nll"}


@pytest.mark.parametrize("bad", [{"chunk": 0}, {"cache": 1}, {"batch": -1}, {"limit": 0}])
def test_bad_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=f"^{name}={value}: must be a whole number of at least "):
        StreamedNLL(**bad)
