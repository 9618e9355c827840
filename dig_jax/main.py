"""Train, sample and look at image-diffusion backbones.

    python -m dig_jax.main --config=FILE --workdir=DIR [--mode=MODE] [options]

Modes:
  train     train, or go on where the workdir's run stopped (the default)
  sample    draw images with the workdir's averaged parameters: samples.npz, samples.png
  evaluate  score drawn images against the data set: eval/scores.jsonl
  compare   train and evaluate several backbones alike: compare.md, compare.json, plots
  summary   the backbone's modules, parameters, multiply-accumulates, and its graph

Options:
  --config=FILE[:VARIANT]   a Python file with get_config(); after training, the
                            workdir's own configuration is used, and this is not needed
  --config.SECTION.KEY=VALUE  another value for one key, in every mode; for example
                            --config.sample.num_images=16 --config.sample.labels=3
                            --config.sample.labels=0,1,2 --config.sample.num_steps=250
                            --config.sample.seed=1 --config.sample.batch_size=256
  --workdir=DIR             where the run is, or will be
  --out=DIR                 sample: write here instead of the workdir
  --out=FILE                summary of a file of tables (configs/paper_tables.py): put
                            them between the file's markers, or into a new file
  --step=N                  sample, evaluate: this checkpoint instead of the newest
  --json                    summary: one JSON object

Exit codes: 0 done (or saved after SIGTERM), 77 not finite, 78 bad configuration or
input, 130 saved after Ctrl-C.
"""

import ast
import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from dig_jax.config import (
    check_same_run,
    check_sections,
    load_run_config,
    read_config_file,
)
from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    CheckpointCorruptError,
    InputError,
    NonFiniteError,
)


def train_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=train."""
    from dig_jax.training.progress import Progress

    workdir = _workdir(options)
    with Progress(config.training.get("num_steps", 0)) as progress:
        with progress.busy("starting"):  # the imports take seconds
            from dig_jax.training.loop import TrainingRun

            run = TrainingRun(config, workdir)
        return run.train(progress)


def sample_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=sample."""
    _draw(config, options, Path(options.out or _workdir(options)))
    return EXIT_DONE


def evaluate_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=evaluate: score samples.npz if it is what would be drawn, else draw it."""
    from dig_jax.evaluation import (
        append_scores,
        create_evaluation_options,
        format_scores,
        read_samples,
        score_samples,
    )
    from dig_jax.experiment import create_experiment

    workdir = _workdir(options)
    experiment = create_experiment(config)
    create_evaluation_options(experiment)
    samples = _draw(config, options, workdir, reuse=True)
    generated, provenance = read_samples(samples)
    record = score_samples(experiment, generated, provenance)
    path = append_scores(workdir, record)
    print(format_scores(record))
    print(f"  recorded in {path}")
    return EXIT_DONE


def compare_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=compare."""
    from dig_jax.comparison.run import compare

    return compare(config, _workdir(options))


