"""Every flag of the command line, once: its kind, default, modes and help."""

from typing import Any, cast

from absl import flags

from dig_jax.cli.flag import Flag

MODE_HELP = {
    "train": "train, or go on where the workdir's run stopped (the default)",
    "sample": "draw images with the workdir's averaged parameters: samples.npz, "
    "samples.png",
    "evaluate": "score drawn images against the data set: eval/scores.jsonl",
    "stats": "write the reference statistics of the data set, which scores compare "
    "with",
    "export": "write a folder that draws images without dig_jax: StableHLO, parameters",
    "compare": "train and evaluate several backbones alike: compare.md, compare.json, "
    "plots",
    "summary": "the backbone's modules, parameters, multiply-accumulates, and its "
    "graph",
    "compile": "compile the training step for chips that are not there: does it fit, "
    "what is sent, what bounds it",
    "demo": "a page to play with a run, an export or converted weights, in a browser "
    "on this machine (needs: pip install tornado)",
    "report": "write report.html of the run, comparison or export in the workdir: a "
    "page that opens anywhere",
}

COMPLETIONS = 16
"""Images of --known that are drawn where nobody says how many."""

ALL = ()
FLAGS = (
    Flag(
        "config",
        "FILE[:VARIANT]",
        {
            ALL: "a Python file with get_config(); configs/NAME.py that is not there "
            "is the one that dig_jax brings along; after training, the workdir's own "
            "configuration is used, and this is not needed"
        },
        kind=None,
    ),
    Flag(
        "config.SECTION.KEY",
        "VALUE",
        {
            ALL: "another value for one key, in every mode; for example "
            "--config.sample.num_images=16 --config.sample.labels=3 "
            "--config.sample.labels=0,1,2 --config.sample.num_steps=250 "
            "--config.sample.seed=1 --config.sample.batch_size=256"
        },
        kind=None,
    ),
    Flag(
        "explain",
        "SECTION.KEY",
        {
            ALL: "say what a key is: type, default, meaning, choices, and what another "
            "value changes; --explain=SECTION lists the keys of a section"
        },
        kind=None,
    ),
    Flag("mode", "MODE", {ALL: "one of the above"}, default="train"),
    Flag(
        "workdir",
        "DIR",
        {
            ALL: "where the run is, or will be: a folder, or gs://BUCKET/RUN of Google "
            "Cloud Storage (needs: pip install gcsfs), as are the DIR and FILE.npz of "
            "the options that follow; or pretrained:NAME, a model that comes with "
            "dig_jax, for whatever reads a run: its outputs go to pretrained_NAME in "
            "the current folder"
        },
    ),
    Flag(
        "dry_run",
        "",
        {
            ("train", "compare"): "check configuration, data set and workdir, say what "
            "would be done, and end: nothing is compiled or written, no device is "
            "looked for, and no other process is waited for"
        },
        kind="switch",
        default=False,
    ),
    Flag(
        "out",
        "PATH",
        {
            ("sample",): "a folder to write to instead of the workdir",
            ("evaluate",): "a folder for the scores, and the images that are drawn for "
            "them, instead of the workdir",
            ("export",): "a folder to write to instead of WORKDIR/export",
            ("stats",): "FILE.npz to write instead of beside the data set",
            ("summary",): "of a file of tables (configs/paper_tables.py): a file to "
            "put them into, between its markers, or a new one",
        },
    ),
    Flag(
        "step",
        "N|best",
        {
            (
                "sample",
                "evaluate",
                "export",
                "demo",
            ): "instead of the newest checkpoint that of step N, or the best one, "
            "which training.keep_best chose; WORKDIR/checkpoints/ has a folder for "
            "each step that is kept"
        },
        default=None,
    ),
    Flag(
        "init_from",
        "DIR",
        {
            ("train",): "begin with the averaged parameters of the run in this "
            "workdir, export or pretrained:NAME (fine-tuning); a run that goes on "
            "needs it too, as it needs its configuration"
        },
    ),
    Flag(
        "profile_steps",
        "FIRST:LAST",
        {
            ("train",): "trace these steps into WORKDIR/profile, for TensorBoard "
            "(XProf) and Perfetto"
        },
        default=None,
    ),
    Flag(
        "adm",
        "",
        {("sample",): "also samples_adm.npz, for the ADM evaluator"},
        kind="switch",
        default=False,
    ),
    Flag(
        "png",
        "",
        {("sample",): "also each image as a PNG: samples/000012_CLASS.png"},
        kind="switch",
        default=False,
    ),
    Flag(
        "known",
        "IMAGE",
        {
            ("sample",): "draw the unknown pixels of this picture, of the data set's "
            "size, and keep the others as they are (inpainting): "
            f"{COMPLETIONS} completions, or --config.sample.num_images of them"
        },
    ),
    Flag(
        "mask",
        "MASK",
        {
            ("sample",): "which those are, a picture of the same size: white where to "
            "draw, black where the image is kept"
        },
    ),
    Flag(
        "license",
        "NAME",
        {
            ("export",): "of the parameters, for the model card, as model hubs name "
            "it: apache-2.0, cc-by-nc-4.0, ... (default: "
            "unknown, but for a model that comes with the package)"
        },
        default="unknown",
    ),
    Flag(
        "seeds",
        "N",
        {("evaluate",): "N seeds from sample.seed on; mean and deviation"},
        kind="whole",
        default=1,
        least=1,
    ),
    Flag(
        "samples",
        "FILE.npz|FOLDER",
        {
            ("evaluate",): "these images of whoever drew them: samples.npz, an ADM "
            "batch, or a folder of pictures (labels by class folder, or by names as "
            "--png writes); with --config or --workdir"
        },
    ),
    Flag(
        "split",
        "NAME",
        {("stats",): "of this part of the data set (default: train)"},
        default="train",
    ),
    Flag(
        "variants",
        "NAME,...",
        {("compare",): "these variants of the configuration alone"},
    ),
    Flag(
        "topology",
        "CHIP:SHAPE",
        {("compile",): "for example v5e:4x4, 2xv5e:16x16, h100:8"},
    ),
    Flag(
        "search_batch",
        "",
        {("compile",): "also the largest batch that fits"},
        kind="switch",
        default=False,
    ),
    Flag(
        "json",
        "",
        {("summary", "compile"): "one JSON object"},
        kind="switch",
        default=False,
    ),
    Flag(
        "beside",
        "DIR",
        {("demo",): "a second run or export, to draw from the same noise beside it"},
    ),
    Flag(
        "host",
        "ADDRESS",
        {
            ("demo",): "listen there (default: 127.0.0.1, which no other machine "
            "reaches; 0.0.0.0 lets in whoever reaches this machine)"
        },
        default="127.0.0.1",
    ),
    Flag(
        "port",
        "N",
        {("demo",): "listen there (default: 8600; 0 for any that is free)"},
        kind="whole",
        default=8600,
        least=0,
    ),
    Flag(
        "compilation_cache",
        "DIR|off",
        {
            ALL: "keep compiled programs here, or not at all; by default those for "
            "GPUs and TPUs in the user's cache folder, or wherever "
            "JAX_COMPILATION_CACHE_DIR says"
        },
        default=None,
    ),
    Flag(
        "distributed",
        "off|auto",
        {ALL: "auto: as Cloud TPU, SLURM or another cluster tells jax; off by default"},
        kind="choice",
        default=None,
        choices=("off", "auto"),
        several=True,
    ),
    Flag(
        "coordinator_address",
        "HOST:PORT",
        {
            ALL: "or by hand: process 0's address. 127.0.0.1 is not reached from "
            "outside this machine; another address trusts whoever reaches it"
        },
        default=None,
        several=True,
    ),
    Flag(
        "num_processes",
        "N",
        {ALL: "by hand: how many"},
        kind="whole",
        default=None,
        least=1,
        several=True,
    ),
    Flag(
        "process_id",
        "I",
        {ALL: "by hand: which one of them this is, from 0 on"},
        kind="whole",
        default=None,
        least=0,
        several=True,
    ),
    Flag(
        "initialization_timeout",
        "SECONDS",
        {ALL: "wait so long for all of them (default: 300)"},
        kind="whole",
        default=300,
        least=1,
        several=True,
    ),
)


def define_flags() -> flags.FlagValues:
    """The flags that a command line is parsed by."""
    options = flags.FlagValues()
    for flag in FLAGS:
        name, default = flag.name, cast(Any, flag.default)
        match flag.kind:
            case "text":
                flags.DEFINE_string(name, default, "", flag_values=options)
            case "switch":
                flags.DEFINE_boolean(name, default, "", flag_values=options)
            case "choice":
                flags.DEFINE_enum(name, default, flag.choices, "", flag_values=options)
            case "whole":
                flags.DEFINE_integer(
                    name, default, "", lower_bound=flag.least, flag_values=options
                )
    return options
