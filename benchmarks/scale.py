"""What training takes on pods: every configuration on every topology, compiled here.

    JAX_PLATFORMS=cpu python benchmarks/scale.py --records=scale.json

Needs libtpu for the TPUs and JAX's CUDA plugin for the H100s, and none of the chips. A
compilation takes minutes and some GB. Each is a process of its own, is kept in the
records, and is not done again, so that the command goes on where it was stopped;
`--only cifar10` or `--only v5e:4x4` compiles a part. The table stands between two
markers in docs/scale.md (or --out): rows that the records do not have stay in it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONFIGS = ("digits", "cifar10", "cifar10_cond", "svhn", "imagenet64")
LATENT = tuple(
    f"imagenet256:{network}"
    for network in ("dimr_xl_2r", "dimr_g_2r", "diffit", "dit_xl", "dig_parallel_2_4")
)
"""Latents of 256x256 pixels, on the topologies FOR_LATENT alone."""
TOPOLOGIES = {
    "v4-64": ("v4:2x4x4", 32),
    "v5e-16": ("v5e:4x4", 16),
    "v5e-256": ("v5e:16x16", 256),
    "2 x v5e-256": ("2xv5e:16x16", 512),
    "v5p-1024": ("v5p:8x8x8", 512),
    "v6e-256": ("v6e:16x16", 256),
    "8 H100": ("h100:8", 8),
    "32 H100": ("h100:32", 32),
}
FOR_LATENT = ("v5e-256", "8 H100")
BEGIN, END = "<!-- table of benchmarks/scale.py -->", "<!-- end of the table -->"


def main() -> None:
    """Compile what is not in the records yet, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "scale.md")
    parser.add_argument("--records", type=Path, default=Path("scale.json"))
    parser.add_argument(
        "--only", nargs="*", default=[], help="configurations, topologies"
    )
    options = parser.parse_args()
    records = _read(options.records)
    for label, config in _cells_of_table():
        topology, devices = TOPOLOGIES[label]
        name = f"{config} {topology}"
        if name in records or not _is_wanted(name, options.only):
            continue
        records[name] = _compile(config, topology, devices)
        options.records.write_text(json.dumps(records, indent=1), encoding="utf-8")
        print(f"{name}: {records[name].get('error') or 'compiled'}", flush=True)
    _write_table(options.out, records)


def _cells_of_table() -> list[tuple[str, str]]:
    """Each topology's name with each configuration that is compiled for it."""
    return [
        (label, config)
        for label in TOPOLOGIES
        for config in (*CONFIGS, *(LATENT if label in FOR_LATENT else ()))
    ]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _is_wanted(name: str, only: list[str]) -> bool:
    return not only or any(part in name.split() for part in only)


def _compile(config: str, topology: str, devices: int) -> dict[str, Any]:
    """The report of --mode=compile, or why there is none.

    A batch is the configuration's, or an image for each chip where there are more.
    """
    sys.path.insert(0, str(ROOT))
    from dig_jax.config import load_config_file

    name, _, variant = config.partition(":")
    file = f"{ROOT / 'configs' / name}.py{variant and ':'}{variant}"
    batch = load_config_file(file).training.batch_size
    command = [sys.executable, "-m", "dig_jax.main", "--mode=compile", "--json"]
    command += [f"--config={file}", f"--topology={topology}"]
    command += [f"--config.training.batch_size={-(-batch // devices) * devices}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _write_table(path: Path, records: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Scale\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    table = "\n".join([*_head(), *_rows(records, old)])
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _head() -> list[str]:
    names = ("configuration", "chips", "mesh", "batch", "GiB a chip", "gathered")
    names += (
        "reduced",
        "GFLOP a chip",
        "roofline ms",
        "bound by",
        "images/s",
        "compiled",
    )
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def _rows(records: dict[str, Any], old: str) -> list[str]:
    """The table's rows; where there is no record, the `old` table's."""
    rows = []
    for label, config in _cells_of_table():
        found = records.get(f"{config} {TOPOLOGIES[label][0]}")
        begin = f"| {config} | {label} |"
        if found is not None:
            rows.append(f"{begin} {' | '.join(_cells(found))} |")
        else:
            rows += [row for row in old.splitlines() if row.startswith(begin)]
    return rows


def _cells(record: dict[str, Any]) -> list[str]:
    if "error" in record:
        return [record["error"]]
    mesh = " x ".join(f"{name} {size}" for name, size in record["mesh"].items())
    head = [mesh, f"{record['batch_size']:,}"]
    if not record["fits"]:
        return [*head, f"does not fit: {record['shortage']}"]
    return [
        *head,
        f"{record['peak_bytes'] / 2**30:.2f}",
        f"{record['gathered']:.2f}",
        f"{record['reduced']:.2f}",
        f"{record['flops'] / 1e9:,.1f}",
        f"{1e3 * record['seconds'][record['bound']]:.3f}",
        record["bound"],
        f"{record['images_per_second']:,.0f}",
        f"{record['compile_seconds']:.0f} s",
    ]


if __name__ == "__main__":
    main()
