"""A run as the page plays with it: draw, go between two images, look at a node."""

import base64
import io
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from dig_jax.demo.asked import (
    MOST_GUIDANCE,
    MOST_IMAGES,
    MOST_SEED,
    MOST_STEPS,
    Asked,
    frames_that_fit,
)
from dig_jax.demo.nodes import Nodes
from dig_jax.errors import InputError
from dig_jax.options import SampleOptions
from dig_jax.run import Run
from dig_jax.sampling.choices import choose_solver
from dig_jax.sampling.films import Film, draw_between, draw_film
from dig_jax.sampling.label_rules import (
    LABEL_RULES,
    MOST_NAMED,
    choose_labels,
    did_you_mean,
)
from dig_jax.solvers import SOLVERS

MOST_FILMS = 8


@dataclass(frozen=True, eq=False)
class Played:
    """A run on the page.

    Attributes:
        run: The run.
        films: The newest films, for who looks at one of their images.
    """

    run: Run
    films: OrderedDict[tuple[SampleOptions, bool], Film] = field(
        default_factory=OrderedDict
    )

    @property
    def name(self) -> str:
        """The network, its size and training, and the folder's name."""
        run = self.run
        count = sum(leaf.size for leaf in jax.tree.leaves(run.params))
        size = f"{count / 1e6:.2f}M" if count < 1e8 else f"{count / 1e6:.0f}M"
        place = run.workdir.name if run.workdir is not None else ""
        network = run.experiment.backbone_options.name
        return f"{network}, {size} parameters, step {run.step:,} · {place}"

    @property
    def _own(self) -> SampleOptions:
        options = self.run.experiment.sample
        return SampleOptions(**{**vars(options), "sigma_rel": self.run.sigma_rel})

    def describe(self) -> dict[str, Any]:
        """What the page must know before it asks for anything."""
        experiment, own = self.run.experiment, self._own
        backbone = experiment.backbone
        names = self._class_names
        nodes = self._nodes
        return {
            "name": self.name,
            "image": list(backbone.image_shape),
            "classes": [
                {"label": label, "name": name} for label, name in enumerate(names)
            ],
            "guided": bool(backbone.null_label or own.guide),
            "graph": None if nodes is None else nodes.describe(),
        }

    @property
    def _class_names(self) -> tuple[str, ...]:
        experiment = self.run.experiment
        count = experiment.backbone.num_classes
        return experiment.data.class_names or tuple(map(str, range(count)))

    def defaults(self) -> dict[str, Any]:
        """What the page's fields begin with, and their bounds."""
        own = self._own
        return {
            "solver": own.solver,
            "steps": str(own.num_steps),
            "guidance": f"{own.guidance:g}",
            "seed": "0",
            "number": "8",
            "solvers": sorted(SOLVERS),
            "bounds": {
                "number": [1, MOST_IMAGES],
                "steps": [1, max(MOST_STEPS, own.num_steps)],
                "guidance": [0, MOST_GUIDANCE],
                "seed": [0, MOST_SEED],
            },
        }

    def warm_up(self) -> None:
        """Compile what the page's own settings need, and draw an image."""
        fields = {**self.defaults(), "number": "1", "class": ""}
        self.draw(Asked(fields))
        ends = dict(zip(("from_class", "to_class"), self._class_names, strict=False))
        seeds = {"from_seed": "0", "to_seed": "1"}
        self.between(Asked({**fields, **ends, **seeds, "number": "2"}))

    def draw(self, asked: Asked) -> dict[str, Any]:
        """Images while they are drawn, each a strip of frames."""
        began = time.monotonic()
        film = self._film(asked, asked.whole("number", 1, MOST_IMAGES))
        names = self._class_names
        return {
            "name": self.name,
            "seconds": time.monotonic() - began,
            "times": [float(t) for t in film.times],
            "images": [
                {
                    "name": "" if film.labels is None else names[film.labels[i]],
                    "strip": _strip(film.frames[:, i]),
                }
                for i in range(film.frames.shape[1])
            ],
        }

    def _film(self, asked: Asked, num_images: int) -> Film:
        """The film that is asked for, drawn now or a moment ago."""
        rule = self._known_class(asked, "class", several=True) or "balanced"
        options = asked.options(self._own, rule, num_images)
        key = (options, bool(asked.fields.get("estimates")))
        if key not in self.films:
            sampler = self.run.sampler(options)
            shape = sampler.to_pixels.image_shape
            solver = choose_solver(sampler.options, self.run.experiment.sde)
            steps = len(solver.evaluations)
            self.films[key] = draw_film(
                self.run.experiment,
                sampler,
                self.run.params,
                num_frames=min(frames_that_fit(num_images, shape), steps + 1),
                estimates=key[1],
            )
        self.films.move_to_end(key)
        while len(self.films) > MOST_FILMS:
            self.films.popitem(last=False)
        return self.films[key]

    def _known_class(self, asked: Asked, name: str, *, several: bool = False) -> str:
        """The class that a field names, or several; "" where it is empty.

        Raises:
            InputError: The model does not know it.
        """
        text, names = asked.text(name), self._class_names
        said = name.replace("_", " ").capitalize()
        if text and not names:
            raise InputError(f"This model knows no classes: leave {said} empty.")
        if not text:
            return ""
        rule = text if several else (text,)
        try:
            if text in LABEL_RULES:  # of the command line: one goes through all data
                raise InputError(text)
            choose_labels(rule, 1, len(names), class_names=names)
        except InputError:
            more = ", ..." if len(names) > MOST_NAMED else ""
            parts = [part.strip() for part in text.split(",")] if several else [text]
            unknown = [p for p in parts if p not in names and not p.isdecimal()]
            meant = did_you_mean(unknown[0], names) if unknown else ""
            or_several = ", several with commas," if several else ""
            raise InputError(
                f"{said} must be one of {', '.join(names[:MOST_NAMED])}{more}, its "
                f"label (0 to {len(names) - 1}){or_several} or empty; {self.name} does "
                f"not know {text!r}.{meant}"
            ) from None
        return text

    def between(self, asked: Asked) -> dict[str, Any]:
        """Images from one to another, as one strip."""
        began = time.monotonic()
        seeds = (
            asked.whole("from_seed", 0, MOST_SEED),
            asked.whole("to_seed", 0, MOST_SEED),
        )
        count = asked.whole("number", 2, MOST_IMAGES)
        labels: str | tuple[str, ...] = "balanced"
        ends = tuple(self._known_class(asked, f"{e}_class") for e in ("from", "to"))
        if self._class_names:
            labels = tuple(end or self._class_names[0] for end in ends)
        fields = {**asked.fields, "seed": str(seeds[0])}
        options = Asked(fields).options(self._own, labels, count)
        sampler = self.run.sampler(options)
        frames_that_fit(count, sampler.to_pixels.image_shape)
        found = draw_between(self.run.experiment, sampler, self.run.params, seeds)
        return {
            "name": self.name,
            "seconds": time.monotonic() - began,
            "count": count,
            "strip": _strip(found.images),
        }

    def node(self, asked: Asked) -> dict[str, Any]:
        """What a node of the graph receives while an image is drawn."""
        nodes = self._nodes
        if nodes is None:
            network = self.run.experiment.backbone_options.name
            raise InputError(f"{network} has no graph: there are no nodes to look at.")
        num_images = asked.whole("number", 1, MOST_IMAGES)
        film = self._film(asked, num_images)
        index = asked.whole("image", 1, num_images) - 1
        frame = asked.whole("frame", 1, len(film.frames)) - 1
        label = None if film.labels is None else int(film.labels[index])
        x, t = film.path[index, frame], float(film.times[frame])
        groups = nodes.received(
            asked.whole("node", 0, nodes.grid.num_nodes - 1),
            asked.whole("block", 1, nodes.num_blocks),
            (x, t, label),
        )
        picture = _strip(film.frames[frame, index][None])
        return {"picture": picture, "time": t, "groups": groups}

    @cached_property
    def _nodes(self) -> Nodes | None:
        experiment = self.run.experiment
        if experiment.backbone.graph is None:
            return None
        return Nodes(experiment, experiment.backbone.graph, self.run.params)


def _strip(frames: UInt8[np.ndarray, "frame row col rgb"]) -> str:
    """Frames from left to right in one PNG, as a data URL."""
    from PIL import Image

    rows = frames.shape[1]
    # [frame, row, col, rgb] to [row, frame * col, rgb]
    wide = frames.transpose(1, 0, 2, 3).reshape(rows, -1, frames.shape[-1])
    file = io.BytesIO()
    Image.fromarray(wide[..., 0] if wide.shape[-1] == 1 else wide).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
