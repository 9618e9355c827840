"""Export a run's sampler: StableHLO and parameters that need no dig_jax to run.

A sampler is exported twice. `sampler.stablehlo` draws any number of images on any of
the platforms. `group_PLATFORM.stablehlo` draws one group, of the size that dig_jax
draws in, and gives the same bits: jax simplifies a program of symbolic sizes or several
platforms once more before it compiles it, and XLA then rounds some of them otherwise
(heun and dpm_solver, by up to 4e-5 on digits).

Each platform has the program that its machines would make, but for attention, which is
without cuDNN: a call into a library, which StableHLO does not promise to keep.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float32, Int32

from dig_jax.config import save_run_config, with_sections
from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.export.model_card import UNKNOWN_LICENCE, check_licence, model_card
from dig_jax.files.paths import AnyPath, make_folder, write_whole
from dig_jax.interfaces import Images
from dig_jax.options import SampleOptions
from dig_jax.reporting import REPORT
from dig_jax.reporting.images import write_png
from dig_jax.run import Run
from dig_jax.sampling.choices import check_sample_options
from dig_jax.sampling.decoding import Decoder, FirstChannels
from dig_jax.sampling.grid import MOST_ROWS, sample_grid
from dig_jax.sampling.groups import group_size, image_keys
from dig_jax.sampling.kept import draw_shown
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.checkpoint_record import unflatten
from dig_jax.storage.export_folder import (
    CONFIG,
    DECODER_PREFIX,
    GUIDE_PREFIX,
    MANIFEST,
    PARAMETERS,
    SAMPLER,
    group_file,
    named_parameters,
    write_manifest,
    write_parameters,
)
from dig_jax.versions import package_versions

PLATFORMS = ("cpu", "cuda", "tpu")
"""What a sampler is exported for."""

SCRIPT = "sample.py"
CARD = "README.md"
PICTURE = "examples.png"
"""Not samples.png, which sample.py may write beside it."""
_OF_HUBS = (".git", ".gitattributes")
"""What a copy of a hub's repository has beside an export."""

Parameters: TypeAlias = dict[str, Float32[Array, "..."]]
"""Parameters by their flat names, as they lie in the file."""

Draw: TypeAlias = Callable[
    [Parameters, Int32[Array, ""], Int32[Array, "batch"], Int32[Array, "batch"]], Images
]
"""`(parameters, seed, index, labels) -> images`, about [-1, 1].

Image `index` of a seed depends on the two and its label alone. Networks without classes
ignore the labels.
"""


def export_run(
    run: Run,
    options: SampleOptions,
    out: AnyPath,
    *,
    platforms: Sequence[str] = PLATFORMS,
    licence: str = UNKNOWN_LICENCE,
    num_pictures: int = 16,
) -> None:
    """Write a folder that draws a run's images without dig_jax.

    Its README.md is a model card as model hubs read it, with the metadata at its head;
    the folder can be uploaded as it is.

    Args:
        run: The run, with the parameters that are exported.
        options: The solver, its steps and guidance, which are fixed now; its labels,
            seed and number of images can be chosen when drawing.
        out: A new or empty folder, or an earlier export, which is replaced.
        platforms: Some of PLATFORMS.
        licence: Of the parameters, as hubs name it: apache-2.0, cc-by-nc-4.0, ...
        num_pictures: Images that are drawn now for the card's picture; 0 for none. Of
            a few classes, drawn in turn, some more, so that each has as many.

    Raises:
        InputError: Options that do not work for the run, an unknown platform, no name
            of a licence, or a folder with other things in it.
        NonFiniteError: The network's output for a picture was not finite.
    """
    platforms = _choose_platforms(platforms)
    check_licence(licence)
    check_sample_options(run.experiment, options)
    # Labels come later; the rule "training" would read the data set.
    if options.labels == "training":
        options = replace(options, labels="balanced")
    sampler = run.sampler(options)
    others = (sampler.guide, _decoder_of(sampler))
    _prepare_folder(out)
    experiment = _with_portable_attention(run.experiment)
    all_params = (run.params, *(one.params if one else None for one in others))
    of_groups = {
        platform: _draw_groups(run, experiment, options, sampler, platform)
        for platform in platforms
    }
    files = _export_all(named_parameters(*all_params), of_groups)
    for name, exported in files.items():
        write_whole(out / name, bytes(exported.serialize()))
    write_parameters(out, *all_params)
    # The run's configuration, drawing as exported, on whatever devices there are.
    sampling = {**asdict(options), "sigma_rel": run.sigma_rel}
    save_run_config(with_sections(experiment.config, sample=sampling, mesh={}), out)
    script = Path(__file__).with_name("standalone.py").read_text(encoding="utf-8")
    write_whole(out / SCRIPT, script)
    pictures = [PICTURE] if num_pictures else []
    if pictures:
        _draw_picture(run, replace(options, num_images=num_pictures), out / PICTURE)
    shown = PICTURE if pictures else ""
    card = model_card(run, options, platforms, licence=licence, picture=shown)
    write_whole(out / CARD, card)
    record = _describe(run, sampler, platforms, files[SAMPLER])
    write_manifest(out, [*files, PARAMETERS, CONFIG, SCRIPT, CARD, *pictures], record)


