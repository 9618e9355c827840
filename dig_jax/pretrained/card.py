"""The card of a model of the package: how it was trained, and what it scores."""

from collections.abc import Mapping
from typing import Any

from dig_jax.export.model_card import HEAD, facts_of, links_of
from dig_jax.files.pretrained import LICENCE
from dig_jax.files.shown import in_markdown
from dig_jax.run import Run

CARD = """# pretrained:{name}

{rows} x {cols} images of {dataset}, class by class, from {backbone}. It comes with
dig_jax and needs no training.

![Samples, seed 0]({picture})

## Draw images

```bash
python -m dig_jax.main --mode=sample --workdir=pretrained:{name} --out=DIR
```

```python
import dig_jax

images = dig_jax.load("pretrained:{name}").sample(16, labels={label})
```

## What it is

| | |
|---|---|
{facts}

## How it was trained

```bash
python -m dig_jax.main --config={config}{data_flag} --workdir=RUN
```

| | |
|---|---|
{training}

{until}The averaged (EMA) parameters are stored as float32.

## Scores

{scores}

`bash launch/same_numbers.sh` draws and scores it again and compares with these.

## Files

- `parameters.safetensors`, `config.json`, `manifest.json`: parameters, configuration,
  checksums and the record of the training; `dig_jax.load` reads them as an export.
- `classifier.safetensors`: the small classifier that the scores' features come from.
- `eval/scores.jsonl`: a record of each seed's scores, and last that of their mean.

## Licence

Apache-2.0, as dig_jax. The data set's terms may bind the parameters.

## Links

{links}
"""


def pretrained_card(
    name: str,
    run: Run,
    training: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    picture: str,
) -> str:
    """The card in Markdown.

    Args:
        name: What comes after `pretrained:`.
        run: The run that the model is of.
        training: How it was trained, from `make.describe_training`.
        record: Mean and deviation of its scores over seeds.
        picture: File of a picture beside the card.
    """
    experiment = run.experiment
    rows, cols, _ = experiment.backbone.image_shape
    names = experiment.data.class_names
    options, data = experiment.sample, experiment.data
    steps, of_steps = training["steps"], training["of_steps"]
    return HEAD.format(licence=LICENCE) + CARD.format(
        name=name,
        rows=rows,
        cols=cols,
        dataset=in_markdown(data.title or data.name),
        backbone=in_markdown(experiment.backbone_options.name),
        picture=picture,
        label=f'"{names[-2]}"' if len(names) > 1 else 3,
        facts=_table(facts_of(run, options)),
        config=training["config"],
        data_flag="" if data.name == "digits" else " --config.data.data_dir=data",
        training=_table(_training_rows(training)),
        until=""
        if steps == of_steps
        else f"The parameters are those of step {steps:,}, before the end: the same "
        f"command saves them on its way, with --config.training.checkpoint_every and "
        "keep_checkpoints as it is configured.\n\n",
        scores=_scores(record),
        links=links_of(experiment, options),
    )


def _training_rows(training: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """How a run was trained, a row for each fact."""
    data, machine = training["data"], training["machine"]
    return [
        ("configuration", training["config"]),
        ("commit", f"{training['commit']} (digest of the code: {training['code']})"),
        ("seed", training["seed"]),
        ("steps", f"{training['steps']:,} of {training['of_steps']:,}"),
        ("images a step", training["batch_size"]),
        (
            "data set",
            f"{data['name']}, {data['num_records']:,} training images, fingerprint "
            f"{data['fingerprint']}",
        ),
        ("machine", ", ".join(f"{key} {value}" for key, value in machine.items())),
        ("packages", ", ".join(f"{k} {v}" for k, v in training["versions"].items())),
    ]


def _scores(record: Mapping[str, Any]) -> str:
    """Mean and deviation over seeds, beside what real test images reach."""
    samples = record["samples"]
    seeds = samples["seed"]
    rows = []
    for name, score in record["scores"].items():
        real = f"{score['real']:.4f}" if "real" in score else ""
        if real and score["num_real"] != score["num_images"]:
            real += f" ({score['num_real']:,} images)"
        drawn = f"{score['value']:.4f} ± {score['std']:.4f}"
        rows.append(f"| {in_markdown(name)} | {drawn} | {real} |")
    return "\n".join(
        [
            f"Of {record['num_images']:,} images ({samples['solver']}, "
            f"{samples['num_steps']} steps): mean and standard deviation over "
            f"{len(seeds)} seeds.",
            "",
            "| score | drawn | real test images |",
            "|---|---|---|",
            *rows,
        ]
    )


def _table(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(f"| {name} | {in_markdown(value)} |" for name, value in rows)
