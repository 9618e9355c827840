"""Where the configurations that are shipped lie."""

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "configs"
DIGITS = str(CONFIGS / "digits.py")
