"""Stacks with planted modules, as a configuration builds them."""

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan, expand
from hybridlab.stack.readout import Readout

VOCABULARY = 11
WIDTH = 16


def stack_of(tmp_path, *planted, channel=None, causal=True, parallel=False) -> tuple[Plan, Stack]:
    """Build a stack of planted mixers, one a layer or all in one, and perhaps a planted channel
    mixer."""
    files = mixer_files()
    for each in planted:
        files = {**files, each.__name__: tmp_path / f"{each.__name__}.yaml"}
        files[each.__name__].write_text(f"_target_: {each.__module__}.{each.__name__}\n")
    names = [each.__name__ for each in planted]
    settings = {"width": WIDTH, "groups": {"all": {"mixer": [{"parallel": names}] if parallel else names}}}
    if channel is not None:
        settings["channel"] = {"_target_": f"{channel.__module__}.{channel.__name__}"}
    plan = expand(settings, {}, files, causal=causal)
    readout, classes = (Readout.EVERY_POSITION, None) if causal else (Readout.SEQUENCE_MEAN, 3)
    return plan, Stack(plan, VOCABULARY, readout=readout, classes=classes)
