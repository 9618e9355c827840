"""Parameters and multiply-accumulates beside Tables 1 and 2 of the DiG paper.

    python benchmarks/paper_tables.py

Prints the tables of docs/paper.md in Markdown. Nothing is computed but shapes: a minute
on any machine.
"""

from typing import NamedTuple

from dig_jax.models import create_backbone
from dig_jax.summary import summary_record

# The paper's FLOPs are the multiply-accumulates of the linear layers for this batch.
PAPER_BATCH = 128

CIFAR10 = dict(image_shape=(32, 32, 3), width=512, depth=12, hops=2)
SVHN = dict(image_shape=(32, 32, 3), width=448, depth=10, hops=2)
IMAGENET = dict(image_shape=(64, 64, 3), width=768, depth=16, hops=1, num_classes=1000)


class PaperRow(NamedTuple):
    """A row of the paper: its setting, millions of parameters, tera-MACs a batch."""

    setting: str
    name: str
    options: dict
    patch_sizes: tuple[int, ...]
    params: float
    macs: float


TABLE_1 = (
    PaperRow("CIFAR-10", "dig_parallel", CIFAR10, (2,), 39.13, 1.2),
    PaperRow("CIFAR-10", "dig_parallel", CIFAR10, (2, 4), 58.05, 1.72),
    PaperRow("CIFAR-10", "dig_parallel", CIFAR10, (2, 4, 8), 65.14, 1.85),
    PaperRow("CIFAR-10", "dig_mix", CIFAR10, (2,), 37.48, 1.53),
    PaperRow("CIFAR-10", "dig_mix", CIFAR10, (2, 4), 37.59, 1.61),
    PaperRow("CIFAR-10", "dig_mix", CIFAR10, (2, 4, 8), 37.99, 1.63),
)
CONDITIONAL = CIFAR10 | dict(num_classes=10)
TABLE_2 = (
    PaperRow("CIFAR-10", "dig_parallel", CIFAR10, (2, 4), 58.05, 1.72),
    PaperRow("CIFAR-10", "dig_mix", CIFAR10, (2, 4), 37.59, 1.61),
    PaperRow("CIFAR-10, cond.", "dig_parallel", CONDITIONAL, (2, 4), 58.06, 1.73),
    PaperRow("CIFAR-10, cond.", "dig_mix", CONDITIONAL, (2, 4), 40.6, 1.62),
    PaperRow("SVHN", "dig_parallel", SVHN, (2, 4), 37.57, 1.11),
    PaperRow("ImageNet 64x64", "dig_parallel", IMAGENET, (4, 8), 125.88, 3.75),
)
# DiG-mix with one scale more than its label says.
SHIFTED = tuple(
    row._replace(patch_sizes=(*row.patch_sizes, 2 * row.patch_sizes[-1]))
    for row in (*TABLE_1, TABLE_2[3])
    if row.name == "dig_mix"
)


def main() -> None:
    """Print the three tables."""
    print_table("Table 1", TABLE_1)
    print_table("Table 2", TABLE_2)
    print_table("DiG-mix with its labels shifted by one scale", SHIFTED)


def print_table(title: str, rows: tuple[PaperRow, ...]) -> None:
    """A Markdown table of ours, the paper's, and ours over the paper's."""
    print(f"\n**{title}**\n")
    print(
        "| Images | Backbone | Patch sizes | Parameters (M): ours | paper | residual ",
        end="",
    )
    print("| Tera-MACs x 128: ours | paper | residual |", end="\n|")
    print(" --- |" * 3 + " ---: |" * 6)
    for row in rows:
        params, macs = count(row)
        cells = [
            row.setting,
            row.name,
            "{" + ", ".join(map(str, row.patch_sizes)) + "}",
        ]
        for ours, paper in ((params, row.params), (macs, row.macs)):
            cells += [f"{ours:.2f}", f"{paper:g}", f"{ours / paper - 1:+.1%}"]
        print(f"| {' | '.join(cells)} |")


def count(row: PaperRow) -> tuple[float, float]:
    """Millions of parameters, and tera-MACs of the linear layers for the batch."""
    # One turn of the loop is quick to trace; the stencil multiplies no matrices.
    backbone = create_backbone(
        row.name,
        **row.options,
        patch_sizes=row.patch_sizes,
        aggregation="stencil",
        unroll=1,
    )
    record = summary_record(row.name, backbone)
    return record["params"] / 1e6, record["macs_per_image"] * PAPER_BATCH / 1e12


if __name__ == "__main__":
    main()
