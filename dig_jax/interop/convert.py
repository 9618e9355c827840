"""Convert weights that others have published, and ours into their naming.

    python -m dig_jax.interop.convert --from=FILE --config=CONFIG.py[:VARIANT] \\
        [--config.SECTION.KEY=VALUE ...] --to=FOLDER [--drop_variance]
    python -m dig_jax.interop.convert --from=FILE --autoencoder --to=FILE.safetensors
    python -m dig_jax.interop.convert --back=FOLDER --to=FILE [--naming=ldm|diffusers]

The first makes a folder that `python -m dig_jax.main --mode=sample --workdir=FOLDER`
draws with, and evaluate and export read; the configuration says which network it is and
how it samples. U-ViT, DiT, DiffiT and DiMR are known, in .safetensors or (needs torch:
pip install torch) .pth and .pt. The second converts the autoencoder of latent
diffusion. The third writes a run, a converted folder or an autoencoder's file in the
official naming. Every tensor is accounted for: what is missing, left over or of another
shape is named.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dig_jax.cli.command_line import parse
from dig_jax.config import save_run_config
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.experiment import create_experiment
from dig_jax.files.paths import make_folder, open_path
from dig_jax.files.shown import say
from dig_jax.interop.autoencoder import NAMINGS, read_autoencoder
from dig_jax.interop.autoencoder import tensors_of as autoencoder_tensors
from dig_jax.interop.checkpoints import KINDS, backbone_params, official_state_dict
from dig_jax.interop.files import digest_of, read_state_dict, write_state_dict
from dig_jax.interop.tensors import to_state_dict
from dig_jax.run import load
from dig_jax.storage.autoencoder_file import read_autoencoder_file, write_autoencoder
from dig_jax.storage.export_folder import (
    CONFIG,
    MANIFEST,
    PARAMETERS,
    write_manifest,
    write_parameters,
)
from dig_jax.storage.fingerprint import named_leaves
from dig_jax.versions import package_versions


def convert_backbone(
    source: Path, config: ConfigDict, out: Path, *, drop_variance: bool = False
) -> str:
    """Write the folder of a published network; returns what to say of it.

    Args:
        source: The published file.
        config: A run's configuration with a backbone of that kind and size.
        out: A new or empty folder, or an earlier conversion, which is replaced.
        drop_variance: Leave out the learned variance of a DiT or DiffiT.

    Raises:
        InputError: Another network's weights, or a folder with other things in it.
    """
    experiment = create_experiment(config)
    backbone, name = experiment.backbone, experiment.backbone_options.name
    state = read_state_dict(source)
    params = backbone_params(
        name, backbone, state, str(source), drop_variance=drop_variance
    )
    _check_folder(out)
    folder = open_path(out)
    make_folder(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_parameters(folder, params)
    save_run_config(config, folder)
    record = {
        "image_shape": backbone.image_shape,
        "num_classes": backbone.num_classes,
        "step": 0,
        "sigma_rel": None,
        "source": {
            "file": source.name,
            "sha256": digest_of(source),
            "network": KINDS[name].title,
            "variance_dropped": drop_variance,
        },
        "versions": package_versions(),
    }
    write_manifest(folder, [PARAMETERS, CONFIG], record)
    numbers = sum(leaf.size for leaf in named_leaves(params).values())
    return (
        f"Converted {len(state)} tensors of {KINDS[name].title}"
        f"{' without its variance' if drop_variance else ''}, {numbers:,} parameters, "
        f"into {out}. Draw with it:\n"
        f"  python -m dig_jax.main --mode=sample {shlex.quote(f'--workdir={out}')}"
    )


def convert_autoencoder(source: Path, out: Path) -> str:
    """Write the file of a published autoencoder; returns what to say of it.

    Raises:
        InputError: Another network's weights, or a file that cannot be written.
    """
    state = read_state_dict(source)
    autoencoder, params = read_autoencoder(state, str(source))
    described = {"source": source.name, "source_sha256": digest_of(source)}
    write_autoencoder(out, autoencoder, params, described)
    numbers = sum(leaf.size for leaf in named_leaves(params).values())
    return (
        f"Converted {len(state)} tensors of an autoencoder, {numbers:,} parameters, "
        f"into {out}."
    )


def convert_back(source: Path, out: Path, naming: str) -> str:
    """Write our weights in the official naming; returns what to say of it.

    Args:
        source: A run's workdir, a converted folder, or an autoencoder's file.
        out: A .safetensors, .pth or .pt file.
        naming: Of an autoencoder: ldm, diffusers or diffusers_old.

    Raises:
        InputError: There are no weights, or no official naming of the network.
    """
    if source.is_file():
        _, params = read_autoencoder_file(source)
        if naming not in NAMINGS:
            raise InputError(
                f"Unknown naming {naming!r}. Available: {', '.join(NAMINGS)}."
            )
        leaves = named_leaves(params)
        state = to_state_dict(params, autoencoder_tensors(leaves, naming), [])
    else:
        run = load(str(source))
        name = run.experiment.backbone_options.name
        state = official_state_dict(name, run.experiment.backbone, run.params)
    write_state_dict(out, state)
    return f"Wrote {len(state)} tensors into {out}."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.interop.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE")
    parser.add_argument("--back", type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER|FILE")
    parser.add_argument("--autoencoder", action="store_true")
    parser.add_argument("--naming", default="ldm", metavar="|".join(NAMINGS))
    parser.add_argument("--drop_variance", action="store_true")
    options, about_config = parser.parse_known_args(arguments)
    try:
        say(_convert(options, about_config))
    except (InputError, OSError) as error:  # a full disk
        say(error, error=True)
        return EXIT_BAD_INPUT
    return EXIT_DONE


def _convert(options: argparse.Namespace, about_config: Sequence[str]) -> str:
    if (options.source is None) == (options.back is None):
        raise InputError(
            "Either --from=FILE (published weights) or --back=FOLDER (our own) is "
            "needed, and not both."
        )
    if options.back is not None or options.autoencoder:
        if about_config:
            raise InputError(
                f"{' '.join(about_config)} is of the conversion of a backbone, and has "
                f"no effect here."
            )
        if options.back is None:
            return convert_autoencoder(options.source, options.to)
        return convert_back(options.back, options.to, options.naming)
    _, config, _ = parse(["--mode=summary", *about_config], ("summary",))
    return convert_backbone(
        options.source, config, options.to, drop_variance=options.drop_variance
    )


def _check_folder(out: Path) -> None:
    """Raise InputError unless a folder is new, empty or an earlier conversion."""
    if out.exists() and not out.is_dir():
        raise InputError(f"A conversion needs a folder, got the file {out}.")
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    others = [name for name in found if name not in (MANIFEST, PARAMETERS, CONFIG)]
    if others:
        raise InputError(
            f"A conversion needs a new or empty folder, or an earlier one to replace; "
            f"{out} holds {', '.join(others[:3])}{' ...' if len(others) > 3 else ''}."
        )


if __name__ == "__main__":
    sys.exit(main())
