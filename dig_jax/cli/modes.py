"""What the command line can do: one function for each --mode.

Each imports what it needs when it is called: `--help` and a wrong flag need none of it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from dig_jax.cli.command_line import step_of, workdir_of
from dig_jax.cli.demo_mode import demo_mode
from dig_jax.cli.report_mode import report_mode, report_of, try_report
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.files.paths import (
    AnyPath,
    check_writable,
    is_remote,
    open_out,
    open_path,
)
from dig_jax.files.pretrained import (
    LICENCE,
    is_shipped,
    name_of,
    place_for_outputs,
)
from dig_jax.files.shown import say

if TYPE_CHECKING:
    from dig_jax.run import Run

OTHER_FOLDER = "Name a folder that can be, for what is written: --out=DIR."


def train_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=train."""
    from dig_jax.config import check_section, with_values
    from dig_jax.devices.processes import is_distributed
    from dig_jax.reporting.goodput import Goodput
    from dig_jax.reporting.progress import Progress

    if options.init_from:
        config = with_values(config, {"training.init_from": options.init_from})
    if options.dry_run:
        return _dry_run(config, options)
    goodput = Goodput()
    workdir, silent = workdir_of(options), False
    if is_distributed():
        from dig_jax.devices.sharding import is_first_process

        silent = not is_first_process()
    num_steps = check_section(config, "training").num_steps
    with Progress(num_steps, silent=silent) as progress:
        with progress.busy("starting"):  # the imports take seconds
            from dig_jax.experiment import create_experiment
            from dig_jax.reporting.profile import parse_profile_steps
            from dig_jax.training.loop import TrainingRun

            steps = options.profile_steps
            run = TrainingRun(
                create_experiment(config),
                workdir,
                profile_steps=None if steps is None else parse_profile_steps(steps),
                goodput=goodput,
                report=report_of,
            )
        return run.train(progress)


def _dry_run(config: ConfigDict, options: flags.FlagValues) -> int:
    """Say what a training would do."""
    from dig_jax.experiment import create_experiment
    from dig_jax.reporting.profile import parse_profile_steps
    from dig_jax.training.dry_run import describe_training

    steps = options.profile_steps
    traced = None if steps is None else parse_profile_steps(steps)
    say(describe_training(create_experiment(config), workdir_of(options), traced))
    return EXIT_DONE


def sample_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=sample: draw images into samples.npz and samples.png."""
    from dig_jax.cli.known import known_of

    known = known_of(config, options)
    folder = _place_of_outputs(options)
    run = _load(config, options, "sample")
    drawing = run.drawing(known=known)
    written = drawing.write(folder, adm=options.adm, png=options.png)
    say(
        f"Drew {drawing.sampler.options.num_images} images with the averaged "
        f"parameters of step {run.step}: {', '.join(map(str, written))}"
    )
    return EXIT_DONE


def evaluate_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=evaluate: score images that lie there, else draw them."""
    if options.samples:
        return _evaluate_file(config, options)
    folder = _place_of_outputs(options)
    run = _load(config, options, "evaluate")
    run.evaluate(seeds=options.seeds, out=folder, silent=False)
    return EXIT_DONE


def stats_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=stats: write the reference statistics of a data set."""
    from dig_jax.evaluation.score_run import create_evaluator
    from dig_jax.experiment import create_experiment

    path = open_path(options.out) if options.out else None
    if path is not None:
        if path.suffix != ".npz" or path.is_dir():
            raise InputError(f"--out must be a file that ends in .npz, got {path}.")
        check_writable(path.parent, "Name another file: --out=FILE.npz.")
    evaluator = create_evaluator(create_experiment(config))
    scorer = evaluator.features
    if scorer is None:
        raise InputError(
            "Statistics are of features, and there is no network for them: name "
            "Inception's weights (--config.evaluation.inception_weights=FILE); images "
            "without labels cannot train a classifier."
        )
    known = path is None and scorer.kept_file(options.split).is_file()
    found = scorer.statistics(options.split, path)
    summary, space = found.summary, found.summary.space
    where = path or scorer.kept_file(options.split)
    say(
        f"{'Found' if known else 'Wrote'} {where}\n"
        f"  {summary.moments.count:,} images of {found.images.dataset}, split "
        f"{found.images.split}, transform {found.images.transform}, fingerprint "
        f"{found.images.fingerprint}\n"
        f"  {space.dim} features of {space.name} {space.weights}, resize "
        f"{space.resize}\n"
        f"  arrays {', '.join(found.keys)}; sha256 {found.sha256}"
    )
    return EXIT_DONE


def export_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=export: write a folder that draws images without dig_jax."""
    from dig_jax.export.export import export_run
    from dig_jax.export.model_card import UNKNOWN_LICENCE
    from dig_jax.run import Run
    from dig_jax.trained import load_trained

    workdir = workdir_of(options)
    out = place_for_outputs(workdir) / "export"
    out = open_out(options.out) if options.out else out
    run = Run(*load_trained(workdir, step=step_of(options), config=config))
    sample = run.experiment.sample
    licence, num_pictures = options.license, min(16, sample.num_images)
    if is_shipped(workdir) and licence == UNKNOWN_LICENCE:
        licence = LICENCE
    export_run(run, sample, out, licence=licence, num_pictures=num_pictures)
    try_report(out)
    script = "COPY_OF_IT/sample.py" if is_remote(out) else f"{out}/sample.py"
    say(
        f"Exported step {run.step} to {out}. It needs no dig_jax:\n"
        f"  python {shlex.quote(script)} --num_images=16 --out=samples.png"
    )
    return EXIT_DONE


