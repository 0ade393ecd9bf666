"""The mixers under test: one per YAML of conf/mixers/, parallel layers, and one per YAML of the directory that `--mixers` names."""

from pathlib import Path

import pytest

from tests.mixers.subject import CONF, Subject


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every mixer to the tests that ask for a `subject`, and every causal one to those for a `causal_subject`."""
    given = metafunc.config.getoption("--mixers")
    folders = [CONF, Path(__file__).parent / "parallel", *([Path(given)] if given else [])]
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    subjects = [form for file in files for form in Subject.forms(file)]
    assert subjects, f"no mixers in {', '.join(map(str, folders))}"
    for name, wanted in (("subject", subjects), ("causal_subject", [each for each in subjects if each.causal])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, wanted, ids=lambda each: each.name)
