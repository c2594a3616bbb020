"""How much faster is one pass than a chain?  The 8-step chain against ``keras.layers`` and other libraries.

Flip, rotation, translation, zoom, shear, brightness, contrast, normalization per channel; uint8 in, float32 out; every
contender draws its parameters an image. Run ``python benchmarks/chain.py`` (all backends), or with ``--backends jax``;
``--batch 16 --size 1024 --save chain_large`` for large images; with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the
environment and ``--save chain_huge_pages`` memory comes in huge pages. Writes ``results/chain.json``. What the other
libraries run stands in ``peers.py``; those that need no backend take their turns with each. Each contender has a
process of its own: in one for all, some find memory that others left, and some lose the cache to them.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import common
import peers
import programs

PEERS = ("keras.layers", "ImageDataGenerator", "albumentations", "kornia", "keras-aug")
FLOORS = ("ours / floor", "ours at best / floor")  # at best: where the whole model is one program


def images(batch: int, size: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def ours(size: int, apart: bool = False) -> Any:
    """The chain as one layer, or its normalization ``apart`` as a layer behind."""
    import keras

    import keras_norm_layers as knl

    norm = knl.FeaturewiseNormalization(mean=peers.MEAN, std=peers.STD)
    layers = [augment(), norm] if apart else [augment(normalization=norm)]
    return keras.Sequential([keras.Input((size, size, 3), dtype="uint8"), *layers])


def augment(**options: Any) -> Any:
    """The chain, with or without its normalization."""
    import keras_norm_layers as knl

    return knl.Augment(
        [
            knl.RandomFlip("horizontal"),
            knl.RandomRotation(0.05),
            knl.RandomTranslation(0.1, 0.1),
            knl.RandomZoom(0.2),
            knl.RandomShear(0.1, 0.1),
            knl.RandomBrightness(0.2),
            knl.RandomContrast(0.2),
        ],
        seed=0,
        **options,
    )


def theirs(size: int) -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, 3), dtype="uint8"),
            layers.RandomFlip("horizontal", seed=0),
            layers.RandomRotation(0.05, seed=0),
            layers.RandomTranslation(0.1, 0.1, seed=0),
            layers.RandomZoom(0.2, seed=0),
            layers.RandomShear(0.1, 0.1, seed=0),
            layers.RandomBrightness(0.2, seed=0),
            layers.RandomContrast(0.2, seed=0),
            layers.Normalization(mean=peers.MEAN, variance=peers.VARIANCE),
        ]
    )


def factories(backend: str, batch: int, size: int, host: bool = True) -> dict[str, Any]:
    """The contenders of a backend: name -> a function that makes its call. The first is ours as it comes.

    ``host`` adds the libraries that work on NumPy arrays on the host.
    """
    import keras

    array = images(batch, size)
    x = keras.ops.convert_to_tensor(array)
    result: dict[str, Any] = {}
    kinds = programs.KINDS[backend]
    for kind in kinds[::-1] if backend == "torch" else kinds:  # batches of this size are compiled as they come
        name = "whole graph in XLA" if kind == "XLA" else kind
        result[f"ours, {name}"] = lambda kind=kind: programs.program(kind, ours(size), x)
    usual = kinds[-1] if backend == "torch" else kinds[0]
    result[f"ours in two layers, {usual}"] = lambda: programs.program(usual, ours(size, apart=True), x)
    # XLA refuses keras.layers on TensorFlow, and torch.compile is no way to run Keras's layers.
    for kind in {"tensorflow": ("graph",), "jax": ("jit", "eager"), "torch": ("eager",)}[backend]:
        result[f"keras.layers, {kind}"] = lambda kind=kind: programs.program(kind, theirs(size), x)
    others = peers.contenders(backend, array, x)
    hosts = ("albumentations", "ImageDataGenerator")
    result |= {name: make for name, make in others.items() if host or not name.startswith(hosts)}
    result["floor: cast-copy"] = lambda: programs.cast_copy(backend, x)
    return result


def measure(backend: str, args: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one backend, each in a process of its own: times, taken in turns, and peak memory."""
    shape = ["--batch", str(args.batch), "--size", str(args.size)]
    names = common.child(__file__, "--names", *shape, backend=backend)
    contenders = {name: common.Apart(__file__, "--serve", name, *shape, backend=backend) for name in names}
    times = common.timed_turns(contenders, args.rounds)
    for name, t in times.items():
        peak = contenders[name].close()
        if "error" not in t:
            t["peak_mb"] = peak
        if name in peers.NOTES:
            t["note"] = peers.NOTES[name]
        t["draws_once_a_batch"] = name in peers.DRAWS_ONCE_A_BATCH
    return times


