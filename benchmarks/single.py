"""How fast is each transform alone?  Every random transform against the layer of the same name in ``keras.layers``.

Same arguments, 32 x 224 x 224 x 3, uint8 in, float32 out; on TensorFlow both in a graph, on JAX each compiled and eager
(the fastest of Keras's counts), on torch both eager, without gradients. Calls that take less than 20 ms are repeated
for so long. Run ``python benchmarks/single.py``, or with ``--backends jax --names RandomFlip MixUp``; writes
``results/single.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import common
import programs

# Name -> keyword arguments that mean the same in both packages. One that this package has not (yet) is left out.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "RandomFlip": {"mode": "horizontal"},
    "RandomRotation": {"factor": 0.05},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.2},
    "RandomShear": {"x_factor": 0.1, "y_factor": 0.1},
    "RandomPerspective": {"factor": 1.0, "scale": 0.3},
    "RandomCrop": {"height": 0.875, "width": 0.875},  # of the side, in whole pixels: see ``arguments``
    "RandomBrightness": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.5},
    "RandomHue": {"factor": 0.2},
    "RandomColorJitter": {
        "brightness_factor": 0.2,
        "contrast_factor": 0.2,
        "saturation_factor": 0.5,
        "hue_factor": 0.1,
    },
    "RandomGrayscale": {"factor": 0.5},
    "RandomInvert": {"factor": 0.5},
    "RandomPosterization": {"factor": 4},
    "Solarization": {"threshold_factor": 0.5},
    "AutoContrast": {},
    "Equalization": {},
    "RandomSharpness": {"factor": 0.5},
    "RandomGaussianBlur": {"factor": 1.0, "kernel_size": 5, "sigma": 1.0},
    "RandomErasing": {"factor": 1.0},
    "RandomElasticTransform": {"factor": 1.0, "scale": 1.0},
    "RandomColorDegeneration": {"factor": 0.5},
    "MixUp": {"alpha": 0.2},
    "CutMix": {"factor": 1.0},
    "RandAugment": {"num_ops": 2, "factor": 0.5},
    "AugMix": {},
}
MIXES = ("MixUp", "CutMix")  # they take images and one-hot labels
REFUSES_BYTES = ("RandomSaturation",)  # Keras's, on JAX and torch: it is given a cast, within the program
# What Keras's layer draws once for the whole batch, where ours draws it for each image: less work for Keras.
KERAS_DRAWS_ONCE_A_BATCH = {
    "RandomCrop": "the place",
    "RandomGaussianBlur": "the two sigmas",
    "RandomElasticTransform": "the strength",
    "RandAugment": "which operations",
    "AugMix": "weights and, once a trace, which operations",
}


def arguments(name: str, size: int) -> dict[str, Any]:
    """The arguments of a transform for images of this size."""
    if name == "RandomCrop":
        return {side: int(part * size) for side, part in ARGUMENTS[name].items()}
    return ARGUMENTS[name]


def names() -> list[str]:
    """The transforms that both packages have."""
    import keras

    import keras_norm_layers as knl

    return [name for name in ARGUMENTS if hasattr(knl, name) and hasattr(keras.layers, name)]


def data(name: str, batch: int, size: int) -> Any:
    """What the transform is given: uint8 images, or a dict with one-hot labels too."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    # Smooth images with noise: histograms and edges as photographs have them, not a flat spectrum.
    ramp = np.linspace(30.0, 180.0, size)[None, :, None, None] + np.linspace(-20.0, 40.0, size)[None, None, :, None]
    images = np.clip(ramp + rng.normal(0.0, 12.0, (batch, size, size, 3)), 0, 255).astype("uint8")
    x = keras.ops.convert_to_tensor(images)
    if name not in MIXES:
        return x
    labels = np.eye(10, dtype="float32")[rng.integers(0, 10, batch)]
    return {"images": x, "labels": keras.ops.convert_to_tensor(labels)}


def factories(backend: str, name: str, batch: int, size: int, compiled: bool = False) -> dict[str, Any]:
    """The contenders for one transform; the first is ours as the tables show it."""
    import keras_norm_layers as knl

    x, kwargs = data(name, batch, size), arguments(name, size)
    kinds = {"tensorflow": ("graph",), "jax": ("jit", "eager"), "torch": ("eager",)}[backend]
    mine = ("torch.compile", "eager") if backend == "torch" and compiled else kinds
    own, seed = getattr(knl, name), _seed(name)
    result = {f"ours, {k}": lambda k=k: programs.program(k, own(**kwargs, **seed), x) for k in mine}
    result |= {f"keras.layers, {k}": lambda k=k: programs.program(k, _theirs(name, kwargs), x) for k in kinds}
    images = x["images"] if isinstance(x, dict) else x
    result["floor: cast-copy"] = lambda: programs.cast_copy(backend, images)
    return result


