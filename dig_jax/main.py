"""Train, sample and look at image-diffusion backbones.

    python -m dig_jax.main --config=FILE --workdir=DIR [--mode=MODE] [options]

Modes:
  train     train, or go on where the workdir's run stopped (the default)
  sample    draw images with the workdir's averaged parameters: samples.npz, samples.png
  evaluate  score drawn images against the data set: eval/scores.jsonl
  stats     write the reference statistics of the data set, which scores compare with
  export    write a folder that draws images without dig_jax: StableHLO, parameters
  compare   train and evaluate several backbones alike: compare.md, compare.json, plots
  summary   the backbone's modules, parameters, multiply-accumulates, and its graph
  compile   compile the training step for chips that are not there: does it fit, what is
            sent, what bounds it

Options:
  --config=FILE[:VARIANT]   a Python file with get_config(); after training, the
                            workdir's own configuration is used, and this is not needed
  --config.SECTION.KEY=VALUE  another value for one key, in every mode; for example
                            --config.sample.num_images=16 --config.sample.labels=3
                            --config.sample.labels=0,1,2 --config.sample.num_steps=250
                            --config.sample.seed=1 --config.sample.batch_size=256
  --workdir=DIR             where the run is, or will be: a folder, or gs://BUCKET/RUN
                            of Google Cloud Storage (needs: pip install gcsfs), as are
                            the DIR and FILE.npz of the options that follow
  --out=DIR                 sample: write here instead of the workdir
  --out=DIR                 export: write here instead of WORKDIR/export
  --out=FILE.npz            stats: write here instead of beside the data set
  --out=FILE                summary of a file of tables (configs/paper_tables.py): put
                            them between the file's markers, or into a new file
  --step=N|best             sample, evaluate: this checkpoint instead of the newest
  --profile_steps=FIRST:LAST  train: trace these steps into WORKDIR/profile, for
                            TensorBoard (XProf) and Perfetto
  --adm                     sample: also samples_adm.npz, for the ADM evaluator
  --seeds=N                 evaluate: N seeds from sample.seed on; mean and deviation
  --samples=FILE.npz        evaluate: these images (samples.npz, or an ADM batch) of
                            whoever drew them; with --config or --workdir
  --split=NAME              stats: of this part of the data set (default: train)
  --topology=CHIP:SHAPE     compile: for example v5e:4x4, 2xv5e:16x16, h100:8
  --search_batch            compile: also the largest batch that fits
  --json                    summary, compile: one JSON object

Several processes (train), which share a workdir and end together:
  --distributed=off|auto    auto: as Cloud TPU, SLURM or another cluster tells jax; off
                            by default
  --coordinator_address=HOST:PORT --num_processes=N --process_id=I
                            or by hand: process 0's address, how many, and which one.
                            127.0.0.1 is not reached from outside this machine; another
                            address trusts whoever reaches it
  --initialization_timeout=SECONDS  wait so long for all of them (default: 300)

Exit codes: 0 done (or saved after SIGTERM), 75 no progress, 76 another process of the
run has ended (start all again after either), 77 not finite, 78 bad configuration or
input, 130 saved after Ctrl-C.
"""

import sys
import traceback

from dig_jax.command_line import parse
from dig_jax.distributed import (
    end_processes,
    is_distributed,
    peer_error,
    processes_of,
    start_processes,
)
from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    EXIT_PEER_FAILURE,
    EXIT_UNFORESEEN,
    CheckpointCorruptError,
    InputError,
    NonFiniteError,
)
from dig_jax.modes import MODES
from dig_jax.versions import check_versions


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"--help", "-h", "--helpfull"} & set(arguments):
        print(__doc__)
        return EXIT_DONE
    try:
        check_versions()
        mode, config, options = parse(arguments, MODES)
        processes = processes_of(options)
        if processes is not None:
            start_processes(processes)
        code = MODES[mode](config, options)
    except BaseException as error:
        code = _explain(error)
    return end_processes(code)


def _explain(error: BaseException) -> int:
    """Say what went wrong; returns the exit code.

    Raises:
        BaseException: The error itself, if nobody foresaw it.
    """
    if (peer := peer_error(error)) is not None:
        print(f"peer failure: {peer}", file=sys.stderr)
        return EXIT_PEER_FAILURE
    match error:
        case InputError() | CheckpointCorruptError() | OSError():
            # OSError: a full disk, a folder that may not be written.
            print(f"error: {error}", file=sys.stderr)
            return EXIT_BAD_INPUT
        case NonFiniteError():
            print(f"not finite: {error}", file=sys.stderr)
            return EXIT_NON_FINITE
        case KeyboardInterrupt():
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
    if is_distributed():  # Python's own exit would wait for the other processes
        traceback.print_exception(error)
        return EXIT_UNFORESEEN
    raise error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
