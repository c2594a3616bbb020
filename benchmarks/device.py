"""How far from a copy is the chain on an accelerator?  JAX or torch with the images on the device.

Checks first that the device gives what NumPy gives for the same draw, measures the bandwidth of a copy, then the chain,
every transform alone and ``RandAugment`` against ``keras.layers`` (and kornia, keras-aug where they are installed), and
on JAX counts the fusions that gather. ``python benchmarks/device.py --backend jax`` writes ``results/gpu.json``, after
each part; ``--smoke`` runs all of it in small on any machine and writes nothing. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import chain
import common
import hlo
import programs
import randaugment
import reference
import single

TOLERANCE = 1e-2  # grey levels
SHAPES = ((64, 224), (256, 256), (16, 1024))
SMOKE_SHAPES = ((4, 32),)
SMOKE_NAMES = ("RandomFlip", "RandomContrast")
PARTS = ("check", "copy", "chain", "hlo", "single", "randaugment")


class Run:
    """One run: its arguments, and how its parts measure."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.backend, self.smoke = args, args.backend, args.smoke
        self.shapes = SMOKE_SHAPES if args.smoke else SHAPES
        self.bandwidth: float | None = None

    def turns(self, factories: dict[str, Any]) -> dict[str, Any]:
        skip = [*self.args.skip, *(["torch.compile"] if self.smoke else [])]  # it takes a minute on a CPU
        factories = {name: make for name, make in factories.items() if not any(part in name for part in skip)}
        least_s = 0.0 if self.smoke else 0.02  # one call of a GPU is shorter than the wait for it
        limit_s = self.args.limit
        return common.turns(programs.lazy(factories), self.args.rounds, limit_s=limit_s, least_s=least_s)

    def check(self) -> dict[str, Any]:
        """The chain on the device against NumPy, for one draw: the greatest difference, in grey levels."""
        import numpy as np

        batch, size = (4, 32) if self.smoke else (16, 224)
        layer, images = chain.augment(), reference.smooth_images(batch, size)
        layer.build((None, size, size, 3))
        u = layer.draw(batch)
        expected = reference.chain(images, _numpy(u))
        modes = ("1", "0") if self.backend == "torch" and not self.smoke else ("0",)
        result: dict[str, Any] = {"images": [batch, size, size, 3], "tolerance": TOLERANCE}
        for wish in modes:
            os.environ["KERAS_NORM_LAYERS_TORCH_COMPILE"] = wish
            got = _numpy(layer.apply(images, u))
            name = {"1": "torch.compile", "0": "eager"}[wish] if self.backend == "torch" else "jit"
            result[name] = round(float(np.abs(got - expected).max()), 6)
        result["passed"] = all(v <= TOLERANCE for v in result.values() if isinstance(v, float))
        return result

    def copy(self) -> dict[str, Any]:
        """Bytes read and written a second while one large buffer is copied."""
        values = (1 << 21) if self.smoke else (1 << 28)
        if self.backend == "jax":
            import jax
            import jax.numpy as jnp

            buffer = jnp.ones(values, "float32")
            plus = jax.jit(lambda x: x + 1.0)  # a program that only copies is optimized away; this moves as much
            call = lambda: plus(buffer)  # noqa: E731
        else:
            import keras
            import torch

            buffer = keras.ops.ones(values, "float32")
            other = torch.empty_like(buffer)
            call = lambda: other.copy_(buffer)  # noqa: E731
        times = self.turns({"copy": lambda: call})["copy"]
        self.bandwidth = 8.0 * values / times["median_ms"] / 1e6
        return {"bytes": 4 * values, "gb_per_s": round(self.bandwidth, 1), **times}

    def chain(self) -> dict[str, Any]:
        """All contenders at each shape, with images a second and the part of the copy's bandwidth."""
        result = {}
        for batch, size in self.shapes:
            times = self.turns(chain.factories(self.backend, batch, size, host=False))
            for t in times.values():
                if "error" in t:
                    continue
                t["images_per_s"] = round(batch / t["median_ms"] * 1e3)
                t["gb_per_s"] = round(5.0 * batch * size * size * 3 / t["median_ms"] / 1e6, 2)  # a byte in, 4 out
                if self.bandwidth:
                    t["part_of_copy"] = round(t["gb_per_s"] / self.bandwidth, 4)
            result[f"{batch}x{size}x{size}x3"] = {"times": times, "ratios": chain.ratios(times)}
        return result

    def hlo(self) -> dict[str, Any] | None:
        """What XLA made of the chain (JAX only)."""
        if self.backend != "jax":
            return None
        import keras

        batch, size = self.shapes[0]
        x = keras.ops.convert_to_tensor(chain.images(batch, size))
        _, function, state = programs.jax_program(chain.ours(size), x)
        compiled = function.lower(state, x).compile()
        text = compiled.as_text()
        if self.args.hlo:
            Path(self.args.hlo).write_text(text)
        memory = compiled.memory_analysis()
        sizes = {key: getattr(memory, f"{key}_size_in_bytes", None) for key in ("argument", "output", "temp")}
        return {"images": [batch, size, size, 3], **hlo.report(text, 3), "bytes": sizes}

    def single(self) -> dict[str, Any]:
        """Every transform alone against keras.layers."""
        batch, size = (4, 32) if self.smoke else (32, 224)
        wanted = self.args.names or (SMOKE_NAMES if self.smoke else single.names())
        chosen = [name for name in single.names() if name in wanted]
        images, found = [batch, size, size, 3], {}
        for name in chosen:
            made = single.factories(self.backend, name, batch, size, compiled=True)
            found[name] = self.turns(made)
            print(f"  {name}: {_short(found[name])}", file=sys.stderr, flush=True)
            save(self.args, {"single": {"images": images, "times": found}})
        return {"images": images, "times": found}

    def randaugment(self) -> dict[str, Any] | None:
        """RandAugment against the fixed chain and Keras's."""
        import keras_norm_layers as knl

        if not hasattr(knl, "RandAugment") or self.smoke:
            return None
        batch, size = self.shapes[0]
        times = self.turns(randaugment.factories(self.backend, batch, size))
        return {"images": [batch, size, size, 3], "times": times, "ratios": randaugment.ratios(times)}


