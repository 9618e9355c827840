"""Draw images with a trained backbone, and score them against real ones."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, Key, UInt8
from pydantic import NonNegativeInt, PositiveInt

from dig_jax.config import call_with_section, config_to_json
from dig_jax.data.loader import read_all
from dig_jax.data.transforms import to_uint8
from dig_jax.diffusion import make_denoiser
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment, open_dataset
from dig_jax.images import choose_scale, image_grid
from dig_jax.interfaces import Images, LabelledImages, Params, UInt8Images
from dig_jax.metrics import METRICS, score
from dig_jax.samplers import create_solver, sample, uniform_times
from dig_jax.sharding import DATA_AXIS

LabelRule: TypeAlias = str | int | Sequence[int]

# Images are computed in groups of a fixed size, whatever the batch: how a matrix
# product rounds depends on its shape, and so would an image on its batch.
GROUP_SIZE = {"cpu": 16}
ACCELERATOR_GROUP_SIZE = 64


@dataclass(frozen=True)
class SampleOptions:
    """How images are drawn.

    Attributes:
        solver: Entry of SOLVERS.
        num_steps: Steps of the solver.
        t_end: Time at which the solver stops; it starts at 1.
        num_images: How many to draw.
        labels: "balanced" (each class in turn), one label, or several to go through in
            turn: a tuple, or text such as "0,3,5".
        seed: The same seed gives the same images.
        batch_size: Images in one call of the device; changes no image.
    """

    solver: str = "euler_maruyama"
    num_steps: PositiveInt = 1000
    t_end: float = 1e-3
    num_images: PositiveInt = 100
    labels: str | int | tuple[int, ...] = "balanced"
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64


@dataclass(frozen=True)
class EvaluationOptions:
    """Attributes: metrics: Entries of METRICS."""

    metrics: tuple[str, ...] = tuple(sorted(METRICS))


def create_sample_options(experiment: Experiment) -> SampleOptions:
    """The sample section, checked.

    Raises:
        InputError: What cannot be drawn with this backbone.
    """
    section = experiment.config.sample.to_dict()
    options = call_with_section("sample", SampleOptions, section)
    return check_sample_options(experiment, options)


def check_sample_options(
    experiment: Experiment, options: SampleOptions
) -> SampleOptions:
    """Raise InputError for a solver, times or labels that do not work."""
    create_solver(options.solver, experiment.sde, options.num_steps)
    uniform_times(options.num_steps, t_end=options.t_end)
    choose_labels(options.labels, options.num_images, experiment.backbone.num_classes)
    return options


def create_evaluation_options(experiment: Experiment) -> EvaluationOptions:
    """The evaluation section, checked.

    Raises:
        InputError: Unknown metric.
    """
    section = experiment.config.evaluation.to_dict()
    options = call_with_section("evaluation", EvaluationOptions, section)
    for name in options.metrics:
        if name not in METRICS:
            raise InputError(
                f"Unknown metric {name!r} in config.evaluation.metrics. Available: "
                f"{', '.join(sorted(METRICS))}."
            )
    return options


def choose_labels(
    rule: LabelRule, num_images: int, num_classes: int
) -> Int[np.ndarray, "batch"] | None:
    """The label of each image; None for an unconditional backbone.

    Image i's label depends on the rule and i alone, not on how many are drawn.

    Raises:
        InputError: A label that does not exist, or labels where there are none.
    """
    if num_classes == 0:
        if rule != "balanced":
            raise InputError(
                f"This backbone is unconditional (num_classes=0) and takes no labels; "
                f"got sample.labels={rule!r}. Leave it at 'balanced'."
            )
        return None
    if rule == "balanced":
        choices = tuple(range(num_classes))
    elif isinstance(rule, str):
        try:
            choices = tuple(int(part) for part in rule.strip("()[], ").split(","))
        except ValueError:
            raise InputError(
                f"sample.labels must be 'balanced', a label, or labels such as '0,3', "
                f"got {rule!r}."
            ) from None
    else:
        choices = (rule,) if isinstance(rule, int) else tuple(rule)
    wrong = [label for label in choices if not 0 <= label < num_classes]
    if wrong or not choices:
        raise InputError(
            f"sample.labels must lie in 0 to {num_classes - 1}, got "
            f"{', '.join(map(str, wrong)) or 'none'}."
        )
    return np.resize(np.array(choices, np.int32), num_images)


class Sampler:
    """Draws uint8 images with the parameters it is given; compiles once for all calls.

    Args:
        experiment: Backbone, SDE and prediction target.
        options: Solver, its steps, and the batch; kept as `options`.
        mesh: The devices that images are spread over.
    """

    def __init__(self, experiment: Experiment, options: SampleOptions, mesh: Mesh):
        self._experiment = experiment
        self.options = options
        self._group = GROUP_SIZE.get(
            mesh.devices.flat[0].platform, ACCELERATOR_GROUP_SIZE
        )
        quantum = self._group * mesh.size
        wanted = min(options.batch_size, options.num_images)
        self.batch_size = -(-wanted // quantum) * quantum
        spread = PartitionSpec(DATA_AXIS)
        self._draw_batch = jax.jit(
            jax.shard_map(
                self._draw_on_device,
                mesh=mesh,
                in_specs=(PartitionSpec(), spread, spread),
                out_specs=spread,
                check_vma=False,
            )
        )
        self._compiled: Callable | None = None

    @property
    def labels(self) -> Int[np.ndarray, "batch"] | None:
        """The label of each image that `draw` gives."""
        options = self.options
        return choose_labels(
            options.labels, options.num_images, self._experiment.backbone.num_classes
        )

    def compile(self, params: Params) -> None:
        """Compile now; otherwise the first `draw` does."""
        if self._compiled is None:
            batch = self._batch(0, self.labels)
            self._compiled = self._draw_batch.lower(params, *batch).compile()

    def draw(
        self, params: Params, on_progress: Callable[[int], None] | None = None
    ) -> UInt8Images:
        """Draw `options.num_images` images.

        Args:
            params: Parameters of the backbone.
            on_progress: Called with the number of images drawn so far.

        Raises:
            NonFiniteError: The network's output was not finite.
        """
        self.compile(params)
        assert self._compiled is not None
        labels, drawn = self.labels, []
        for start in range(0, self.options.num_images, self.batch_size):
            images = self._compiled(params, *self._batch(start, labels))
            drawn.append(to_uint8(images))
            if on_progress is not None:
                on_progress(min(start + self.batch_size, self.options.num_images))
        return np.concatenate(drawn)[: self.options.num_images]

    def _batch(
        self, start: int, labels: Int[np.ndarray, "image"] | None
    ) -> tuple[Key[Array, "batch"], Int[np.ndarray, "batch"] | None]:
        """Keys and labels of images start, start + 1, ...; past the end they repeat."""
        index = np.arange(start, start + self.batch_size)
        keys = _image_keys(self.options.seed, index)
        if labels is None:
            return keys, None
        return keys, labels[np.minimum(index, len(labels) - 1)]

    def _draw_on_device(
        self,
        params: Params,
        keys: Key[Array, "batch"],
        labels: Int[Array, "batch"] | None,
    ) -> Images:
        """One device's share of a batch, one group after the other."""
        experiment, options = self._experiment, self.options
        solver = create_solver(options.solver, experiment.sde, options.num_steps)
        times = uniform_times(options.num_steps, t_end=options.t_end)

        def draw_group(
            group: tuple[Key[Array, "group"], Int[Array, "group"] | None],
        ) -> Images:
            group_keys, group_labels = group
            denoise = make_denoiser(
                experiment.backbone.apply,
                params,
                experiment.sde,
                experiment.objective.prediction,
                group_labels,
            )
            shape = experiment.backbone.image_shape
            return sample(denoise, solver, times, group_keys, shape)

        groups = jax.tree.map(
            lambda a: a.reshape(-1, self._group, *a.shape[1:]), (keys, labels)
        )
        images = jax.lax.map(draw_group, groups)
        return images.reshape(-1, *images.shape[2:])


