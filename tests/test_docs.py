"""The commands, the YAML and the code of README.md and docs/ work as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from hybridlab.build import build
from hybridlab.tasks.batch import IGNORED

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words = words[1:]
                if "hybridlab" in words:
                    yield pytest.param(words[words.index("hybridlab") + 1 :], id=line.partition("#")[0].strip())


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_works(words, corpus, tmp_path, monkeypatch, hybridlab):
    """Every training command is composed and its stack is built, a sweep's first job too."""
    from hydra import compose, initialize_config_dir

    from hybridlab.config import conf_dir, register
    from hybridlab.training.spec import prepare

    command, *overrides = words
    if command not in ("train", "check"):
        assert command in ("report", "status", "mixers", "tasks", "measures", "bench", "--help")
        return
    unpack_docs_examples(tmp_path, monkeypatch)
    (tmp_path / "mine" / "stack").mkdir(exist_ok=True)
    (tmp_path / "mine" / "stack" / "my_stack.yaml").write_text((conf_dir() / "stack" / "hybrid.yaml").read_text())
    search = [f"hydra.searchpath=[file://{tmp_path}/mine]"] if "--config-dir" in overrides else []
    if search:
        at = overrides.index("--config-dir")
        del overrides[at : at + 2]
    first_choice = [re.sub(r"^([^=]+=[^,\[{\"']+),.*", r"\1", word) for word in overrides if word != "-m"]
    here = [f"task.path={corpus}" if word.startswith("task.path=") else word for word in first_choice]
    short = ["task.length=32", "evaluation.window=32", "evaluation.stride=32"] if here != first_choice else []
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", overrides=[*here, *short, *search], return_hydra_config=True)
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)
    bare = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    assert prepare(bare).build_stack() is not None


def test_the_stack_shown_is_the_one_that_trains():
    for page in (ROOT / "README.md", ROOT / "docs" / "stacks.md"):
        shown = [OmegaConf.create(block) for block in blocks(page, "yaml")]
        assert OmegaConf.load(ROOT / "conf" / "stack" / "hybrid.yaml") in shown


def test_a_task_of_the_docs_is_built():
    shown = [yaml.safe_load(block) for block in blocks(ROOT / "docs" / "tasks.md", "yaml")]
    assert shown
    for settings in shown:
        assert build(settings, "task", seed=0).train_batch(0).inputs.shape[0] == settings["batch"]


@pytest.mark.slow
def test_the_mixer_of_the_docs_passes_the_shared_suite(tmp_path, monkeypatch):
    unpack_docs_examples(tmp_path, monkeypatch)
    words = ["-q", "-n0", "-p", "no:cacheprovider", "-k", "running_mean", "--mixers", str(tmp_path / "mine" / "mixers")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(ROOT / "tests" / "mixers")],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_slice_of_the_docs_is_one_of_its_task(tmp_path, monkeypatch):
    unpack_docs_examples(tmp_path, monkeypatch)
    settings = yaml.safe_load((tmp_path / "mine" / "task" / "ordered_mqar.yaml").read_text())
    batch = build(settings, "task", seed=0).train_batch(0)
    order, asked = batch.slices["order"], batch.targets != IGNORED
    assert (order[~asked] == -1).all()
    assert (order[asked].view(len(order), -1) == torch.tensor([0, 1, 1, 1])).all()


def test_the_sweep_of_the_docs_is_the_one_that_runs():
    assert (ROOT / "sweeps" / "mqar_window.yaml").read_text() in blocks(ROOT / "docs" / "sweeps.md", "yaml")


@pytest.mark.slow
def test_the_python_example_trains_three_stacks_and_tabulates_them(tmp_path, monkeypatch, capsys):
    """The first example of the page, with less of everything."""
    import hybridlab

    compose = hybridlab.compose
    less = ["stack=conv_then_mixer", "trainer.max_steps=1", "evaluation.limit=4", "logger=none", "task.batch=2"]
    monkeypatch.setattr(hybridlab, "compose", lambda overrides: compose([*overrides, *less]))
    monkeypatch.chdir(tmp_path)
    exec(blocks(ROOT / "docs" / "python.md", "python")[0], {})
    printed = capsys.readouterr().out
    assert printed.count(" finished runs/early/") == 3
    assert "Name: value, dtype: float64" in printed


def test_a_mixer_of_ones_own_is_composed_in_python_as_shown(tmp_path, monkeypatch):
    import hybridlab
    from hybridlab.training.spec import prepare

    unpack_docs_examples(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    shown = {"hybridlab": hybridlab}
    exec(blocks(ROOT / "docs" / "python.md", "python")[1], shown)
    assert prepare(shown["config"]).plan.layers[0].mixer == "running_mean"


def unpack_docs_examples(folder, monkeypatch):
    """Write the code and the YAML that the docs show where a user would: their first line says."""
    for page in PAGES:
        for kind, place in (("python", r"my_\w+\.py"), ("yaml", r"mine/\S+")):
            for block in blocks(page, kind):
                if named := re.match(f"# ({place})\n", block):
                    file = folder / named[1]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block)
    monkeypatch.syspath_prepend(folder)
