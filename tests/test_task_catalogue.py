from pathlib import Path

import yaml

CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "task").glob("*.yaml"))


def test_every_task_is_listed_with_what_it_says_of_itself(hybridlab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    outcome = hybridlab("tasks")
    assert outcome.code == 0
    for file in CONFIGS:
        (line,) = [line for line in outcome.out.splitlines() if line.startswith(f"│ {file.stem} ")]
        size = yaml.safe_load(file.read_text()).get("vocabulary")
        assert size is None or f"{size:,}" in line
        assert "document, position" in line


def test_a_task_of_the_users_is_listed_too(hybridlab, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "of_mine.yaml").write_text(
        "_target_: hybridlab.tasks.synthetic.mqar.MQAR\nvocabulary: 12345\n"
    )
    outcome = hybridlab("tasks", "--config-dir", str(tmp_path / "mine"))
    assert "of_mine" in outcome.out
    assert "12,345" in outcome.out


def test_a_task_that_cannot_be_imported_is_named(hybridlab, tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "of_mine.yaml").write_text("_target_: nowhere.Task\n")
    outcome = hybridlab("tasks", "--config-dir", str(tmp_path / "mine"))
    assert outcome.code == 2
    assert "`task=of_mine._target_=nowhere.Task`: cannot be imported" in outcome.err