@jax.jit
def _image_keys(seed: int | Array, index: Int[Array, "batch"]) -> Key[Array, "batch"]:
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)


def sample_grid(
    images: UInt8Images, labels: Int[np.ndarray, "batch"] | None, columns: int = 10
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of samples: a row for each of 2 to 20 equally frequent classes.

    Otherwise the first images in the order they have.
    """
    classes = [] if labels is None else list(np.unique(labels))
    rows = [images[labels == label][:columns] for label in classes]
    if 2 <= len(rows) <= 20 and len({len(row) for row in rows}) == 1:
        columns, shown = len(rows[0]), np.concatenate(rows)
    else:
        shown = images[: columns**2]
    return image_grid(shown, columns, scale=choose_scale(max(images.shape[1:3])))


def describe_samples(
    experiment: Experiment, options: SampleOptions, step: int
) -> dict[str, Any]:
    """Where images come from: all that they depend on, for the record."""
    config = experiment.config
    solver = create_solver(options.solver, experiment.sde, options.num_steps)
    return {
        "checkpoint_step": step,
        "parameters": f"ema {config.training.ema_decay}",
        "function_evaluations": sum(solver.evaluations),
        "dtype": config.backbone.get("dtype", "float32"),
        "platform": jax.default_backend(),
        "config": hashlib.sha256(config_to_json(config).encode()).hexdigest()[:16],
        **{k: v for k, v in asdict(options).items() if k != "batch_size"},
    }


def save_samples(
    path: Path,
    images: UInt8Images,
    labels: Int[np.ndarray, "batch"] | None,
    provenance: dict[str, Any],
) -> None:
    """Write samples.npz: `images`, `labels` (0 where there are none), `provenance`."""
    if labels is None:
        labels = np.zeros(len(images), np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.stem + ".tmp.npz")
    np.savez_compressed(
        unfinished,
        images=images,
        labels=labels,
        provenance=np.array(json.dumps(provenance)),
    )
    unfinished.replace(path)


def read_samples(path: Path) -> tuple[LabelledImages, dict[str, Any]]:
    """Read what `save_samples` wrote.

    Raises:
        InputError: The file is not such an npz.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = LabelledImages(arrays["images"], arrays["labels"])
            return images, json.loads(str(arrays["provenance"]))
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} is no samples.npz with images, labels and provenance: {error}."
        ) from error


