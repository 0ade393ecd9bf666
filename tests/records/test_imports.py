import subprocess
import sys


def test_records_and_report_need_no_model_code_and_load_nothing_heavy():
    heavy = {"torch", "wandb", "lightning", "hydra", "omegaconf", "matplotlib", "jinja2", "rich", "numpy"}
    look = (
        "import sys, hybridlab.report, hybridlab.records.store, hybridlab.records.run_id\n"
        "print(*(name.partition('.')[0] for name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.startswith('hybridlab.')))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    loaded, ours = done.stdout.splitlines()
    assert not heavy & set(loaded.split())
    assert {name.split(".")[1] for name in ours.split()} == {
        "records", "report", "errors", "renamed", "stdout", "type_check",
    }  # fmt: skip
