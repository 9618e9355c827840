"""What a comparison's variants cost, share, and differ in."""

from dig_jax.comparison.sections import AT_END, rates_at_end
from dig_jax.comparison.tables import RATE, differing
from dig_jax.report.comparison_record import Record
from dig_jax.report.html import (
    Markup,
    code,
    element,
    facts,
    join,
    markup,
    paragraph,
    table,
)
from dig_jax.report.page import Missing
from dig_jax.report.provenance import mebibytes
from dig_jax.report.run_page import duration

EQUAL = {
    "macs": "multiply-accumulates an image (by the choice of the width)",
    "parameters": "parameters (by the choice of the width)",
    "seconds": "seconds of training (by the number of steps)",
    "none": "nothing but the number of steps",
}


def rates_section(record: Record) -> Markup:
    """The learning rates that were tried, where the record has them."""
    tried = record["learning_rates"]
    rates = sorted({row["learning_rate"] for row in tried})
    found = {(row["variant"], row["learning_rate"]): row for row in tried}
    rows = []
    for name in dict.fromkeys(row["variant"] for row in tried):
        cells: list[object] = [name]
        for rate in rates:
            row = found.get((name, rate))
            loss = None if row is None else row.get("held_out_loss")
            said = "" if row is None else "diverged" if loss is None else f"{loss:.4f}"
            chosen = row is not None and row.get("chosen")
            cells.append(element("strong", said) if chosen else said)
        rows.append(cells)
    head = ("variant", *(f"{rate:g}" for rate in rates))
    said = "Held-out loss (eps) with each rate; each variant is trained with its best."
    shown = table(head, rows, caption="Learning rates that were tried", whole=True)
    parts = [shown, paragraph(said, "note")]
    if at_end := rates_at_end(tried):
        parts.append(paragraph(f"For {', '.join(at_end)} {AT_END}", "warning"))
    return join(parts)


def costs_section(record: Record, variants: list[Record]) -> Markup:
    """What each variant is, and what it takes."""
    left = [v for v in record["variants"] if not v["runs"]]
    rows = []
    for variant in [*variants, *left]:
        macs = variant["macs_per_image"] + variant["attention_macs_per_image"]
        peak, rate = variant["peak_bytes"], variant["images_per_second"]
        images = variant["num_steps"] * variant["batch_size"]
        rows.append(
            (
                variant["name"],
                variant["backbone"],
                str(variant["width"]),
                f"{variant['params'] / 1e6:.3f}",
                f"{macs / 1e6:.2f}",
                f"{variant['num_steps']:,}",
                f"{rate:,.0f}",
                duration(images / rate),
                "" if peak is None else mebibytes(peak),
            )
        )
    head = ("variant", "backbone", "width", "parameters (M)", "MACs an image (M)")
    head += ("steps", "images a second", "training", "memory")
    said = (
        "MACs are multiply-accumulates of matrix products and convolutions, forward. "
        "Speed and memory are those of the training step, measured in turn."
    )
    shown = table(
        head, rows, caption="Costs of each variant", text_columns=2, whole=True
    )
    return join([shown, paragraph(said, "note")])


def equal_section(record: Record) -> Markup:
    """What all variants share: keys in which one of them differs are left out."""
    left = [key for key in differing(record) if not key.startswith("backbone.")]

    def listed(section: str) -> Markup:
        values = record[section]
        return join(
            [
                code(f"{key}={value}")
                for key, value in sorted(values.items())
                if f"{section}.{key}" not in left
            ],
            " ",
        )

    sample = record["sample"]
    drawn = (
        ("num_images", "{} images"),
        ("solver", "by {}"),
        ("num_steps", "in {} steps"),
    )
    told = [said.format(sample[k]) for k, said in drawn if f"sample.{k}" not in left]
    pairs: list[tuple[object, object]] = [
        ("budget", EQUAL.get(record["budget"], record["budget"])),
        ("drawn by the seed", "order of batches, times, noise: the same for all"),
        ("seeds", ", ".join(map(str, record["seeds"]))),
        ("samples", " ".join(told)),
        ("device", f"{record['device']}, jax {record['jax']}"),
    ]
    if "training.batch_size" not in left:
        pairs.append(("batch size", str(record["batch_size"])))
    pairs += [
        (name, listed(name)) for name in ("data", "sde", "objective", "optimizer")
    ]
    if left:
        keys = join(map(code, left), " ")
        pairs.append(("not equal", join([keys, " (see What differs)"], "")))
    return facts([(name, value) for name, value in pairs if value])


def differs_section(record: Record) -> Markup:
    """The keys in which each variant differs from the reference."""
    reference = next(v for v in record["variants"] if v["name"] == record["reference"])
    base = reference.get("learning_rate")
    pairs: list[tuple[object, object]] = []
    for variant in record["variants"]:
        if variant is not reference:
            keys, rate = dict(variant["differs"]), variant.get("learning_rate")
            keys |= {RATE: rate} if rate != base else {}
            told = join([code(f"{k}={v}") for k, v in sorted(keys.items())], " ")
            pairs.append((variant["name"], told or markup("nothing")))
    if not pairs:
        raise Missing("there is the reference alone")
    if RATE in differing(record):
        told = code(f"{RATE}={base}")
        pairs.append((f"the reference, {reference['name']}", told))
    return facts(pairs)