def compare_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=compare."""
    from dig_jax.comparison.run import compare, describe_comparison
    from dig_jax.config.comparison import choose_variants, read_comparison

    comparison = read_comparison(config)
    if options.variants:
        comparison = choose_variants(comparison, options.variants)
    if options.dry_run:
        say(describe_comparison(comparison, workdir_of(options)))
        return EXIT_DONE
    return compare(comparison, workdir_of(options), try_report)


def summary_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=summary."""
    from dig_jax.costs.count_tables import summarize_tables
    from dig_jax.costs.summary import format_summary, summary_record
    from dig_jax.experiment import create_experiment

    if "tables" in config:
        tables = config.to_dict()
        said = summarize_tables(tables, out=options.out, as_json=options.json)
        (print if options.json else say)(said)
        return EXIT_DONE
    experiment = create_experiment(config)
    record = summary_record(experiment.backbone_options.name, experiment.backbone)
    print(json.dumps(record)) if options.json else say(format_summary(record))
    return EXIT_DONE


def compile_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=compile: what a training step takes on chips that are not there."""
    import jax

    if not jax.config.values[
        "jax_platforms"
    ]:  # it needs no device, and shall not look for one
        jax.config.update("jax_platforms", "cpu")
    from dig_jax.costs import format_report, report_record, report_step
    from dig_jax.costs.topology import CHIPS, EXAMPLES, create_topology
    from dig_jax.devices.target import compiling_for
    from dig_jax.experiment import create_experiment

    if not options.topology:
        raise InputError(
            f"--mode=compile needs --topology=CHIP:SHAPE. Chips: {', '.join(CHIPS)}; "
            f"for example {EXAMPLES}."
        )
    topology = create_topology(options.topology)
    # There attention=cudnn can be asked for.
    with compiling_for(topology.platform, topology.gpu):
        experiment = create_experiment(config)
    report = report_step(experiment, topology, search_batch=options.search_batch)
    record = report_record(report)
    print(json.dumps(record)) if options.json else say(format_report(report))
    return EXIT_DONE


MODES: dict[str, Callable[[ConfigDict, flags.FlagValues], int]] = {
    "train": train_mode,
    "sample": sample_mode,
    "evaluate": evaluate_mode,
    "stats": stats_mode,
    "export": export_mode,
    "compare": compare_mode,
    "summary": summary_mode,
    "compile": compile_mode,
    "demo": demo_mode,
    "report": report_mode,
}

COMPILING = ("train", "sample", "evaluate", "stats", "export", "compare", "demo")
"""The modes that compile for this machine's devices."""


def _place_of_outputs(options: flags.FlagValues) -> AnyPath:
    """Where images and scores of the workdir's run go.

    Raises:
        InputError: That cannot be written to.
    """
    if options.out:
        folder = open_out(options.out)
    else:
        folder = place_for_outputs(workdir_of(options))
    check_writable(folder, OTHER_FOLDER)
    return folder


def _load(config: ConfigDict, options: flags.FlagValues, description: str) -> Run:
    """The run in the workdir; what it waits for is shown."""
    from dig_jax.reporting.progress import Progress

    progress = Progress(0, description=description)
    workdir = workdir_of(options)
    with progress, progress.busy(f"loading {name_of(workdir)}"):
        from dig_jax.run import Run
        from dig_jax.trained import load_trained

        return Run(*load_trained(workdir, step=step_of(options), config=config))


def _evaluate_file(config: ConfigDict, options: flags.FlagValues) -> int:
    """Score the images of a file or folder, whoever drew them."""
    from dig_jax.evaluation.score_run import (
        create_evaluator,
        keep_record,
        score_drawn,
    )
    from dig_jax.experiment import create_experiment
    from dig_jax.experiment.images import open_pixels
    from dig_jax.sampling.drawing import Drawn, read_drawn
    from dig_jax.sampling.pictures import read_pictures

    place, experiment = open_path(options.samples), create_experiment(config)
    if place.is_dir():
        source, count = (
            open_pixels(experiment, "train"),
            experiment.backbone.num_classes,
        )
        found = read_pictures(place, source.image_shape, count, source.class_names)
        say(found.note)
        drawn = Drawn(*found.drawn, found.provenance)
    else:
        drawn = read_drawn(place)
    if not (options.out or options.workdir):
        raise InputError(
            "--mode=evaluate --samples=FILE needs a place for its records: --out=DIR "
            "or --workdir=DIR."
        )
    evaluator = create_evaluator(experiment)
    evaluator.check(len(drawn.images))
    folder = _place_of_outputs(options)
    record = score_drawn(drawn, evaluator).record
    keep_record(record, folder)
    return EXIT_DONE