def summary_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=summary."""
    from dig_jax.count_tables import summarize_tables
    from dig_jax.experiment import create_experiment
    from dig_jax.summary import format_summary, summary_record

    if "tables" in config:
        print(summarize_tables(config, out=options.out, as_json=options.json))
        return EXIT_DONE
    backbone = create_experiment(config).backbone
    record = summary_record(config.backbone.name, backbone)
    print(json.dumps(record) if options.json else format_summary(record))
    return EXIT_DONE


MODES: dict[str, Callable[[ConfigDict, flags.FlagValues], int]] = {
    "train": train_mode,
    "sample": sample_mode,
    "evaluate": evaluate_mode,
    "compare": compare_mode,
    "summary": summary_mode,
}


VALUE_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values such as 2,4",
}


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"--help", "-h", "--helpfull"} & set(arguments):
        print(__doc__)
        return EXIT_DONE
    try:
        mode, config, options = parse(arguments)
        return MODES[mode](config, options)
    except (InputError, CheckpointCorruptError, OSError) as error:
        # OSError: a full disk, a folder that may not be written.
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except NonFiniteError as error:
        print(f"not finite: {error}", file=sys.stderr)
        return EXIT_NON_FINITE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def parse(arguments: list[str]) -> tuple[str, ConfigDict, flags.FlagValues]:
    """Mode, configuration and flags of a command line.

    Raises:
        InputError: An unknown flag, mode or key, or a value of a wrong type.
    """
    options = flags.FlagValues()
    flags.DEFINE_string("mode", "train", "", flag_values=options)
    flags.DEFINE_string("workdir", "", "", flag_values=options)
    flags.DEFINE_string("out", "", "", flag_values=options)
    flags.DEFINE_integer("step", None, "", lower_bound=0, flag_values=options)
    flags.DEFINE_boolean("json", False, "", flag_values=options)
    mine, file = _take_config_file(arguments)
    about_config = [a for a in mine if a.lstrip("-").startswith("config.")]
    _parse_flags(options, [a for a in mine if a not in about_config])
    if options.mode not in MODES:
        raise InputError(
            f"Unknown mode {options.mode!r}. Available: {', '.join(MODES)}."
        )
    if options.mode in ("sample", "evaluate"):
        saved = load_run_config(_workdir(options))
        config = _override(copy.deepcopy(saved), about_config)
        check_same_run(saved, config, options.workdir)
    elif file is not None:
        config = read_config_file(file)
        tables = options.mode == "summary" and "tables" in config
        if options.mode == "compare" or tables:  # of several networks
            return options.mode, _override(config, about_config), options
        config = _override(check_sections(config, file), about_config)
    elif options.mode == "summary" and options.workdir:
        config = _override(load_run_config(_workdir(options)), about_config)
    else:
        raise InputError(
            "--config=FILE is needed: a Python file with get_config(), such as "
            "configs/digits.py."
        )
    return options.mode, check_sections(config, "the command line"), options


def _take_config_file(arguments: list[str]) -> tuple[list[str], str | None]:
    """Arguments without `--config=FILE` (or `--config FILE`), and FILE."""
    rest, file = [], None
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            file = value if equals else next(pending, "")
        else:
            rest.append(argument)
    return rest, file


def _parse_flags(options: flags.FlagValues, arguments: list[str]) -> None:
    try:
        positional = options(["dig_jax", *arguments])[1:]
    except flags.Error as error:
        choices = "--config, --config.SECTION.KEY, --mode, --workdir, --out, --step"
        said = str(error).rstrip(".")
        raise InputError(f"{said}. Available: {choices}, --json.") from None
    if positional:
        raise InputError(
            f"Arguments have the form --name=value, got {' '.join(positional)!r}."
        )


def _override(config: ConfigDict, arguments: list[str]) -> ConfigDict:
    """Apply `--config.SECTION.KEY=VALUE` arguments, each of its key's own type.

    A whole number may become several, as in --config.data.image_size=8,16. A key that
    the section leaves at its default may be given too; constructors say whether it
    exists, and whether they take the value.
    """
    config.lock()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"{argument} needs a value: {name}=VALUE.")
        key = name.lstrip("-").removeprefix("config.")
        section, leaf = _find_key(config, key)
        if section.get(leaf) is None:
            with section.unlocked():
                section[leaf] = _read_value(value)
            continue
        old_type = type(section[leaf])
        try:
            if old_type is int and "," in value:
                with config.ignore_type():
                    section[leaf] = tuple(ast.literal_eval(value))
            else:
                _parse_config_flag(config, f"--config.{key}={value}")
        except (flags.Error, ValueError, TypeError, SyntaxError):
            raise InputError(
                f"{name} must be {VALUE_KINDS[old_type]}, got {value!r}."
            ) from None
    return config


def _find_key(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The innermost section that a dotted key names, and the key's name there."""
    *path, leaf = key.split(".")
    section, said = config, "config"
    for part in path:
        if part not in section:
            raise InputError(
                f"Unknown section in --config.{key}. Available in {said}: "
                f"{', '.join(sorted(section))}."
            )
        section, said = section[part], f"{said}.{part}"
        if not isinstance(section, ConfigDict):
            raise InputError(f"{said} has no keys, got --config.{key}.")
    if not path and leaf not in section:
        raise InputError(
            f"Unknown section in --config.{key}. Available in {said}: "
            f"{', '.join(sorted(section))}."
        )
    if isinstance(section.get(leaf), ConfigDict):
        raise InputError(
            f"--config.{key} is a section. Keys in it: "
            f"{', '.join(sorted(section[leaf])) or 'none'}."
        )
    return section, leaf


def _read_value(text: str) -> bool | int | float | str | tuple:
    """A value whose type is not known: as Python would read it, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, list) else value


def _parse_config_flag(config: ConfigDict, argument: str) -> None:
    command = ["dig_jax", argument]
    flag = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=flag, sys_argv=command
    )
    flag(command)


def _draw(
    config: ConfigDict, options: flags.FlagValues, folder: Path, reuse: bool = False
) -> Path:
    """Draw the configuration's samples into a folder; returns the path of the npz.

    With `reuse` nothing is drawn where the same samples lie there already.
    """
    from dig_jax.evaluation import describe_samples, read_samples, save_samples
    from dig_jax.generation import sample_grid
    from dig_jax.images import write_png
    from dig_jax.run import load
    from dig_jax.training.progress import Progress

    run = load(_workdir(options), step=options.step, config=config)
    sampler = run.sampler()
    provenance = describe_samples(
        run.experiment, sampler.options, run.step, sampler.guide
    )
    samples = folder / "samples.npz"
    if reuse and samples.is_file() and read_samples(samples)[1] == provenance:
        print(f"Scoring {samples}, drawn before.")
        return samples
    with Progress(
        sampler.options.num_images, description="draw", unit="image"
    ) as progress:
        with progress.compiling():
            sampler.compile(run.params)
        images = sampler.draw(run.params, progress.update)
    save_samples(samples, images, sampler.labels, provenance)
    write_png(folder / "samples.png", sample_grid(images, sampler.labels))
    print(
        f"Drew {len(images)} images with the averaged parameters of step {run.step}: "
        f"{samples}, {folder / 'samples.png'}"
    )
    return samples


def _workdir(options: flags.FlagValues) -> Path:
    if not options.workdir:
        raise InputError(f"--mode={options.mode} needs --workdir=DIR.")
    return Path(os.path.expanduser(options.workdir))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
