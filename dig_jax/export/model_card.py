"""The README.md of an export: what the model is, what it reaches, how to draw."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from dig_jax.errors import InputError
from dig_jax.evaluation import read_records
from dig_jax.experiment import FREE_KEYS, Experiment
from dig_jax.files.paths import AnyPath
from dig_jax.files.shown import in_markdown
from dig_jax.models import BACKBONES
from dig_jax.options import SampleOptions
from dig_jax.run import Run
from dig_jax.sampling.choices import choose_solver
from dig_jax.solvers import SOLVERS
from dig_jax.training.beginning import tell_beginning
from dig_jax.versions import package_versions

UNKNOWN_LICENCE = "unknown"
PAPER = "https://openreview.net/forum?id=h4L5eUvXmP"

HEAD = """---
license: {licence}
library_name: dig_jax
pipeline_tag: unconditional-image-generation
tags:
- diffusion
- jax
- image-generation
---

"""
"""What model hubs read of a card."""
CARD = """# {name} on {dataset}

{rows} x {cols} images with {channels} from {name}, a diffusion backbone of dig_jax,
{classes}.

{picture}| | |
|---|---|
{facts}

## Draw images

```bash
pip install jax flatbuffers numpy pillow safetensors
python sample.py --num_images=16 {labels}--seed=0 --out=samples.png
```

The same seed gives the same images, whatever their number. For NVIDIA GPUs or TPUs
install `jax[cuda12]` or `jax[tpu]`; another platform may round otherwise.

## Files

- `parameters.safetensors`: the averaged (EMA) parameters, float32.
- `sampler.stablehlo`: `(parameters, seed, index, labels) -> images` for any number of
  images, on {platforms}: int32 seed [], index [batch], labels [batch]; float32 images
  [batch, row, col, rgb], about [-1, 1]. Read it with `jax.export.deserialize`.
- `group_*.stablehlo`: the same for one group of images on one platform, compiled as
  dig_jax compiles it: the same bits (tested on CPU). `sample.py` uses these.
- `config.json`, `manifest.json`: configuration; versions and checksums, of this file
  too.

Made with jax {jax}; jax promises to read it for six months of newer versions. The
parameters do not age: `dig_jax.load` opens this folder too.

## Scores

{scores}

## Licence

{terms}
`sample.py` is part of dig_jax (Apache-2.0).

## Links

{links}
"""


def check_licence(name: str) -> None:
    """Raise InputError unless a licence's name is one word, as hubs have them."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", name):
        raise InputError(
            "A licence is named in letters, digits, dots and dashes, as in apache-2.0 "
            f"or cc-by-nc-4.0; got {name!r}."
        )


def model_card(
    run: Run,
    options: SampleOptions,
    platforms: Sequence[str],
    *,
    licence: str = UNKNOWN_LICENCE,
    picture: str = "",
) -> str:
    """A model card in Markdown, with the newest scores of the run, if it has any.

    Args:
        run: What it is of.
        options: How its images are drawn.
        platforms: What it was exported for.
        licence: Of the parameters, in a word.
        picture: File of a picture of samples beside the card; "" for none.
    """
    experiment = run.experiment
    backbone = experiment.backbone
    rows, cols, channels = backbone.image_shape
    count = backbone.num_classes
    facts = "\n".join(
        f"| {name} | {in_markdown(value)} |" for name, value in facts_of(run, options)
    )
    shown = f"![Samples, seed {options.seed}]({picture})\n\n" if picture else ""
    return HEAD.format(licence=licence.lower()) + CARD.format(
        picture=shown,
        terms=_terms(licence),
        links=links_of(experiment, options),
        name=in_markdown(experiment.backbone_options.name),
        dataset=in_markdown(experiment.data.title or experiment.data.name),
        rows=rows,
        cols=cols,
        channels="one channel" if channels == 1 else f"{channels} channels",
        classes=f"conditional on one of {count} labels" if count else "unconditional",
        facts=facts,
        labels=_label_flag(experiment),
        platforms=", ".join(platforms),
        jax=package_versions()["jax"],
        scores=_scores(run.workdir),
    )


def _label_flag(experiment: Experiment) -> str:
    """Two classes for sample.py's command line, by name where they have one."""
    count = experiment.backbone.num_classes
    names = experiment.data.class_names[:2] or tuple(map(str, range(min(count, 2))))
    if any(
        re.search(r"[^\w.-]", name) for name in names
    ):  # not for a shell, or Markdown
        names = tuple(str(label) for label in range(len(names)))
    return f"--labels={','.join(names)} " if count else ""


