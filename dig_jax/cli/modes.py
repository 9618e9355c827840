"""What the command line can do: one function for each --mode.

Each imports what it needs when it is called: `--help` and a wrong flag need none of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict

from dig_jax.cli.command_line import step_of, workdir_of
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.files.paths import is_remote, open_path, open_workdir

if TYPE_CHECKING:
    import numpy as np

    from dig_jax.evaluation import Evaluator
    from dig_jax.experiment import Experiment
    from dig_jax.files.paths import AnyPath
    from dig_jax.interfaces import UInt8Images
    from dig_jax.run import Run
    from dig_jax.sampling.sampler import Sampler

SAMPLES = "samples.npz"


def train_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=train."""
    from dig_jax.config import check_section
    from dig_jax.devices.processes import is_distributed
    from dig_jax.reporting.goodput import Goodput
    from dig_jax.reporting.progress import Progress

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
            )
        return run.train(progress)


def sample_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=sample: draw images into samples.npz and samples.png."""
    workdir = workdir_of(options)
    folder = open_workdir(options.out or workdir)
    run = _load(config, options, "sample")
    from dig_jax.reporting.images import write_png
    from dig_jax.sampling.latents import LatentFiles
    from dig_jax.sampling.sampler import sample_grid
    from dig_jax.sampling.samples import save_adm_batch, save_samples
    from dig_jax.sampling.store import SampleStore

    sampler = run.sampler()
    provenance = _provenance(run, sampler)
    shape = sampler.to_pixels.image_shape
    store = SampleStore(folder / "unfinished_samples", provenance, shape)
    latents = None
    if sampler.options.keep_latents:
        latents = LatentFiles(store.folder / "latents")
        sampler.keep_latents = latents.write
    images = _draw(run, sampler, store)
    save_samples(folder / SAMPLES, images, sampler.labels, provenance)
    written = [folder / SAMPLES, folder / "samples.png"]
    write_png(written[1], sample_grid(images, sampler.labels))
    if options.adm:
        written.append(folder / "samples_adm.npz")
        save_adm_batch(written[2], images, sampler.labels)
    if latents is not None:
        written.append(folder / "latents.npz")
        latents.join(written[-1], len(images), provenance)
    store.delete()
    print(
        f"Drew {len(images)} images with the averaged parameters of step {run.step}: "
        f"{', '.join(map(str, written))}"
    )
    return EXIT_DONE


def evaluate_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=evaluate: score images that lie there, else draw them."""
    if options.samples:
        return _evaluate_file(config, options)
    workdir = workdir_of(options)
    run = _load(config, options, "evaluate")
    from dig_jax.evaluation import mean_record

    sampler = run.sampler()
    evaluator = _create_evaluator(run.experiment)
    evaluator.check(sampler.options.num_images)
    first = sampler.options.seed
    records = []
    for seed in range(first, first + options.seeds):
        sampler = sampler.with_seed(seed)
        provenance = _provenance(run, sampler)
        images = _find_or_draw(run, sampler, provenance, workdir)
        record = _score(evaluator, images, sampler.labels, provenance)
        _show_and_keep(record, workdir)
        records.append(record)
    if len(records) > 1:
        print(f"Mean and standard deviation over {len(records)} seeds:")
        _show_and_keep(mean_record(records), workdir)
    return EXIT_DONE


def stats_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=stats: write the reference statistics of a data set."""
    from dig_jax.experiment import create_experiment

    evaluator = _create_evaluator(create_experiment(config))
    scorer = evaluator.features
    if scorer is None:
        raise InputError(
            "Statistics are of features, and there is no network for them: name "
            "Inception's weights (--config.evaluation.inception_weights=FILE); images "
            "without labels cannot train a classifier."
        )
    path = open_path(options.out) if options.out else None
    known = path is None and scorer.kept_file(options.split).is_file()
    found = scorer.statistics(options.split, path)
    summary, space = found.summary, found.summary.space
    where = path or scorer.kept_file(options.split)
    print(
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
    from dig_jax.run import load

    workdir = workdir_of(options)
    out = open_workdir(options.out or workdir / "export")
    run = load(workdir, step=step_of(options), config=config)
    export_run(run, run.experiment.sample, out)
    script = "COPY_OF_IT/sample.py" if is_remote(out) else f"{out}/sample.py"
    print(
        f"Exported step {run.step} to {out}. It needs no dig_jax:\n"
        f"  python {script} --num_images=16 --out=samples.png"
    )
    return EXIT_DONE


def compare_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=compare."""
    from dig_jax.comparison.run import compare
    from dig_jax.config import read_comparison

    return compare(read_comparison(config), workdir_of(options))


