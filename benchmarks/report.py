"""Writes benchmarks/README.md from results/*.json: every table comes from a run that is committed beside it.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chain
import common
import device
import directory
import randaugment
import single

HEAD = """# Benchmarks

How they measure stands in `common.py`: contenders of one backend take turns, each call ends with a
synchronization, medians with quartiles, peak memory of a process each. Absolute times belong to the machine
named; the ratios are what to read: above 1 this package is the faster one, losses are printed in bold.

`make bench` runs all of them (and installs the libraries compared with, the extra `bench`), `benchmarks/gpu.sh` those
for a GPU, and `python benchmarks/report.py` writes this page from `results/*.json`. What each library was given to do,
and with which settings, stands in `peers.py`.
"""


def machine(result: dict[str, Any]) -> str:
    m = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return f"{m['gpu'] or m['cpu']}, {m['cores']} cores, Python {m['python']}, {versions}; {m['date']}."


def chain_section(result: dict[str, Any]) -> str:
    shape = " x ".join(str(n) for n in result["shape"])
    allocator = f" With GLIBC_TUNABLES={result['allocator']}." if result.get("allocator") else ""
    notes = f"Images {shape}.{allocator} {machine(result)}"
    return f"{result['question']}\n\n{notes}\n\n{chain.table(result['results'])}"


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
    page = f"{result['question']}\n\nThe first channel. {machine(result)}\n\n" + "\n".join(rows)
    if "reads" in result:
        page += "\n\n" + adapt_reads(result)
    return page


def adapt_reads(result: dict[str, Any]) -> str:
    """The uint8 case beside ways in which NumPy reads the same bytes once, and the memory of a stream."""
    ms = common.ms
    reads = [
        f"| {how} | {ms(t['median_ms'])} | {ms(t['q1_ms'])} to {ms(t['q3_ms'])} | {t['ours takes']} |"
        for how, t in result["reads"].items()
    ]
    memory = [f"| {' | '.join(str(value) for value in row.values())} |" for row in result["memory"]]
    heads = [f"| {' | '.join(result['memory'][0])} |", "|---|---|---|---|"]
    return "\n".join(
        [
            "The uint8 images beside NumPy's ways to read the same bytes once:\n",
            "| read | ms | quartiles | ours takes, times |\n|---|---|---|---|",
            *reads,
            "\nA stream of images, and its peak memory:\n",
            *heads,
            *memory,
        ]
    )


WHITENING = {
    "a": "full, d = 3072, 50,000 images",
    "b": "rank=256, 2000 images of 224 x 224 x 3",
    "c": "patch_size=7, 2000 images of 224 x 224 x 3",
    "d": "fewer images than values",
}


def whitening_section(result: dict[str, Any]) -> str:
    rows = ["| case | who | seconds | peak MB | rise MB |", "|---|---|---|---|---|"]
    notes = []
    for case in sorted(result["results"]):
        found = result["results"][case]
        for who, r in found["rows"].items():
            rows.append(f"| {WHITENING[case]} | {who} | {r['seconds']} | {r['peak_mb']} | {r['rise_mb']} |")
        notes += [f"- {WHITENING[case]}: {what}: {value:.3g}" for what, value in found["compared"].items()]
    return f"{result['question']}\n\n{machine(result)}\n\n" + "\n".join([*rows, "", *notes])


def scale_section(result: dict[str, Any]) -> str:
    return f"{result['question']}\n\n{machine(result)} The figures stand in `docs/scale.md`."


def directory_section(result: dict[str, Any]) -> str:
    count, *shape = result["images"]
    size = " x ".join(str(n) for n in shape)
    notes = [
        f"{backend}, mean difference of pixels from Keras's, in levels: {case}, {who}, {value:.2g}"
        for backend, found in result["results"].items()
        for case, makers in found["differences"].items()
        for who, value in makers.items()
    ]
    head = f"{result['question']}\n\n{count} files as {size}, batches of {result['batch']}. {machine(result)}"
    return f"{head}\n\n{directory.table(result['results'])}\n\n" + "\n".join(f"- {note}" for note in notes)


def flow_section(result: dict[str, Any]) -> str:
    rows = [
        "| backend | work | ours, ms an image | Keras's | times faster | ours, CPU ms | Keras's |",
        "|---|---|---|---|---|---|---|",
    ]
    count = result["images"][0]
    for backend, cases in result["results"].items():
        for case, t in cases.items():
            ours, theirs = (common.ms(t[who]["median_ms"] / count) for who in ("ours", "Keras"))
            spent = t.get("cpu_ms_an_image")  # a file of before has none
            cpu = " | ".join(common.ms(spent[who]) if spent else "" for who in ("ours", "Keras"))
            rows.append(f"| {backend} | {case} | {ours} | {theirs} | {t['times_faster']:.2f} | {cpu} |")
    shape = " x ".join(str(n) for n in result["images"])
    return f"{result['question']}\n\nImages {shape}. {machine(result)}\n\n" + "\n".join(rows)


def flow_losses(result: dict[str, Any]) -> list[str]:
    return [
        f"flow, {case}, {backend}: {t['times_faster']:.2f} times as fast as Keras's; it set out for 8"
        for backend, cases in result["results"].items()
        for case, t in cases.items()
        if t["times_faster"] < 8
    ]


def single_section(result: dict[str, Any]) -> str:
    shape = " x ".join(str(n) for n in result["shape"])
    about = "`keras.layers` / ours: how many times longer Keras's took; in brackets the medians, ours first."
    head = f"{result['question']}\n\nImages {shape}. {machine(result)} {about}"
    return f"{head}\n\n{single.table(result['results'])}"


def randaugment_section(result: dict[str, Any]) -> str:
    shape = " x ".join(str(n) for n in result["shape"])
    return f"{result['question']}\n\nImages {shape}. {machine(result)}\n\n{randaugment.table(result['results'])}"


def gpu_section(result: dict[str, Any]) -> str:
    return f"{result['question']}\n\n{machine(result)}\n\n{device.table(result['results'])}"


# What the chain set out for: how many times as long as ours the others should take at least. (A copy: at most.)
CHAIN_WISHES = {
    "tensorflow": {"keras.layers / ours": 10, "ImageDataGenerator / ours": 20, "albumentations / ours": 1.15},
    "jax": {"keras.layers / ours": 30},
    "torch": {"keras.layers / ours": 20, "kornia / ours": 8},
}
FLOORS_WISHED = {"tensorflow": 7}


def chain_losses(result: dict[str, Any]) -> list[str]:
    """What takes less time than ours, or not as much more as was wished for, with memory as it comes by default."""
    huge = bool(result.get("allocator"))
    shape = " x ".join(str(n) for n in result["shape"]) + (", huge pages" if huge else "")
    lines = []
    for backend, times in result["results"].items():
        ratios = chain.ratios(times)
        for name in [f"{who} / ours" for who in chain.PEERS if f"{who} / ours" in ratios]:
            wished, value = 1.0 if huge else CHAIN_WISHES[backend].get(name, 1.0), ratios[name]
            end = f"; {wished:g} was wished for" if wished > 1.0 else ""
            if value < wished:
                who = name.removesuffix(" / ours")
                lines.append(f"chain, {shape}, {backend}: {who} takes {value:.2f} times as long as ours{end}")
        floors, most = ratios.get(chain.FLOORS[0], 0.0), FLOORS_WISHED.get(backend)
        if most is not None and floors > most and not huge:
            lines.append(
                f"chain, {shape}, {backend}: ours takes {floors:.2f} times as long as a copy; {most} was wished for"
            )
    return lines


def single_losses(result: dict[str, Any]) -> list[str]:
    found = {(b, name): single.ratio(times) for b, each in result["results"].items() for name, times in each.items()}
    return [
        f"{name} alone, {backend}: keras.layers takes {value:.2f} times as long as ours"
        for (backend, name), value in found.items()
        if value is not None and value < 1.0
    ]


def training_losses(result: dict[str, Any]) -> list[str]:
    found = {backend: times["ours"]["times_without"] for backend, times in result["results"].items()}
    return [
        f"training step, {backend}: {value:.2f} times one without augmentation; 1.15 was wished for"
        for backend, value in found.items()
        if value > 1.15
    ]


def randaugment_losses(result: dict[str, Any]) -> list[str]:
    found = {backend: randaugment.ratios(times) for backend, times in result["results"].items()}
    said = []
    for backend, ratios in found.items():
        if ratios.get("RandAugment / fixed chain", 0.0) > 2.0:
            value = ratios["RandAugment / fixed chain"]
            said.append(f"RandAugment, {backend}: {value:.2f} times the fixed chain; 2 was wished for")
        if ratios.get("keras.layers / ours", 1.0) < 1.0:
            value = ratios["keras.layers / ours"]
            said.append(f"RandAugment, {backend}: keras.layers takes {value:.2f} times as long as ours")
    return said


def adapt_losses(result: dict[str, Any]) -> list[str]:
    said = []
    for case, found in result["results"].items():
        for way in ("array", "tf.data"):
            mine, theirs = (found[f"{who}, {way}"]["seconds"] for who in ("ours", "keras.layers"))
            if theirs < mine:
                said.append(f"adapt, {case}, {way}: keras.layers takes {theirs / mine:.2f} times as long as ours")
    return said


# Kind, by what the file's name holds -> (section, losses); the first that fits.
SECTIONS: dict[str, tuple[Any, Any]] = {
    "training_step": (training_section, training_losses),
    "randaugment": (randaugment_section, randaugment_losses),
    "single": (single_section, single_losses),
    "adapt": (adapt_section, adapt_losses),
    "whitening": (whitening_section, lambda result: []),
    "scale": (scale_section, lambda result: []),
    "directory": (directory_section, lambda result: directory.losses(result["results"])),
    "flow": (flow_section, flow_losses),
    "chain": (chain_section, chain_losses),
    "gpu": (gpu_section, lambda result: []),  # its tables have theirs in bold
}


def main() -> None:
    parts, losses = [], []
    for path in sorted(common.RESULTS.glob("*.json")):
        if path.stem.startswith("smoke"):
            continue
        result = json.loads(path.read_text())
        section, lost = SECTIONS[next(name for name in SECTIONS if name in path.stem)]
        parts.append(f"## {path.stem}\n\n{section(result)}\n")
        losses += [f"- **{line}**" for line in lost(result)]
    said = "\n".join(losses) or "None in the files measured so far."
    page = [
        HEAD,
        f"## Losses\n\nWhere this package is the slower one, or misses what it set out for.\n\n{said}\n",
        *parts,
    ]
    Path(__file__).with_name("README.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
