"""Lines of metrics of a run that goes on between two of them."""

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.options import TrainingOptions
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.reporting.progress import Progress
from dig_jax.training.log import PARTIAL, TrainingLog


def lines_from(start, workdir, num_steps=12):
    options = TrainingOptions(num_steps=num_steps, log_every=5, batch_size=2)
    writer = MetricWriter(workdir, resume_step=None)
    log = TrainingLog(writer, Progress(num_steps, silent=True), options, start)
    for step in range(start + 1, num_steps + 1):
        numbers = dict.fromkeys(("grad_norm", "update_norm"), np.float32(1))
        levels = dict.fromkeys(("noise_level_loss", "noise_level_images"), np.ones(2))
        loss = np.float32(step)
        metrics = {"loss": loss, "bad_steps": np.int32(0), **numbers, **levels}
        log.add(step, jax.tree.map(jnp.asarray, metrics), 0)
    log.finish()
    writer.close()
    lines = read_metrics(workdir)
    return {line["step"]: (line["loss"], line.get(PARTIAL)) for line in lines}


def test_a_line_after_a_resume_within_its_interval_says_of_how_many_steps_it_is(
    tmp_path,
):
    assert lines_from(0, tmp_path) == {5: (3, None), 10: (8, None), 12: (11.5, None)}
    assert lines_from(5, tmp_path) == {10: (8, None), 12: (11.5, None)}
    assert lines_from(8, tmp_path) == {10: (9.5, 2), 12: (11.5, None)}
