"""What command lines of these tests begin with."""

from pathlib import Path

from processes import config_flags
from trained_runs import SHORT

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = f"--config={CONFIGS / 'digits.py'}"
CIFAR10 = f"--config={CONFIGS / 'cifar10.py'}"
SUMMARY = "--mode=summary"
TWO = ["--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=1"]
TINY = [DIGITS, *config_flags(SHORT)]
LAST = 4  # the last step of TINY