def _numpy(x: Any) -> Any:
    import keras

    return keras.ops.convert_to_numpy(x)


def _short(times: dict[str, Any]) -> str:
    return ", ".join(f"{name} {t.get('median_ms', t.get('error'))}" for name, t in times.items())


def table(results: dict[str, Any]) -> str:
    """The results of each backend in Markdown."""
    parts = []
    for backend, found in results.items():
        parts.append(f"### {backend}")
        if found.get("check"):
            greatest = {k: v for k, v in found["check"].items() if isinstance(v, float) and k != "tolerance"}
            said = ", ".join(f"{name} {value:g}" for name, value in greatest.items())
            verdict = "passed" if found["check"]["passed"] else "**failed**"
            parts.append(f"Greatest difference from NumPy, in grey levels: {said} ({verdict}).")
        if found.get("copy"):
            parts.append(f"A copy moves {found['copy']['gb_per_s']:.4g} GB/s.")
        if found.get("chain"):
            parts.append(_chain_table(found["chain"]))
        if found.get("hlo"):
            h = found["hlo"]
            parts.append(
                f"XLA: {h['fusions']} fusions, {h['fusions_with_gathers']} with gathers ({h['gathers']} gathers, "
                f"{h['gathers_outside_fusions']} outside fusions); an index for each channel: "
                f"{'**yes**' if h['index_a_channel'] else 'no'}."
            )
        if found.get("single"):
            parts.append("keras.layers / ours, alone.\n\n" + single.table({backend: found["single"]["times"]}))
        if found.get("randaugment"):
            parts.append(randaugment.table({backend: found["randaugment"]["times"]}))
    return "\n\n".join(parts)


def _chain_table(found: dict[str, Any]) -> str:
    rows = ["| images | who | median ms | quartiles | n | images/s | GB/s | part of a copy |", "|---" * 8 + "|"]
    said = []
    for shape, one in found.items():
        for name, t in one["times"].items():
            if "error" in t:
                rows.append(f"| {shape} | {name} | could not run: {t['error'].replace('|', '/')} | | | | | |")
                continue
            rows.append(
                f"| {shape} | {name} | {t['median_ms']:.4g} | {t['q1_ms']:.4g} to {t['q3_ms']:.4g} | {t['n']} | "
                f"{t['images_per_s']} | {t['gb_per_s']:.4g} | {t.get('part_of_copy', '')} |"
            )
        ratios = [
            f"{name} **{v:.2f}**" if v < 1.0 and name != "ours / floor" else f"{name} {v:.3g}"
            for name, v in one["ratios"].items()
        ]
        said.append(f"- {shape}: " + ", ".join(ratios))
    return "\n".join(rows) + "\n\n" + "\n".join(said)


def save(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Puts the parts found so far beside those of earlier runs on this machine."""
    if args.smoke:
        return
    if args.results:
        common.RESULTS = Path(args.results)
    earlier = common.earlier(args.save)
    before = earlier.get(args.backend, {})
    if "single" in found and "single" in before:  # a run may have measured some transforms only
        times = before["single"]["times"] | found["single"]["times"]
        found = {**found, "single": {**found["single"], "times": times}}
    earlier[args.backend] = before | found
    common.save(args.save, {"question": __doc__.splitlines()[0], "results": earlier})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("jax", "torch"), required=True)
    parser.add_argument("--smoke", action="store_true", help="small shapes, 3 rounds, no file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--names", nargs="+", help="only these transforms in the part single")
    parser.add_argument("--skip", nargs="+", default=[], help='contenders to leave out, e.g. "keras.layers, jit"')
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--limit", type=float, default=10.0, help="seconds for a contender, after 3 measurements")
    parser.add_argument("--hlo", help="a file for the optimized program (JAX)")
    parser.add_argument("--results", help="another folder for the results")
    parser.add_argument("--save", default="gpu", help="name of the file in the results")
    args = parser.parse_args()
    os.environ["KERAS_BACKEND"] = args.backend
    common.quiet()
    if args.smoke:
        args.rounds = 3
    run, found = Run(args), {}
    for part in args.parts:
        found[part] = getattr(run, part)()
        print(f"{part} done", file=sys.stderr, flush=True)
        save(args, found)
    print(table({args.backend: found}))
    check = found.get("check")
    print(json.dumps({"backend": args.backend, "parts": list(found), "check": check}))
    sys.exit(0 if check is None or check["passed"] else 1)


if __name__ == "__main__":
    main()
