"""What do transforms chosen by chance cost?  ``RandAugment`` beside the fixed chain and ``keras.layers.RandAugment``.

64 x 224 x 224 x 3, uint8 in, float32 out, two operations an image (Keras's: two for the whole batch). It may cost
twice what the fixed chain does (without its normalization). Run ``python benchmarks/randaugment.py``; writes
``results/randaugment.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import chain
import common
import programs

ARGUMENTS: dict[str, Any] = {"value_range": (0, 255), "num_ops": 2, "factor": 0.5, "seed": 0}


def factories(backend: str, batch: int, size: int) -> dict[str, Any]:
    """The contenders: ours as they come; Keras's on JAX eager as well."""
    import keras

    import keras_norm_layers as knl

    x = keras.ops.convert_to_tensor(chain.images(batch, size))
    kind = programs.AS_IT_COMES[backend]
    result = {
        f"ours, RandAugment, {kind}": lambda: programs.program(kind, knl.RandAugment(**ARGUMENTS), x),
        f"ours, fixed chain, {kind}": lambda: programs.program(kind, chain.augment(), x),
    }
    for k in {"tensorflow": ("graph",), "jax": ("jit", "eager"), "torch": ("eager",)}[backend]:
        layer = keras.layers.RandAugment(**ARGUMENTS)
        result[f"keras.layers, RandAugment, {k}"] = lambda k=k, layer=layer: programs.program(k, layer, x)
    result["floor: cast-copy"] = lambda: programs.cast_copy(backend, x)
    return result


def ratios(times: dict[str, Any]) -> dict[str, float]:
    """RandAugment beside the fixed chain, and Keras's beside ours: medians over the rounds."""
    mine, fixed = (common.fastest(times, f"ours, {who}") for who in ("RandAugment", "fixed chain"))
    theirs = common.fastest(times, "keras.layers")
    result = {}
    if mine and fixed:
        result["RandAugment / fixed chain"] = common.times_longer(times[mine], times[fixed])
    if mine and theirs:
        result["keras.layers / ours"] = common.times_longer(times[theirs], times[mine])
    return result


def table(results: dict[str, Any]) -> str:
    """Markdown: times, with what was wished for and missed in bold."""
    rows = ["| backend | who | median ms | quartiles | n |", "|---|---|---|---|---|"]
    notes = []
    for backend, times in results.items():
        for name, t in times.items():
            if "error" in t:
                rows.append(f"| {backend} | {name} | could not run: {t['error'].replace('|', '/')} | | |")
            else:
                spread = f"{common.ms(t['q1_ms'])} to {common.ms(t['q3_ms'])}"
                rows.append(f"| {backend} | {name} | {common.ms(t['median_ms'])} | {spread} | {t['n']} |")
        for name, value in ratios(times).items():
            missed = value > 2.0 if name.startswith("RandAugment") else value < 1.0
            notes.append(f"- {backend}, {name}: " + (f"**{value:.2f}**" if missed else f"{value:.3g}"))
    return "\n".join(rows) + "\n\n" + "\n".join(notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a contender, after 3 measurements")
    parser.add_argument("--save", default="randaugment")
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.time:
        made = programs.lazy(factories(os.environ["KERAS_BACKEND"], args.batch, args.size))
        print(json.dumps(common.turns(made, args.rounds, limit_s=args.limit)))
        return
    shape = [args.batch, args.size, args.size, 3]
    options = ["--rounds", str(args.rounds), "--batch", str(args.batch), "--size", str(args.size)]
    results = common.earlier(args.save, shape=shape)
    for backend in args.backends:
        results[backend] = common.child(__file__, "--time", "--limit", str(args.limit), *options, backend=backend)
        about = {"question": __doc__.splitlines()[0], "shape": shape}
        found = {name: ratios(times) for name, times in results.items()}
        path = common.save(args.save, {**about, "ratios": found, "results": results})
        print(table({backend: results[backend]}), f"\nwritten to {path}", flush=True)


if __name__ == "__main__":
    main()
