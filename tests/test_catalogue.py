"""`hybridlab mixers` fits a terminal of 80 columns: names first, nothing truncated."""

from hybridlab.config import mixer_files


def test_a_narrow_terminal_shows_every_name_and_whose_kernels(hybridlab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = hybridlab("mixers")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    rows = {words[0]: words for line in lines if (words := line.split()) and words[0] in mixer_files()}
    assert set(rows) == set(mixer_files())
    assert {words[-1] for words in rows.values()} == {"Triton", "PyTorch", "–"}
    assert max(map(len, lines)) <= 80
    assert "t = 1,024, growing as t^p to 16,384" in lines[0]