def score_samples(
    experiment: Experiment, generated: LabelledImages, provenance: dict[str, Any]
) -> dict[str, Any]:
    """A record of all scores of generated images, with their provenance."""
    start = time.perf_counter()
    options = create_evaluation_options(experiment)
    names = [
        name
        for name in options.metrics
        if experiment.backbone.num_classes or name != "label_accuracy"
    ]
    train = open_dataset(experiment, "train")
    test = open_dataset(experiment, "test")
    scores = score(names, generated, read_all(train), read_all(test))
    return {
        **scores,
        "num_train": len(train),
        "num_test": len(test),
        "dataset": train.name,
        "dataset_fingerprint": train.fingerprint,
        "seconds": round(time.perf_counter() - start, 2),
        **provenance,
    }


def append_scores(workdir: Path, record: dict[str, Any]) -> Path:
    """Add a record to eval/scores.jsonl, one JSON object a line."""
    path = workdir / "eval" / "scores.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return path


def format_scores(record: dict[str, Any]) -> str:
    """The scores of a record as text, each beside what real test images reach."""
    lines = [
        f"{record['num_images']} images of step {record['checkpoint_step']} "
        f"({record['solver']}, {record['num_steps']} steps) against "
        f"{record['num_train']} training images of {record['dataset']}",
        f"  {'':<18}{'drawn':>9}{'real test images':>19}",
    ]
    for name, value in record.items():
        if f"{name}_test" in record:
            lines.append(f"  {name:<18}{value:>9.4f}{record[f'{name}_test']:>19.4f}")
    return "\n".join(lines)
