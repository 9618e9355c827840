"""What a training would do: configuration, data and workdir checked, nothing made."""

import jax

from dig_jax.experiment import Experiment
from dig_jax.experiment.images import named_after
from dig_jax.files.paths import CHECKPOINTS, AnyPath, check_writable
from dig_jax.reporting.profile import ProfileSteps, check_profile_steps
from dig_jax.storage.meta_file import finished_steps
from dig_jax.training.beginning import check_beginning
from dig_jax.training.setup import check_training, check_workdir


def describe_training(
    experiment: Experiment, workdir: AnyPath, profile_steps: ProfileSteps | None = None
) -> str:
    """A line that says what a training would do, and one for each key it changes.

    Nothing is compiled or written, and no devices are looked for: whether a batch
    spreads over them, and fits, is not known then.

    Raises:
        InputError: What cannot work.
    """
    source, _ = check_training(experiment)
    experiment = named_after(experiment, source)
    changes = check_workdir(experiment, workdir, write=False)
    options = experiment.training
    check_profile_steps(profile_steps, options.num_steps)
    check_beginning(experiment, workdir)
    check_writable(workdir, "Use another --workdir.")
    shapes = jax.eval_shape(experiment.backbone.init, jax.random.key(0))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    shape = "x".join(map(str, source.image_shape))
    done = max(finished_steps(workdir / CHECKPOINTS), default=0)
    steps = f"train steps {done + 1:,} to {options.num_steps:,} of"
    if done >= options.num_steps:
        steps = f"find all {options.num_steps:,} steps done of"
    line = (
        f"Dry run: would {steps} {experiment.backbone_options.name}, "
        f"{num_params / 1e6:.2f}M parameters, on {len(source):,} images of "
        f"{source.name} ({shape}, {source.num_classes or 'no'} classes), batch size "
        f"{options.batch_size}, workdir {workdir}. Nothing was compiled or written."
    )
    return "\n".join([line, *(f"  changed: {change}" for change in changes)])
