"""The real images of an experiment: opened, and checked against its network."""

from dig_jax.data import DATASETS
from dig_jax.data.latents import LatentSource, check_latents
from dig_jax.errors import Findings, InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import open_path
from dig_jax.interfaces import Backbone, ImageSource
from dig_jax.options import (
    DataOptions,
)
from dig_jax.options.keys import (
    call_with_section,
)
from dig_jax.storage.autoencoder_file import read_autoencoder_file, weights_digest


def open_dataset(experiment: Experiment, split: str) -> ImageSource:
    """One split of the configuration's data set, checked against its backbone.

    Raises:
        InputError: Not prepared, or of another shape or number of classes.
    """
    options, backbone = experiment.data, experiment.backbone
    section = {
        "image_size": options.image_size,
        "channels": options.channels,
        "data_dir": options.data_dir,
        **options.keywords,
    }
    if options.name == "synthetic" and section["num_classes"] is None:
        section["num_classes"] = backbone.num_classes  # as many as are wanted
    constructor = DATASETS[options.name]
    source = call_with_section("data", constructor, section, split=split)
    findings = Findings()
    with findings.noting():
        if isinstance(source, LatentSource):  # `create_latents` knows their shape
            _check_latents(options, source)
        else:
            _check_shape(source, backbone)
    with findings.noting():
        _check_classes(source, backbone)
    with findings.noting():
        if options.random_flip and not source.may_flip:
            raise InputError(
                f"config.data.random_flip must be False for {source.name!r}: a "
                f"mirrored image is not one of its class."
            )
    findings.raise_all()
    return source


def _check_shape(source: ImageSource, backbone: Backbone) -> None:
    if source.image_shape != backbone.image_shape:
        there, here = (
            "x".join(map(str, shape))
            for shape in (source.image_shape, backbone.image_shape)
        )
        raise InputError(
            f"config.data.image_size and channels must be those of {source.name!r}, "
            f"{there} (rows, cols, channels), got {here}."
        )


def _check_classes(source: ImageSource, backbone: Backbone) -> None:
    count = source.num_classes
    if backbone.num_classes in (0, count):
        return
    wanted = f"0 (unconditional) or {count}, the classes of {source.name!r}"
    if not count:
        wanted = f"0 (unconditional): {source.name!r} has no classes"
    raise InputError(
        f"config.backbone.num_classes must be {wanted}; got {backbone.num_classes}."
    )


def named_after(experiment: Experiment, source: ImageSource) -> Experiment:
    """The experiment with the names of a data set's classes, and its own name.

    Names that are the labels in digits, in their order, are left out.
    """
    names = source.class_names
    numbers = tuple(str(label) for label in range(len(names)))
    names = () if names == numbers or not experiment.backbone.num_classes else names
    title = "" if source.name == experiment.data.name else source.name
    if (names, title) == (experiment.data.class_names, experiment.data.title):
        return experiment
    return experiment.changed({"data.class_names": names, "data.title": title})


def _check_latents(options: DataOptions, source: LatentSource) -> None:
    """Raise InputError for latents of another scale or encoder than a section names."""
    encoder = None
    if options.autoencoder:
        _, params = read_autoencoder_file(open_path(options.autoencoder))
        encoder = weights_digest(params["encoder"])
    check_latents(source, options.latent_scale, encoder)


def open_pixels(experiment: Experiment, split: str) -> ImageSource:
    """What drawn images are compared with: the data set, or what it has latents of.

    Raises:
        InputError: As `open_dataset`; or latents without what decodes drawn ones, or
            whose images are not there.
    """
    source = open_dataset(experiment, split)
    if not isinstance(source, LatentSource):
        return source
    if not experiment.data.autoencoder:
        raise InputError(
            "Drawn latents are scored as pixels: name the autoencoder that decodes "
            "them with config.data.autoencoder=FILE."
        )
    return source.open_pixels()
