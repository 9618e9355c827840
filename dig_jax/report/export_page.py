"""The page of an export: its model card."""

import contextlib
import re
import shlex
from collections.abc import Mapping
from typing import Any

from dig_jax.config import load_run_config
from dig_jax.costs.summary import summary_record
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.export.export import CARD, PICTURE
from dig_jax.files.paths import AnyPath, is_remote, read_text
from dig_jax.report.configuration import complete, describe_data
from dig_jax.report.html import (
    Markup,
    command,
    element,
    facts,
    image,
    join,
    paragraph,
    table,
)
from dig_jax.report.page import Missing, Page
from dig_jax.report.pictures import picture
from dig_jax.report.provenance import file_table
from dig_jax.report.run_page import config_section
from dig_jax.storage.export_folder import read_manifest

_MARKED = re.compile(r"\\([\\`*\[\]|~$#_])")
_SIGNS = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}


def export_page(folder: AnyPath) -> Page:
    """The page of an export.

    Raises:
        InputError: It is damaged, or its configuration is of another version.
    """
    manifest = read_manifest(folder)
    values = complete(load_run_config(folder))
    card = read_text(folder / CARD) if (folder / CARD).is_file() else ""
    network = _summary(folder)
    size = f", {network['params'] / 1e6:.2f} million parameters" if network else ""
    page = Page(
        f"{values.get('backbone.name')} on {values.get('data.name')}",
        f"An export of step {manifest['step']:,}: {describe_data(values)}{size}. "
        "It draws images without dig_jax.",
    )
    page.status, page.state = "export", "done"
    page.add("picture", "Samples", lambda: _picture(folder))
    page.add("model", "Model", lambda: _facts(card, manifest))
    page.add("scores", "Scores", lambda: _scores(card))
    page.add("network", "Network", lambda: network_section(network))
    page.add("files", "Files", lambda: _files(folder, manifest))
    page.add("commands", "Commands", lambda: _commands(folder, values))
    page.add("config", "Configuration", lambda: config_section(values))
    page.add("versions", "Provenance", lambda: _versions(manifest))
    return page


def read_table(card: str, heading: str) -> list[list[str]]:
    """The first table after a line of a model card, without its two lines of head."""
    lines = iter(card.splitlines())
    for line in lines:
        if line.strip() == heading:
            break
    found = []
    for line in lines:
        if line.startswith("## ") and not found:
            break
        if line.startswith("|"):
            found.append(line)
        elif found:
            break
    return [
        [_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in found[2:]
    ]


def _plain(cell: str) -> str:
    """A cell as it was before `in_markdown` escaped it."""
    text = _MARKED.sub(r"\1", cell.strip())
    return re.sub("|".join(_SIGNS), lambda sign: _SIGNS[sign[0]], text)


def _picture(folder: AnyPath) -> Markup:
    if not (folder / PICTURE).is_file():
        raise Missing(f"there is no {PICTURE}")
    return image(picture(folder / PICTURE), "Samples of the model", "picture")


def _facts(card: str, manifest: Mapping[str, Any]) -> Markup:
    rows = read_table(card, _first_heading(card))
    pairs = [(row[0], row[1]) for row in rows if len(row) == 2 and row[0] != "classes"]
    licence = re.search(r"^license: (.+)$", card, re.MULTILINE)
    pairs += [("licence", licence[1])] if licence else []
    names = manifest.get("class_names") or []
    pairs += [("classes", ", ".join(map(str, names)))] if names else []
    pairs.append(("platforms", ", ".join(map(str, manifest.get("platforms", [])))))
    return facts(pairs)


def _first_heading(card: str) -> str:
    return next((line for line in card.splitlines() if line.startswith("# ")), "")


def _scores(card: str) -> Markup:
    rows = [row for row in read_table(card, "## Scores") if len(row) == 3]
    if not rows:
        raise Missing("none were recorded before the export")
    head = ("score", "drawn", "real test images")
    said = re.search(r"^## Scores\n\n(.+)$", card, re.MULTILINE)
    about = paragraph(_plain(said[1])) if said else Markup("")
    return join([about, table(head, rows, caption="Scores before the export")])


def _summary(folder: AnyPath) -> dict[str, Any] | None:
    """The network's modules and costs; None where it cannot be made here."""
    with contextlib.suppress(InputError):
        experiment = create_experiment(load_run_config(folder))
        return summary_record(experiment.backbone_options.name, experiment.backbone)
    return None


def network_section(record: Mapping[str, Any] | None) -> Markup:
    """The modules of a network with their parameters and costs."""
    if record is None:
        raise Missing("this version of dig_jax cannot make the network")
    macs = record["macs_per_image"] + record["attention_macs_per_image"]
    pairs = [
        ("parameters", f"{record['params']:,}"),
        ("multiply-accumulates an image", f"{macs:,}"),
    ]
    if record["num_nodes"]:
        graph = f"{record['num_nodes']:,} nodes, {record['num_edges']:,} directed edges"
        pairs.append(("graph", graph))
    rows = [
        (row["module"], row["shapes"], f"{row['params']:,}", f"{row['macs']:,}")
        for row in record["modules"]
    ]
    head = ("module", "shapes", "parameters", "MACs an image")
    shown = table(head, rows, caption="Modules of the network", text_columns=2)
    return join([facts(pairs), element("h3", "Modules"), shown])


def _files(folder: AnyPath, manifest: Mapping[str, Any]) -> Markup:
    names, sizes = manifest["files"], {}
    if not is_remote(folder):
        sizes = {name: (folder / name).stat().st_size for name in names}
    said = paragraph("All are as manifest.json says: their checksums were compared.")
    return join([said, file_table(names, sizes)])


def _commands(folder: AnyPath, values: Mapping[str, Any]) -> Markup:
    script = shlex.quote(f"{folder}/sample.py")
    labels = "--labels=0 " if values.get("backbone.num_classes") else ""
    return join(
        [
            command(
                "What the export needs.",
                "pip install jax flatbuffers numpy pillow safetensors",
            ),
            command(
                "Draw images, without dig_jax.",
                f"python {script} --num_images=16 {labels}--seed=0 --out=samples.png",
            ),
        ]
    )


def _versions(manifest: Mapping[str, Any]) -> Markup:
    pairs = [(str(k), str(v)) for k, v in manifest.get("versions", {}).items()]
    if manifest.get("init_from"):
        pairs.append(("began with", str(manifest["init_from"])))
    if manifest.get("sigma_rel") is not None:
        pairs.append(("averaging, sigma_rel", str(manifest["sigma_rel"])))
    return facts(pairs)