def ratios(times: dict[str, Any]) -> dict[str, float]:
    """How many times longer the fastest of each library took than ours as it comes, and ours than the floor."""
    first = next(iter(times))
    if "error" in times[first]:
        return {}
    result = {}
    for who in PEERS:
        name = common.fastest(times, who)
        if name is not None:
            result[f"{who} / ours"] = common.times_longer(times[name], times[first])
    if common.fastest(times, "floor"):
        floor = times["floor: cast-copy"]
        result[FLOORS[0]] = common.times_longer(times[first], floor)
        result[FLOORS[1]] = common.times_longer(times[common.fastest(times, "ours") or first], floor)
    return result


def table(results: dict[str, Any]) -> str:
    """The results as Markdown tables: times, ratios."""
    rows = ["| backend | who | median ms | quartiles | n | peak MB | note |", "|---|---|---|---|---|---|---|"]
    for backend, times in results.items():
        for name, t in times.items():
            note = t.get("note", "") + (" (one draw a batch)" if t.get("draws_once_a_batch") else "")
            if "error" in t:
                rows.append(f"| {backend} | {name} | could not run | | | | {t['error'].replace('|', '/')} |")
                continue
            spread = f"{common.ms(t['q1_ms'])} to {common.ms(t['q3_ms'])} | {t['n']}"
            peak = t.get("peak_mb") or ""
            rows.append(f"| {backend} | {name} | {common.ms(t['median_ms'])} | {spread} | {peak} | {note} |")
    return "\n".join(rows) + "\n\n" + ratio_table(results)


def ratio_table(results: dict[str, Any]) -> str:
    """A row a backend: how many times longer each took than ours; the losses of ours, below 1, in bold."""
    found = {backend: ratios(times) for backend, times in results.items()}
    names = [f"{who} / ours" for who in PEERS] + list(FLOORS)
    rows = [f"| backend | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for backend, values in found.items():
        cells = [_cell(values.get(name), name not in FLOORS) for name in names]
        rows.append(f"| {backend} | {' | '.join(cells)} |")
    return "Medians of the ratios of neighbouring runs; the fastest of each against ours as it comes.\n\n" + "\n".join(
        rows
    )


def _cell(value: float | None, bold_below_one: bool) -> str:
    if value is None:
        return ""
    return f"**{value:.2f}**" if bold_below_one and value < 1.0 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--save", default="chain", help="name of the file in results/")
    parser.add_argument("--names", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    backend = os.environ.get("KERAS_BACKEND", "")
    if args.names:
        print(json.dumps(list(factories(backend, args.batch, args.size))))
    elif args.serve:
        common.serve(programs.lazy(factories(backend, args.batch, args.size))[args.serve])
    else:
        shape = [args.batch, args.size, args.size, 3]
        allocator = os.environ.get("GLIBC_TUNABLES")  # None where memory comes as it does by default
        results = common.earlier(args.save, shape=shape, allocator=allocator)
        for name in args.backends:  # saved after each: a run that is cut off keeps what it has
            results[name] = measure(name, args)
            about = {"question": __doc__.splitlines()[0], "shape": shape, "allocator": allocator}
            found = {backend: ratios(times) for backend, times in results.items()}
            path = common.save(args.save, {**about, "ratios": found, "results": results})
            print(table({name: results[name]}), f"\nwritten to {path}", flush=True)


if __name__ == "__main__":
    main()
