"""What does adapt cost at 1e6, 1e9 and 1e12 images?  Images a second and core, bytes that travel, time of a merge.

Each statistic adds uint8 images on one core, in a process of its own, and its CPU time counts; the state of its
accumulator is what a worker sends. The rest is arithmetic. Run ``python benchmarks/scale.py`` (about 5 minutes); writes
``results/scale.json``. The figures of ``docs/scale.md`` are its output.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import common

LARGE, SMALL = (224, 224, 3), (32, 32, 3)
# name -> (shape of an image, images of one call, what a spectrum needs to be full)
CASES = {
    "mean and std a channel": (LARGE, 512),
    "mean and std a pixel": (LARGE, 512),
    "quantiles a channel": (LARGE, 512),
    "ZCA, patch_size=7": (LARGE, 128),
    "ZCA, full, d = 3072": (SMALL, 8192),
    "ZCA, rank=256, d = 150,528": (LARGE, 1024),
}
SIZES = (10**6, 10**9, 10**12)
SHARD_BYTES = 100 * 10**9  # of a process by hand
REPEATS = 5


def accumulator(name: str) -> Any:
    from keras_norm_layers.statistics.covariance import Covariance
    from keras_norm_layers.statistics.moments import Moments
    from keras_norm_layers.statistics.patches import PatchCovariance
    from keras_norm_layers.statistics.quantiles import Quantiles
    from keras_norm_layers.statistics.spectrum import Spectrum

    makers: dict[str, Callable[[], Any]] = {
        "mean and std a channel": lambda: Moments(-1),
        "mean and std a pixel": lambda: Moments((1, 2, 3)),
        "quantiles a channel": lambda: Quantiles(-1),
        "ZCA, patch_size=7": lambda: PatchCovariance(7, 3),
        "ZCA, full, d = 3072": lambda: Covariance(3072),
        "ZCA, rank=256, d = 150,528": lambda: Spectrum(150_528, 256),
    }
    return makers[name]()


def images(shape: tuple[int, ...], count: int) -> Any:
    """Noise over smooth shapes, so that a covariance has leading directions."""
    import numpy as np

    rng = np.random.default_rng(0)
    waves = [np.sin(np.linspace(0, 3 + 5 * rng.random(), size)) for size in shape[:2]]
    base = 128 + 60 * waves[0][:, None, None] * waves[1][None, :, None]
    gains = rng.uniform(0.3, 1.5, (count, 1, 1, 3))
    result = np.empty((count, *shape), "uint8")
    for i in range(count):
        result[i] = np.clip(base * gains[i] + rng.integers(-20, 20, shape), 0, 255)
    return result


def seconds(call: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """What a call takes: of the CPU, which other work on the machine changes little, unless ``clock`` is another."""
    start = clock()
    call()
    return clock() - start


def measure(name: str) -> dict[str, Any]:
    """On one core: images/s, bytes of the state, seconds to take a state in, peak memory."""
    import pickle

    shape, count = CASES[name]
    batch = images(shape, count)
    slow = name.startswith("ZCA, rank")
    total = accumulator(name)
    total.add(batch)  # the first batch makes the arrays
    times = [seconds(lambda: total.add(batch)) for _ in range(2 if slow else REPEATS)]
    state = total.state()
    sent = pickle.dumps([state], protocol=5)

    def merge() -> None:
        into.merge(type(into).from_state(pickle.loads(sent)[0]))

    into = accumulator(name).merge(type(total).from_state(state))
    merges = [seconds(merge) for _ in range(2 if slow else REPEATS)]
    return {
        "images_per_s": round(count / statistics.median(times), 1),
        "least_images_per_s": round(count / max(times), 1),
        "most_images_per_s": round(count / min(times), 1),
        "image_bytes": batch[0].nbytes,
        "state_bytes": len(sent),
        "merge_s": round(statistics.median(merges), 5),
        "peak_mb": round(common.peak_memory_mb()),
    }


def decoding() -> dict[str, float]:
    """What a core needs to make an array of a JPEG file of the same size, to compare with."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(images(LARGE, 1)[0]).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()

    def decode() -> None:
        for _ in range(100):
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return {"images_per_s": round(100 / statistics.median(seconds(decode) for _ in range(REPEATS)), 1)}


def through_ray() -> dict[str, Any]:
    """The same pixel statistics of 4096 images in the object store: by one process, and by Ray on two CPUs."""
    import numpy as np
    import ray
    import ray.data

    from keras_norm_layers.statistics import cluster

    name = "mean and std a pixel"
    batch = images(LARGE, 4096)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_numpy(np.array_split(batch, 8)).materialize()
    cluster.aggregate(dataset, [accumulator(name)])  # starts the workers
    there, here = [], []
    for _ in range(REPEATS):
        there.append(seconds(lambda: cluster.aggregate(dataset, [accumulator(name)]), time.perf_counter))
        here.append(seconds(lambda: accumulator(name).add(batch), time.perf_counter))
    ray.shutdown()
    return {
        "images": len(batch),
        "ray_s": round(statistics.median(there), 2),
        "one_process_s": round(statistics.median(here), 2),
        "workers": 2,
    }