def summary_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=summary."""
    from dig_jax.costs.count_tables import summarize_tables
    from dig_jax.costs.summary import format_summary, summary_record
    from dig_jax.experiment import create_experiment

    if "tables" in config:
        tables = config.to_dict()
        print(summarize_tables(tables, out=options.out, as_json=options.json))
        return EXIT_DONE
    experiment = create_experiment(config)
    record = summary_record(experiment.backbone_options.name, experiment.backbone)
    print(json.dumps(record) if options.json else format_summary(record))
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
    print(json.dumps(record) if options.json else format_report(report))
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
}

COMPILING = ("train", "sample", "evaluate", "stats", "export", "compare")
"""The modes that compile for this machine's devices."""


def _load(config: ConfigDict, options: flags.FlagValues, description: str) -> Run:
    """The run in the workdir; what it waits for is shown."""
    from dig_jax.reporting.progress import Progress

    progress = Progress(0, description=description)
    with progress, progress.busy(f"loading {options.workdir}"):
        from dig_jax.run import load

        workdir = workdir_of(options)
        return load(workdir, step=step_of(options), config=config)


def _evaluate_file(config: ConfigDict, options: flags.FlagValues) -> int:
    """Score the images of a file, whoever drew them."""
    from dig_jax.experiment import create_experiment
    from dig_jax.sampling.samples import read_samples

    images, provenance = read_samples(open_path(options.samples))
    if not (options.out or options.workdir):
        raise InputError(
            "--mode=evaluate --samples=FILE needs a place for its records: --out=DIR "
            "or --workdir=DIR."
        )
    evaluator = _create_evaluator(create_experiment(config))
    evaluator.check(len(images.images))
    record = _score(evaluator, images.images, images.labels, provenance)
    _show_and_keep(record, open_workdir(options.out or options.workdir))
    return EXIT_DONE


def _create_evaluator(experiment: Experiment) -> Evaluator:
    from dig_jax.evaluation import Evaluator, check_evaluation_options
    from dig_jax.reporting.progress import StageProgress

    options = check_evaluation_options(experiment.evaluation)
    return Evaluator(experiment, options, experiment.mesh, StageProgress())


def _score(
    evaluator: Evaluator,
    images: UInt8Images,
    labels: np.ndarray | None,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    import numpy as np

    from dig_jax.interfaces import LabelledImages

    if labels is None:
        labels = np.zeros(len(images), np.int32)
    return evaluator.score(LabelledImages(images, labels), provenance)


def _show_and_keep(record: dict[str, Any], workdir: AnyPath) -> None:
    from dig_jax.evaluation import append_record, format_record

    path = append_record(workdir, record)
    print(format_record(record))
    print(f"  recorded in {path}")


def _provenance(run: Run, sampler: Sampler) -> dict[str, Any]:
    from dig_jax.sampling.samples import describe_samples

    return describe_samples(
        run.experiment,
        sampler.options,
        run.step,
        guide=sampler.guide,
        parameters_digest=run.parameters_digest,
        pixels=sampler.to_pixels.record,
    )


def _find_or_draw(
    run: Run, sampler: Sampler, provenance: dict[str, Any], workdir: AnyPath
) -> UInt8Images:
    """Images that samples.npz has, or that were drawn before, or drawn now."""
    from dig_jax.sampling.samples import read_samples
    from dig_jax.sampling.store import SampleStore

    wanted, samples = sampler.options.num_images, workdir / SAMPLES
    if samples.is_file():
        found, theirs = read_samples(samples)
        if theirs == provenance and len(found.images) >= wanted:
            print(f"Scoring {samples}, drawn before.")
            return found.images[:wanted]
    shape = sampler.to_pixels.image_shape
    store = SampleStore(workdir / "eval" / "samples", provenance, shape)
    if store.num_images >= wanted:
        print(f"Scoring {store.folder}, drawn before.")
        return store.images(wanted)
    return _draw(run, sampler, store)


def _draw(run: Run, sampler: Sampler, store: Any) -> UInt8Images:
    """Draw what a store lacks."""
    from dig_jax.reporting.progress import Progress
    from dig_jax.sampling.store import draw_into

    wanted = sampler.options.num_images
    if 0 < store.num_images < wanted:
        print(f"Going on: {store.num_images} of {wanted} images were drawn before.")
    with Progress(wanted, description="draw", unit="image") as progress:
        progress.go_on_from(store.num_images)
        if not sampler.is_compiled:
            with progress.compiling("the sampler"):
                sampler.compile(run.params)
        draw = partial(sampler.draw_batches, run.params)
        return draw_into(store, wanted, draw, progress.update)
