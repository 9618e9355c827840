"""A run's programs are the same whether they are compiled in it or ahead of it."""

import hashlib
import re

from processes import TINY, digits_config

from dig_jax.costs import compile_train_step
from dig_jax.devices.sharding import create_mesh
from dig_jax.experiment import create_experiment
from dig_jax.options import MeshOptions
from dig_jax.training.setup import TrainingSetup


def test_the_trainers_program_is_the_one_compiled_ahead_of_time(tmp_path):
    experiment = create_experiment(digits_config(tmp_path, TINY, {"mesh.data": 1}))
    setup = TrainingSetup(experiment, tmp_path / "run")
    mesh = create_mesh(MeshOptions(data=1))
    ahead = compile_train_step(experiment, mesh)
    trainers = setup.programs.lower_step().compile()
    assert digest(ahead) == digest(trainers)


def digest(compiled):
    """Of the HLO, without the names of functions and source lines."""
    text = compiled.as_text()
    computations = text[text.index("\n%") :]
    assert "ENTRY" in computations
    computations = re.sub(r", metadata=\{[^}]*\}", "", computations)
    return hashlib.sha256(computations.encode()).hexdigest()