def extrapolated(found: dict[str, Any]) -> dict[str, Any]:
    """Core hours, bytes of data, and of Ray's tasks and of shards: bytes of accumulators, hours of merging them."""
    from keras_norm_layers.statistics import cluster

    rows = {}
    for count in SIZES:
        data = count * found["image_bytes"]
        # Images of a task of Ray: a block, or so many that the accumulator is small beside them; see `cluster`.
        task = max(cluster.BLOCK_BYTES, min(cluster.GROUP_FACTOR * found["state_bytes"], cluster.GROUP_BYTES))
        tasks = [max(1, round(data / size)) for size in (task, SHARD_BYTES)]
        rows[f"{count:.0e}"] = {
            "core_hours": count / found["images_per_s"] / 3600,
            "data_bytes": data,
            "accumulator_bytes": [n * found["state_bytes"] for n in tasks],
            "merge_hours": [n * found["merge_s"] / 3600 for n in tasks],
        }
    return rows


def size(count: float) -> str:
    """Bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 999.5 or unit == "PB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def digits(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 9.5 else f"{value:.2g}"


def duration(hours: float) -> str:
    """Hours as seconds, minutes, hours, days or years."""
    if hours < 1 / 36000:
        return "< 0.1 s"
    for limit, factor, unit in ((1 / 60, 3600, "s"), (1, 60, "min"), (48, 1, "h"), (24 * 730, 1 / 24, "days")):
        if hours < limit:
            return f"{digits(hours * factor)} {unit}"
    return f"{digits(hours / 24 / 365)} years"


def report(results: dict[str, Any]) -> str:
    """The tables of ``docs/scale.md``."""
    rows = [
        "| statistic | images/s a core | an image | accumulator | merging one | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["statistics"].items():
        rows.append(
            f"| {name} | {found['images_per_s']:,.0f} | {size(found['image_bytes'])} | {size(found['state_bytes'])} | "
            f"{digits(found['merge_s'] * 1e3)} ms | {found['peak_mb']} MB |"
        )
    rows += [
        "",
        f"decoding a JPEG of 224 x 224 (Pillow): {results['decoding']['images_per_s']:,.0f} images/s a core",
        "",
    ]
    rows += ["| statistic | images | bytes | one core | sent, Ray | merged in | sent, shards of 100 GB | merged in |"]
    rows += ["|---" * 8 + "|"]
    for name, found in results["statistics"].items():
        for count, row in extrapolated(found).items():
            (small, large), (slow, fast) = row["accumulator_bytes"], row["merge_hours"]
            cells = [name, count, size(row["data_bytes"]), duration(row["core_hours"])]
            cells += [size(small), duration(slow), size(large), duration(fast)]
            rows.append(f"| {' | '.join(cells)} |")
    r = results["ray"]
    rows += [
        "",
        f"{r['images']} images in memory, mean and std a pixel: one process {r['one_process_s']} s, "
        f"Ray with {r['workers']} workers {r['ray_s']} s",
    ]
    rows += [
        "",
        "| images in the sample | error of a mean, in std | error of a std | error of an eigenvalue |",
        "|---" * 4 + "|",
    ]
    for count in (10**4, 10**6, 10**8):
        errors = (count**-0.5, (2 * count) ** -0.5, (2 / count) ** 0.5)
        rows.append(f"| {count:,} | " + " | ".join(f"{100 * error:.2g} %" for error in errors) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="measure this, on one core, and print JSON")
    parser.add_argument("--report", action="store_true", help="print the tables of the last run")
    args = parser.parse_args()
    common.quiet()
    if args.one:
        if args.one != "ray":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        special = {"ray": through_ray, "decoding": decoding}
        print(json.dumps(special[args.one]() if args.one in special else measure(args.one)))
        return
    if args.report:
        print(report(json.loads((common.RESULTS / "scale.json").read_text())["results"]))
        return
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

    def child(name: str) -> Any:
        print(name, file=sys.stderr, flush=True)
        return common.child(__file__, "--one", name, backend="jax", **one_thread)

    results = {
        "statistics": {name: child(name) for name in CASES},
        "decoding": child("decoding"),
        "ray": child("ray"),
    }
    print(report(results))
    path = common.save("scale", {"question": __doc__.splitlines()[0], "results": results})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