def _seed(name: str) -> dict[str, int]:
    return {} if name in ("AutoContrast", "Equalization") else {"seed": 0}  # these draw nothing


def _theirs(name: str, kwargs: dict[str, Any]) -> Any:
    import keras

    class Cast(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.cast(x, "float32")

    twin = getattr(keras.layers, name)(**kwargs, **_seed(name))
    return keras.Sequential([Cast(dtype="float32"), twin]) if name in REFUSES_BYTES else twin


def measure(backend: str, chosen: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """{transform: {contender: times}} in this process."""
    result = {}
    for name in chosen:
        made = factories(backend, name, args.batch, args.size, args.compiled)
        result[name] = common.turns(programs.lazy(made), args.rounds, limit_s=args.limit, least_s=args.least)
    return result


def ratio(times: dict[str, Any]) -> float | None:
    """How many times longer the fastest of Keras's took than ours; None if either did not run."""
    name, mine = common.fastest(times, "keras.layers"), common.fastest(times, "ours")
    if name is None or mine is None:
        return None
    first = next(iter(times))  # as it comes, unless only another way of ours runs
    return common.times_longer(times[name], times[mine if "error" in times[first] else first])


def table(results: dict[str, Any]) -> str:
    """Markdown: losses first, in bold; then a row a transform, a column a backend: keras / ours (ours, keras in ms)."""
    every = list(dict.fromkeys(name for found in results.values() for name in found))
    ratios = {b: {name: ratio(times) for name, times in found.items()} for b, found in results.items()}
    lost = [(r, b, name) for b, found in ratios.items() for name, r in found.items() if r is not None and r < 1.0]
    lines = ["Losses: " + ("none." if not lost else "")]
    lines += [f"- **{name} on {b}: {r:.2f}**" for r, b, name in sorted(lost)]
    lines += ["", f"| transform | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    losers = {name for _, _, name in lost}
    for name in sorted(every, key=lambda name: name not in losers):
        cells = [_cell(results[b].get(name), ratios[b].get(name)) for b in results]
        mark = " *" if name in KERAS_DRAWS_ONCE_A_BATCH else ""
        lines.append(f"| {name}{mark} | {' | '.join(cells)} |")
    said = ", ".join(f"{name} ({what})" for name, what in KERAS_DRAWS_ONCE_A_BATCH.items() if name in every)
    return "\n".join(lines) + (f"\n\n\\* Keras draws once for the whole batch: {said}." if said else "")


def _cell(times: dict[str, Any] | None, value: float | None) -> str:
    if times is None:
        return ""
    if value is None:
        failed = next((f"{name}: {t['error']}" for name, t in times.items() if "error" in t), "")
        return "could not run: " + failed.replace("|", "/")[:150]
    mine, theirs = times[next(iter(times))], times[str(common.fastest(times, "keras.layers"))]
    shown = f"**{value:.2f}**" if value < 1.0 else f"{value:.3g}"
    mine_ms = common.ms(mine["median_ms"]) if "median_ms" in mine else "-"
    return f"{shown} ({mine_ms} ms, {common.ms(theirs['median_ms'])} ms)"


def in_a_child(backend: str, chosen: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """``measure`` in a fresh process; if that dies, one process a transform, so that the others are kept."""
    options = ["--rounds", str(args.rounds), "--batch", str(args.batch), "--size", str(args.size)]
    options += ["--limit", str(args.limit), "--least", str(args.least), "--time"]
    options += ["--compiled"] if args.compiled else []
    try:
        return common.child(__file__, *options, "--names", *chosen, backend=backend)
    except RuntimeError as error:
        if len(chosen) == 1:
            print(error, flush=True)
            return {chosen[0]: {"ours": {"error": common.first_line(error)}}}
        return {k: v for name in chosen for k, v in in_a_child(backend, [name], args).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--names", nargs="+", help="only these transforms; the others keep their earlier results")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--limit", type=float, default=15.0, help="seconds for a contender, after 3 measurements")
    parser.add_argument("--least", type=float, default=0.02, help="seconds of a measurement: short calls are repeated")
    parser.add_argument("--compiled", action="store_true", help="on torch, ours under torch.compile as well")
    parser.add_argument("--save", default="single")
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.time:
        print(json.dumps(measure(os.environ["KERAS_BACKEND"], args.names, args)))
        return
    os.environ.setdefault("KERAS_BACKEND", args.backends[0])
    chosen = [name for name in names() if args.names is None or name in args.names]
    shape = [args.batch, args.size, args.size, 3]
    results = common.earlier(args.save, shape=shape)
    for backend in args.backends:
        results[backend] = results.get(backend, {}) | in_a_child(backend, chosen, args)
        about = {"question": __doc__.splitlines()[0], "shape": shape, "arguments": ARGUMENTS}
        path = common.save(args.save, {**about, "results": results})
        print(table({backend: results[backend]}), f"\nwritten to {path}", flush=True)


if __name__ == "__main__":
    main()
