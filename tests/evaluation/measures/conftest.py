"""The measures under test: those of conf/evaluation/measures and of the folder in `--measures`."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.evaluation.measures.subject import CASES, Subject, package_subjects


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise tests by measures, by those that are differences, and by kinds of tasks."""
    if "subject" in metafunc.fixturenames:
        metafunc.parametrize("subject", subjects(metafunc.config), ids=lambda each: each.name)
    if "difference_subject" in metafunc.fixturenames:
        found = [each for each in subjects(metafunc.config) if measures_differences(each)]
        metafunc.parametrize("difference_subject", found, ids=lambda each: each.name)
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES.values(), ids=lambda each: each.name)


def subjects(config: pytest.Config) -> list[Subject]:
    """Return the package's measures and those of the given folder."""
    given = config.getoption("--measures")
    if given is None:
        return [*package_subjects()]
    folder = Path(given)
    files = [*sorted(folder.glob("*.yaml")), *sorted((folder / "evaluation" / "measures").glob("*.yaml"))]
    if not files:
        raise pytest.UsageError(f"--measures={given}: no YAML in it, nor in its evaluation/measures")
    return [*package_subjects(), *map(Subject, files)]


def measures_differences(subject: Subject) -> bool:
    """Return whether a measure's values are differences; one that is broken fails elsewhere."""
    with suppress(Exception):
        return bool(subject.differences(CASES["decoder"]))
    return False
