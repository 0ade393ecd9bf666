"""The mixers under test: those of conf/mixers/, of parallel/, and of the folder in `--mixers`."""

from pathlib import Path

import pytest

from hybridlab.mixers.base import Attends
from tests.mixers.subject import CONF, Subject

# Which mixers a test receives, by the name of its argument.
KINDS = {
    "subject": lambda each: True,
    "causal_subject": lambda each: each.causal,
    "bidirectional_subject": lambda each: not each.causal,
    "attending_subject": lambda each: issubclass(each.cls, Attends),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise tests by the mixers that their argument stands for."""
    given = metafunc.config.getoption("--mixers")
    folders = [CONF, Path(__file__).parent / "parallel", *([Path(given)] if given else [])]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    subjects = [form for file in files for form in Subject.forms(file)]
    assert subjects, f"no mixers in {', '.join(map(str, folders))}"
    for name, wanted in KINDS.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(filter(wanted, subjects)), ids=lambda each: each.name)
