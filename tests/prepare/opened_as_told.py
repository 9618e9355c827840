"""A data set, opened with the flags that the prepare command printed."""

import re
import shlex
from typing import Any

from dig_jax.cli.command_line import parse
from dig_jax.cli.modes import MODES
from dig_jax.data import DATASETS
from dig_jax.experiment import create_experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.options.keys import call_with_section


def read_as_told(output, split) -> Any:
    """The data set, opened with the flags that the command printed last."""
    if "To train on it" in output:
        told = shlex.split(output.splitlines()[-1])
        _, config, _ = parse(told[told.index("dig_jax.main") + 1 :], MODES)
        return open_dataset(create_experiment(config), split)
    flags = re.findall(r"--config\.data\.(\w+)=(\S+)", output.splitlines()[-1])
    section = dict(flags)
    name = section.pop("name")
    return call_with_section("data", DATASETS[name], section, split=split)
