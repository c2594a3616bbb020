"""How much faster is one pass than a chain of layers?  The 8-step chain against ``keras.layers``.

Flip, rotation, translation, zoom, shear, brightness, contrast, normalization per channel; uint8 in, float32 out; every
contender draws its parameters an image. Run ``python benchmarks/chain.py`` (all backends, some minutes), or with
``--backends jax``; ``--batch 16 --size 1024`` for large images. Writes ``results/chain.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import common

MEAN, VARIANCE = (120.0, 115.0, 100.0), (3000.0, 3100.0, 3300.0)


def images(batch: int, size: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def ours(size: int) -> Any:
    import keras

    import keras_norm_layers as knl

    augment = knl.Augment(
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
    )
    std = [v**0.5 for v in VARIANCE]
    return keras.Sequential(
        [keras.Input((size, size, 3), dtype="uint8"), augment, knl.FeaturewiseNormalization(mean=MEAN, std=std)]
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
            layers.Normalization(mean=MEAN, variance=VARIANCE),
        ]
    )


def contenders(backend: str, batch: int, size: int) -> dict[str, Callable[[], Any]]:
    """The contenders of a backend, by name, each a call without arguments that gives a batch."""
    import keras

    x = keras.ops.convert_to_tensor(images(batch, size))
    one_pass, layers = ours(size), theirs(size)
    if backend == "tensorflow":
        return _on_tensorflow(x, one_pass, layers)
    if backend == "jax":
        return _on_jax(x, one_pass, layers)
    return _on_torch(x, one_pass, layers)


def _on_tensorflow(x: Any, one_pass: Any, layers: Any) -> dict[str, Callable[[], Any]]:
    import tensorflow as tf

    programs = {
        "ours, graph": tf.function(lambda x: one_pass(x, training=True)),
        "ours, whole graph in XLA": tf.function(lambda x: one_pass(x, training=True), jit_compile=True),
        "keras.layers, graph": tf.function(lambda x: layers(x, training=True)),
        "floor: cast-copy": tf.function(lambda x: tf.cast(x, tf.float32) * 1.5, jit_compile=True),
    }
    return {name: lambda f=f: f(x) for name, f in programs.items()}


def _on_jax(x: Any, one_pass: Any, layers: Any) -> dict[str, Callable[[], Any]]:
    import jax

    def compiled(model: Any) -> Callable[[], Any]:
        state = [[v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)]
        program = jax.jit(lambda state, x: model.stateless_call(*state, x, training=True))

        def call() -> Any:
            result, state[1] = program(state, x)
            return result

        return call

    cast = jax.jit(lambda x: x.astype("float32") * 1.5)
    return {
        "ours, jit": compiled(one_pass),
        "ours, eager": lambda: one_pass(x, training=True),
        "keras.layers, jit": compiled(layers),
        "keras.layers, eager": lambda: layers(x, training=True),
        "floor: cast-copy": lambda: cast(x),
    }


def _on_torch(x: Any, one_pass: Any, layers: Any) -> dict[str, Callable[[], Any]]:
    import torch

    def run(model: Any, wish: str) -> Any:
        os.environ["KERAS_NORM_LAYERS_TORCH_COMPILE"] = wish
        with torch.no_grad():
            return model(x, training=True)

    return {
        "ours, torch.compile": lambda: run(one_pass, "1"),
        "ours, eager": lambda: run(one_pass, "0"),
        "keras.layers, eager": lambda: run(layers, "0"),
        "floor: cast-copy": lambda: x.to(torch.float32) * 1.5,
    }


def measure(backend: str, args: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one backend: times in one process, peak memory in one each."""
    shape = ["--batch", str(args.batch), "--size", str(args.size)]
    times = common.child(__file__, "--time", "--rounds", str(args.rounds), *shape, backend=backend)
    for name in times if args.memory else ():
        times[name]["peak_mb"] = common.child(__file__, "--peak", name, *shape, backend=backend)
    return times


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, with the ratio of the fastest of keras.layers to each."""
    rows = [
        "| backend | who | median ms | quartiles | n | peak MB | keras.layers / this |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend, times in results.items():
        slowest = min(t["median_ms"] for name, t in times.items() if name.startswith("keras.layers"))
        for name, t in times.items():
            rows.append(
                f"| {backend} | {name} | {t['median_ms']:.0f} | {t['q1_ms']:.0f} to {t['q3_ms']:.0f} | {t['n']} | "
                f"{t.get('peak_mb', 0):.0f} | {slowest / t['median_ms']:.1f} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--save", default="chain", help="name of the file in results/")
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    backend = os.environ.get("KERAS_BACKEND", "")
    if args.time:
        print(json.dumps(common.turns(contenders(backend, args.batch, args.size), args.rounds)))
    elif args.peak:
        call = contenders(backend, args.batch, args.size)[args.peak]
        for _ in range(3):
            common.synchronize(call())
        print(json.dumps(round(common.peak_memory_mb())))
    else:
        shape = [args.batch, args.size, args.size, 3]
        results = common.earlier(args.save, shape=shape) | {name: measure(name, args) for name in args.backends}
        path = common.save(args.save, {"question": __doc__.splitlines()[0], "shape": shape, "results": results})
        print(table(results), f"\nwritten to {path}", file=sys.stdout)


if __name__ == "__main__":
    main()