def _terms(licence: str) -> str:
    """What is known of the parameters' licence."""
    if licence == UNKNOWN_LICENCE:
        return (
            "Of the parameters: not stated. Who publishes them says it, by exporting "
            "with `--license=NAME`. The data set's terms may bind it."
        )
    return f"Of the parameters: {licence}. The data set's terms may bind it."


def links_of(experiment: Experiment, options: SampleOptions) -> str:
    """The papers of what the model is made of."""
    parts = BACKBONES[experiment.backbone_options.name], SOLVERS[options.solver]
    texts = [(inspect.getmodule(part), part) for part in parts]
    text = " ".join(inspect.getdoc(of) or "" for pair in texts for of in pair)
    papers = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{5})", text))
    lines = [f"- [dig_jax and its graph networks]({PAPER})"]
    lines += [f"- [arXiv:{paper}](https://arxiv.org/abs/{paper})" for paper in papers]
    return "\n".join(lines)


def facts_of(run: Run, options: SampleOptions) -> list[tuple[str, Any]]:
    """What the model is and how it draws, a name and a value for each fact."""
    experiment = run.experiment
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.params))
    average = (
        f"decay {experiment.training.ema_decay}"
        if run.sigma_rel is None
        else f"post-hoc, sigma_rel {run.sigma_rel}"
    )
    solver = choose_solver(options, experiment.sde)
    sampler = (
        f"{options.solver}, {len(solver.evaluations)} steps, "
        f"{sum(solver.evaluations)} evaluations of the network, t from "
        f"{options.t_start:g} to {options.t_end:g}"
    )
    if options.guidance != 1:
        sampler += f", guidance {options.guidance:g}"
    return [
        ("data set", experiment.data.title or experiment.data.name),
        *_classes(experiment),
        ("backbone", _list_keys("backbone", experiment)),
        ("parameters", f"{parameters:,}"),
        ("noise", _list_keys("sde", experiment)),
        ("objective", _list_keys("objective", experiment)),
        ("training", f"{run.step:,} steps of {experiment.training.batch_size} images"),
        *([("began with", tell_beginning(run.init_from))] if run.init_from else []),
        ("average (EMA)", average),
        ("sampler", sampler),
    ]


def _classes(experiment: Experiment) -> list[tuple[str, str]]:
    """The label and name of each class, where they have names."""
    names = experiment.data.class_names
    listed = (f"{label} {name}" for label, name in enumerate(names))
    return [("classes", ", ".join(listed).replace("|", "\\|"))] if names else []


def _list_keys(section: str, experiment: Experiment) -> str:
    """What a section chooses, without the keys that change no result."""
    values = experiment.section(section)
    chosen = [
        f"{key}={value}"
        for key, value in sorted(values.items())
        if key != "name" and f"{section}.{key}" not in FREE_KEYS
    ]
    name = [str(values["name"])] if "name" in values else []
    return ", ".join(name + chosen)


def _scores(workdir: AnyPath | None) -> str:
    """The newest record of scores as a table; a record may lack any of its keys."""
    records = read_records(workdir) if workdir is not None else []
    rows = [row for record in records[-1:] for row in _score_rows(record)]
    if not rows:
        return "None were recorded before the export."
    samples = _object(records[-1].get("samples"))
    drawn = [
        f"{name.replace('_', ' ')} {in_markdown(samples[name])}"
        for name in ("checkpoint_step", "solver", "num_steps", "guidance", "seed")
        if samples.get(name) is not None
    ]
    real = _object(records[-1].get("real"))
    against = f", against {in_markdown(real['dataset'])}" if "dataset" in real else ""
    lines = [
        f"Of {in_markdown(records[-1].get('num_images', 'some'))} drawn images"
        f"{' (' + ', '.join(drawn) + ')' if drawn else ''}{against}.",
        "",
        "| score | drawn | real test images |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines)


def _object(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _score_rows(record: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, score in _object(record.get("scores")).items():
        if isinstance(score, dict) and isinstance(score.get("value"), int | float):
            real = score.get("real")
            real = f"{real:.4f}" if isinstance(real, int | float) else ""
            count = score.get("num_real")
            if real and isinstance(count, int) and count != score.get("num_images"):
                real += f" ({count:,} images)"
            rows.append(f"| {in_markdown(name)} | {score['value']:.4f} | {real} |")
    return rows
