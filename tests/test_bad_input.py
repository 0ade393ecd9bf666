"""A mistake ends in one clear line on stderr, exit code 2, no traceback, and nothing written."""

import pytest

CASES = {
    "an unknown command": (["trian"], "`trian`: no such command; did you mean `train`?"),
    "an unknown key": (["train", "sede=3"], "`sede`: no such key; did you mean `seed`?"),
    "an unknown key, added": (["train", "+sede=3"], "`sede=3`: no such key; did you mean `seed`?"),
    "a seed of -1": (["train", "seed=-1"], "`seed=-1`: must be a whole number from 0 to 4294967295"),
    "a seed that is a word": (["train", "seed=one"], "`seed=one`: must be a whole number from 0 to 4294967295"),
    "a number of retries below 0": (["train", "retries=-1"], "`retries=-1`: must be a whole number of at least 0"),
    "a strategy that forks": (["train", "trainer.strategy=ddp_spawn", "trainer.devices=2"], "`trainer.strategy=ddp_spawn`: allowed: auto, ddp, ddp_find_unused_parameters_true, fsdp"),
    "a batch that does not divide": (["train", "trainer.devices=2", "task.batch=3"], "`task.batch=3`: must be a multiple of the number of devices, 2"),
    "a misspelt strategy": (["train", "trainer.strategy=fdsp"], "`trainer.strategy=fdsp`: did you mean `fsdp`?"),
    "a setting of the checkpoint": (["train", "checkpoint.save_topk=3"], "`checkpoint.save_topk=3`: ModelCheckpoint has no such setting; did you mean `save_top_k`?"),
    "a launcher without its extra": (["train", "-m", "seed=0", "hydra/launcher=ray"], "`hydra/launcher=ray`: not installed; pip install 'hybridlab[ray]'"),
    "a sampler without its extra": (["train", "-m", "seed=0", "hydra/sweeper=optuna"], "`hydra/sweeper=optuna`: not installed; pip install 'hybridlab[optuna]'"),
    "the values of a sweep in one override": (["train", "-m", "hydra.sweeper.params={seed: 0}"], "`hydra.sweeper.params={seed: 0}`: name each key as an override of its own, e.g. `optimizer.lr=1e-3,2e-3`"),
    "an unknown launcher": (["train", "-m", "seed=0", "hydra/launcher=jobli"], "`hydra/launcher=jobli`: no such hydra/launcher; did you mean `joblib`?"),
    "the status of nothing": (["status", "nowhere"], "nowhere: no such directory"),
    "an unknown task": (["train", "task=sate_of_the_union"], "`task=sate_of_the_union`: no such task; did you mean `state_of_the_union`?"),
    "a stack of nothing": (["train", "stack=null"], "`stack=null`: no such stack; allowed: "),
    "no logger, in other words": (["check", "logger=null"], "`logger=null`: no such logger; allowed: csv, mlflow, none, tensorboard, wandb"),
    "an unknown stack": (["train", "stack=hybird"], "`stack=hybird`: no such stack; did you mean `hybrid`?"),
    "measures as a list of values": (["train", "evaluation.measures=[knockout]"], "`evaluation.measures=[knockout]`: its options are chosen by name, write `evaluation/measures=[knockout]`"),
    "an unknown measure": (["train", "evaluation/measures=[knokout]"], "`evaluation/measures=knokout`: no such measure; did you mean `knockout`?"),
    "an unknown setting of a measure": (["train", "evaluation=full", "evaluation.measures.memory_tokens.shares=1"], "`evaluation.measures.memory_tokens.shares=1`: MemoryTokens has no such setting; did you mean `share`?"),
    "a share of no measure": (["train", "evaluation=full", "evaluation.measures.memory_tokens.share=0.0"], "`evaluation.measures.memory_tokens.share=0.0`: must be a number above 0 and at most 1"),
    "a measure that cannot be imported": (["train", "+evaluation.measures.mine={_target_: hybridlab.nowhere.Norm}"], "`evaluation.measures.mine._target_=hybridlab.nowhere.Norm`: cannot be imported ("),
    "an unknown mixer": (["train", "stack.groups.deep.mixer=slidng"], "`stack.groups.deep.mixer=slidng`: no such mixer; did you mean `sliding`?"),
    "an unknown hyper-parameter": (["train", "mixers.sliding.windw=3"], "`mixers.sliding.windw=3`: Sliding has no such setting; did you mean `window`?"),
    "a renamed hyper-parameter": (["train", "mixers.sliding.sinks=4"], "`mixers.sliding.sinks=4`: renamed, write `mixers.sliding.global_tokens=4`"),
    "a renamed hyper-parameter of a layer group": (["train", "stack.groups.deep.mixer={name: sliding, sinks: 4}"], "`stack.groups.deep.mixer.sinks=4`: renamed, write `stack.groups.deep.mixer.global_tokens=4`"),
    "a class that moved": (["train", "mixers.full._target_=hybridlab.mixers.full.Full"], "`mixers.full._target_=hybridlab.mixers.full.Full`: moved, write `hybridlab.mixers.attention.full.Full`"),
    "an unknown hyper-parameter of a mixer that is not used": (["train", "mixers.linear.head=3"], "`mixers.linear.head=3`: Linear has no such setting; did you mean `heads`?"),
    "a mapping for a list": (["train", "stack.groups.middle.mixer={name: full}"], "`stack.groups.middle.mixer={name: full}`: cannot be merged into what the file sets; to replace it: '~stack.groups.middle.mixer' '+stack.groups.middle.mixer={name: full}'"),
    "a parallel layer merged into a mixer": (["train", "stack.groups.deep.mixer={parallel: [full, mamba2]}"], "`stack.groups.deep.mixer`: both `name` and `parallel`; to replace it: '~stack.groups.deep.mixer' '+stack.groups.deep.mixer={parallel:[...]}'"),
    "a window of 0": (["train", "stack.groups.deep.mixer.window=0"], "`stack.groups.deep.mixer.window=0`: must be a whole number of at least 1"),
    "heads that do not divide the width": (["train", "mixers.full.heads=3"], "`mixers.full.heads=3`: must divide the width, 128"),
    "a group without layers": (["train", "stack.groups.deep.layers=0"], "`stack.groups.deep.layers=0`: must be a whole number of at least 1"),
    "an unknown setting of the task": (["train", "task.lenght=8"], "`task.lenght=8`: Documents has no such setting; did you mean `length`?"),
    "a length of the wrong type": (["train", "task.length=long"], "`task.length=long`: must be a whole number"),
    "a sequence longer than every document": (["train", "task.length=1000000"], "`task.length=1000000`: longer than every training document; the longest has 217084 bytes"),
    "a missing file": (["train", "task=documents", "task.path=nowhere"], "`task.path=nowhere`: "),
    "a path that is not given": (["train", "task=documents"], "`task.path`: "),
    "an unknown setting of the trainer": (["train", "trainer.max_step=3"], "`trainer.max_step=3`: Trainer has no such setting; did you mean `max_steps`?"),
    "no steps": (["train", "trainer.max_steps=0"], "`trainer.max_steps=0`: must be a whole number of at least 1"),
    "a GPU that is not there": (["train", "trainer.accelerator=gpu", "trainer.max_steps=1"], "`trainer`: "),
    "a bad precision": (["train", "trainer.precision=13"], "`trainer.precision=13`: allowed: 16-mixed, 32-true, 64-true, bf16-mixed, bf16-true"),
    "a negative rate": (["train", "optimizer.lr=-1"], "`optimizer.lr=-1`: must be a number above 0"),
    "a stride beyond the window": (["train", "evaluation.stride=4096"], "`evaluation.stride=4096`: must be at most window=512"),
    "a name that is a path": (["train", "name=../x"], "`name=../x`: must consist of letters, digits"),
    "a report on nothing": (["report", "nowhere"], "nowhere: no such directory"),
    "a report without a word": (["report"], "report: give a folder of runs or --sweep NAME"),
    "a sweep that is not there": (
        ["report", "--sweep", "mqar_windw"],
        "`--sweep mqar_windw`: no such sweep; did you mean `mqar_window`?",
    ),
    "a sweep's report on nothing": (["report", "--sweep", "mqar_window", "nowhere"], "nowhere: no such directory"),
    "an infinite frequency": (["check", "mixers.hyena.sine_frequency=inf"], "`mixers.hyena.sine_frequency=inf`: must be a finite number"),
    "a benchmark of no mixer": (["bench", "--mixers="], "`--mixers=`: no such mixer"),
    "a check of an unknown mixer": (["check", "stack.groups.deep.mixer=fll"], "`stack.groups.deep.mixer=fll`: no such mixer; did you mean `full`?"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_2_and_nothing_written(case, hybridlab, tmp_path):
    arguments, message = CASES[case]
    outcome = hybridlab(*arguments)
    assert outcome.err.startswith(f"hybridlab: {message}")
    assert outcome.err.count("\n") == 1
    assert outcome.code == 2
    assert "Traceback" not in outcome.out + outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_with_one_document(hybridlab, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "only.txt").write_text("alone " * 500)
    outcome = hybridlab("train", "task=documents", f"task.path={corpus}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"hybridlab: `task.path={corpus}`: ")
    assert "at least 3" in outcome.err


def test_a_folder_that_cannot_be_written(hybridlab, tiny, tmp_path):
    (tmp_path / "file").write_text("keep me")
    outcome = hybridlab("train", *tiny, "runs=file")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "file" in outcome.err
    assert (tmp_path / "file").read_text() == "keep me"


def test_no_command_shows_the_usage(hybridlab):
    outcome = hybridlab()
    assert outcome.code == 2
    assert "hybridlab train" in outcome.out


def test_a_mistake_in_one_job_of_a_sweep_is_said_and_the_others_run(hybridlab, tiny):
    outcome = hybridlab("train", "-m", *tiny, "logger=none", "mixers.full.heads=3,2", "stack.groups.deep.mixer=full")
    assert outcome.code == 2
    assert "`mixers.full.heads=3`: must divide the width, 32" in outcome.err
    assert "Traceback" not in outcome.err
    assert "finished" not in outcome.err
