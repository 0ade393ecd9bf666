"""A run goes on only from checkpoints of its own."""

import time

import torch

from hybridlab.training.checkpoint import FOLDER, IDENTITY, last_checkpoint


def saved(folder, name, digest):
    """Write a checkpoint of an identity, newer than those before it."""
    (folder / FOLDER).mkdir(exist_ok=True)
    file = folder / FOLDER / f"{name}.ckpt"
    torch.save({IDENTITY: digest, "state_dict": {"weight": torch.ones(3)}}, file)
    time.sleep(0.01)
    return file


def test_the_newest_whole_one_of_the_run_is_taken(tmp_path, capsys):
    assert last_checkpoint(tmp_path / FOLDER, "ours") is None
    first, second = saved(tmp_path, "first", "ours"), saved(tmp_path, "second", "ours")
    assert last_checkpoint(tmp_path / FOLDER, "ours") == second
    second.write_bytes(second.read_bytes()[:100])
    assert last_checkpoint(tmp_path / FOLDER, "ours") == first


def test_one_of_another_run_is_passed_over_and_said(tmp_path, capsys):
    own = saved(tmp_path, "own", "ours")
    saved(tmp_path, "others", "another run's")
    torch.save({"state_dict": {}}, tmp_path / FOLDER / "old.ckpt")
    assert last_checkpoint(tmp_path / FOLDER, "ours") == own
    printed = "".join(capsys.readouterr().out.split())
    assert "others.ckpt:notacheckpointofthisrun" in printed
    assert "old.ckpt:notacheckpointofthisrun" in printed
