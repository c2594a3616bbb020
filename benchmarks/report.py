"""Writes benchmarks/README.md from results/*.json: every table comes from a run that is committed beside it.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chain
import common

HEAD = """# Benchmarks

How they measure stands in `common.py`: contenders of one backend take turns in one process, each call ends with a
synchronization, medians with quartiles, peak memory by a second process each. Absolute times belong to the machine
named; the ratios are what to read. `make bench` runs all of them, `benchmarks/gpu.sh` those for a GPU, and
`python benchmarks/report.py` writes this page from `results/*.json`.
"""


def machine(result: dict[str, Any]) -> str:
    m = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"{m['gpu'] or m['cpu']}, {m['cores']} cores, Python {m['python']}, {versions}; {m['date']}."


def chain_section(result: dict[str, Any]) -> str:
    shape = " x ".join(str(n) for n in result["shape"])
    return f"{result['question']}\n\nImages {shape}. {machine(result)}\n\n{chain.table(result['results'])}"


def training_section(result: dict[str, Any]) -> str:
    rows = [
        "| backend | augmentation | ms a step | quartiles | n | XLA | times without | fastest, times without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for backend, contenders in result["results"].items():
        for who, t in contenders.items():
            step, low, high = (t[f"{name}_ms"] / result["steps"] for name in ("median", "q1", "q3"))
            fastest = t["min_ms"] / contenders["none"]["min_ms"]
            xla = "on" if t["jit_compile"] else "off"
            spread = f"{low:.0f} to {high:.0f} | {t['n']}"
            rows.append(
                f"| {backend} | {who} | {step:.0f} | {spread} | {xla} | {t['times_without']:.2f} | {fastest:.2f} |"
            )
    return f"{result['question']}\n\n{machine(result)}\n\n" + "\n".join(rows)


def adapt_section(result: dict[str, Any]) -> str:
    rows = ["| data | who | mean | variance | seconds |", "|---|---|---|---|---|"]
    for case, found in result["results"].items():
        for who, r in found.items():
            seconds = f"{r['seconds']:.2f}" if "seconds" in r else ""
            rows.append(f"| {case} | {who} | {r['mean']:.6g} | {r['variance']:.6g} | {seconds} |")
    return f"{result['question']}\n\nThe first channel. {machine(result)}\n\n" + "\n".join(rows)


SECTIONS = {"chain": chain_section, "training_step": training_section, "adapt": adapt_section}


def main() -> None:
    parts = [HEAD]
    for path in sorted(common.RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        kind = next(name for name in SECTIONS if name in path.stem)
        parts.append(f"## {path.stem}\n\n{SECTIONS[kind](result)}\n")
    Path(__file__).with_name("README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
