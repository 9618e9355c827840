"""A run's programs are the same whether they are compiled in it or ahead of it."""

import hashlib
import re
from pathlib import Path

from dig_jax.config import load_config_file
from dig_jax.costs import compile_train_step
from dig_jax.devices.sharding import create_mesh
from dig_jax.experiment import create_experiment
from dig_jax.options import MeshOptions
from dig_jax.training.setup import TrainingSetup

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
TINY = {
    "backbone.width": 16,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "backbone.patch_sizes": (4,),
    "training.batch_size": 8,
    "mesh.data": 1,
}


def test_the_trainers_program_is_the_one_compiled_ahead_of_time(tmp_path):
    config = load_config_file(str(DIGITS))
    config.update_from_flattened_dict(TINY)
    config.data.data_dir = str(tmp_path)
    experiment = create_experiment(config)
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