def _export_all(
    named: Mapping[str, Any], of_groups: dict[str, Draw]
) -> dict[str, export.Exported]:
    """The exported samplers by their files: of any number, and of each group's."""
    files = {SAMPLER: _export(named, _draw_any_number(of_groups), [*of_groups])}
    for platform, draw in of_groups.items():
        files[group_file(platform)] = _export(
            named, draw, [platform], batch=group_size(platform)
        )
    return files


def _describe(
    run: Run, sampler: Sampler, platforms: list[str], exported: export.Exported
) -> dict[str, Any]:
    """What an export's manifest says of the run."""
    return {
        "platforms": platforms,
        "group_sizes": {name: group_size(name) for name in platforms},
        "image_shape": sampler.to_pixels.image_shape,
        "num_classes": run.experiment.backbone.num_classes,
        "class_names": run.experiment.data.class_names,
        "step": run.step,
        "init_from": run.init_from,
        "sigma_rel": run.sigma_rel,
        "calling_convention_version": exported.calling_convention_version,
        "versions": package_versions(),
    }


def _draw_picture(run: Run, options: SampleOptions, file: AnyPath) -> None:
    """Draw a few images for the card, as `Run.sample` draws them."""
    classes = run.experiment.backbone.num_classes
    if options.labels == "balanced" and 2 <= classes <= MOST_ROWS:
        each = -(-options.num_images // classes)
        options = replace(options, num_images=each * classes)
    sampler = run.sampler(options)
    images = draw_shown(sampler, run.params)
    grid = sample_grid(images, sampler.labels, class_names=sampler.class_names)
    write_png(file, grid)


def _choose_platforms(names: Sequence[str]) -> list[str]:
    """Those of PLATFORMS that are named, in their order."""
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown or not names:
        raise InputError(
            f"A sampler can be exported for {', '.join(PLATFORMS)}, got "
            f"{', '.join(unknown) or 'none'}."
        )
    return [name for name in PLATFORMS if name in names]


def _decoder_of(sampler: Sampler) -> Decoder | None:
    """What decodes a sampler's latents; None where it draws pixels.

    Raises:
        InputError: Latents without an autoencoder.
    """
    if isinstance(sampler.to_pixels, FirstChannels):
        raise InputError(
            "An export of a network that draws latents needs the autoencoder that "
            "decodes them: name it with config.data.autoencoder=FILE."
        )
    return sampler.to_pixels if isinstance(sampler.to_pixels, Decoder) else None


def _prepare_folder(out: AnyPath) -> None:
    """Make a folder, or take the manifest out of one, so that it is no export now.

    Raises:
        InputError: There are other things in it.
    """
    ours = {MANIFEST, CONFIG, SAMPLER, PARAMETERS, SCRIPT, CARD, PICTURE, *_OF_HUBS}
    ours.add(REPORT)
    ours |= {group_file(platform) for platform in PLATFORMS}
    if out.exists() and not out.is_dir():
        raise InputError(f"An export needs a folder, got the file {out}.")
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    others = [name for name in found if name not in ours]
    if others:
        raise InputError(
            f"An export needs a new or empty folder, or an earlier export to replace; "
            f"{out} holds {', '.join(others[:3])}{' ...' if others[3:] else ''}."
        )
    make_folder(out)
    for name in (MANIFEST, PICTURE, REPORT):
        (out / name).unlink(missing_ok=True)
    for platform in PLATFORMS:
        (out / group_file(platform)).unlink(missing_ok=True)


def _with_portable_attention(experiment: Experiment) -> Experiment:
    """The experiment with attention that every platform has."""
    if "attention" in experiment.backbone_options.keywords:
        return experiment.changed({"backbone.attention": "xla"})
    return experiment


def _draw_groups(
    run: Run,
    experiment: Experiment,
    options: SampleOptions,
    own: Sampler,
    platform: str,
) -> Draw:
    """The run's own sampler for whole groups of the platform's size."""
    guide, decoder = own.guide, _decoder_of(own)
    target = "gpu" if platform == "cuda" else platform
    with compiling_for(target):
        experiment = experiment.changed()
    sampler = Sampler(experiment, options, run.mesh, guide)

    def draw(
        parameters: Parameters,
        seed: Int32[Array, ""],
        index: Int32[Array, "batch"],
        labels: Int32[Array, "batch"],
    ) -> Images:
        guides = None
        if guide is not None:
            prefix = len(GUIDE_PREFIX)
            named = {
                name[prefix:]: leaf
                for name, leaf in parameters.items()
                if name.startswith(GUIDE_PREFIX)
            }
            guides = unflatten(named, guide.params)
        with compiling_for(target):
            drawn = sampler.draw_groups(
                unflatten(parameters, run.params),
                guides,
                image_keys(seed, index),
                labels if experiment.backbone.num_classes else None,
                group=group_size(platform),
            )
            if decoder is None:
                return drawn
            of_decoder = {
                name.removeprefix(DECODER_PREFIX): leaf
                for name, leaf in parameters.items()
                if name.startswith(DECODER_PREFIX)
            }
            decode = partial(decoder.decode, unflatten(of_decoder, decoder.params))
            # One by one: as much memory as an image takes.
            return jax.lax.map(lambda latent: decode(latent[None])[0], drawn)

    return draw


def _draw_any_number(of_groups: dict[str, Draw]) -> Draw:
    """The sampler for any number of images, on the platform that it runs on."""

    def padded(draw: Draw, group: int) -> Draw:
        def draw_padded(parameters, seed, index, labels):
            count = index.shape[0]
            whole = -(-count // group) * group
            place = jnp.minimum(jnp.arange(whole), count - 1)
            images = draw(parameters, seed, index[place], labels[place])
            return images[jnp.arange(count)]

        return draw_padded

    branches = {
        platform: padded(draw, group_size(platform))
        for platform, draw in of_groups.items()
    }

    def draw_any_number(parameters, seed, index, labels):
        inputs = parameters, seed, index, labels
        return jax.lax.platform_dependent(*inputs, **branches)

    return draw_any_number


def _export(
    named: Mapping[str, Any],
    draw: Draw,
    platforms: Sequence[str],
    batch: int | None = None,
) -> export.Exported:
    """A sampler as StableHLO, for a batch of that size or of any.

    Args:
        named: All parameters, by their flat names.
        draw: The sampler.
        platforms: Some of PLATFORMS.
        batch: Images of a call; None for any number.
    """
    parameters = {
        name: jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
        for name, leaf in named.items()
    }
    shape = (batch,) if batch else export.symbolic_shape("batch")
    one, many = (jax.ShapeDtypeStruct(s, jnp.int32) for s in ((), shape))
    exporting = export.export(jax.jit(draw), platforms=platforms)
    return exporting(parameters, one, many, many)
