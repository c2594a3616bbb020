"""What does whitening cost, and is it right?  ``ZCAWhitening`` beside ``ImageDataGenerator.fit``, scikit-learn's PCA.

Four questions: (a) all directions of 50,000 images of 32 x 32 x 3, beside ImageDataGenerator; (b) 256 directions of
2000 images of 224 x 224 x 3 read from a memory map, beside scikit-learn's randomized PCA; (c) 7 x 7 patches of the same
images; (d) fewer images than values: as many directions as images, beside ImageDataGenerator's matrix. The images are
windows of scikit-image's photographs, turned and scaled. Each contender runs in a process of its own; memory is the
largest resident set of that process, less what it had before the data was touched.

Run ``python benchmarks/whitening.py`` (TensorFlow, 2 cores: about 15 minutes, 14 GB); writes
``results/whitening.json``. With ``--case a b`` these alone are measured anew. ``--smoke`` runs all of it on small
images and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import common

SIZES = {
    "full": {"a": (50_000, 32), "b": (2000, 224), "d": (64, 112), "rank": 256, "leading": 64},
    "smoke": {"a": (2000, 8), "b": (60, 32), "d": (16, 16), "rank": 32, "leading": 8},
}
EPSILON = 1e-6
GAP = 0.1  # what "well conditioned" asks of a variance, in grey levels squared


def images(count: int, side: int, seed: int = 0) -> Any:
    """Windows of photographs, uint8 (count, side, side, 3): from 1 to 2.5 times their size, half of them mirrored."""
    import numpy as np
    from skimage import data

    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.immunohistochemistry()]
    rng = np.random.default_rng(seed)
    out = np.empty((count, side, side, 3), np.uint8)
    for number in range(count):
        picture = pictures[number % len(pictures)]
        step = rng.uniform(1.0, min(2.5, (min(picture.shape[:2]) - 1) / side))
        top, left = (rng.uniform(0, n - 1 - step * (side - 1)) for n in picture.shape[:2])
        rows, columns = (np.rint(first + step * np.arange(side)).astype(int) for first in (top, left))
        window = picture[rows][:, columns]
        gain = rng.uniform(0.6, 1.1)
        noisy = window[:, :: rng.choice([-1, 1])] * gain + rng.normal(0, 4, window.shape)
        out[number] = np.clip(noisy, 0, 255)
    return out


class Measured:
    """Times a block, and how far the peak of this process's memory rose above where it stood."""

    def __enter__(self) -> Measured:
        self._memory = _resident_mb()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds = round(time.perf_counter() - self._start, 1)
        self.peak_mb = round(common.peak_memory_mb())
        self.rise_mb = round(self.peak_mb - self._memory)

    def row(self, **more: Any) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_mb": self.peak_mb, "rise_mb": self.rise_mb, **more}


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def ours(**options: Any) -> Any:
    import keras_norm_layers as knl

    return knl.ZCAWhitening(epsilon=EPSILON, **options)


def generator_of(data: Any) -> Any:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(featurewise_center=True, zca_whitening=True, zca_epsilon=EPSILON)
    generator.fit(data)
    return generator


def full(folder: Path, who: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """(a) All directions: time, and the matrix, which the other contender is compared with."""
    import numpy as np

    data = np.load(folder / "a.npy")
    if who == "ours, uint8" or who == "ours, float32":
        data = data if who.endswith("uint8") else data.astype("float32")
        layer = ours(center="channel", epsilon_on="singular_value")
        with Measured() as measured:
            layer.adapt(data, verbose=0)
        matrix = np.asarray(layer.matrix)
    else:
        data = data.astype("float32")
        with Measured() as measured:
            matrix = generator_of(data).zca_whitening_matrix
    np.save(folder / f"a {who}.npy", matrix)
    return measured.row()


def leading(folder: Path, who: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """(b) The leading directions of wide images."""
    import numpy as np

    data = np.load(folder / "b.npy", mmap_mode="r")
    if who == "ours":
        layer = ours(rank=sizes["rank"])
        with Measured() as measured:
            layer.adapt(data, verbose=0)
        values = np.asarray(layer.variances)[: sizes["leading"]]
        return measured.row(values=values.tolist(), kept=round(float(layer.explained_variance_ratio.sum()), 4))
    from sklearn.decomposition import PCA

    with Measured() as measured:
        pca = PCA(sizes["rank"], svd_solver="randomized", random_state=0, copy=False)
        pca.fit(data.reshape(len(data), -1).astype("float32"))
    values = pca.explained_variance_[: sizes["leading"]] * ((len(data) - 1) / len(data))
    return measured.row(values=values.tolist(), kept=round(float(pca.explained_variance_ratio_.sum()), 4))


def patches(folder: Path, who: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """(c) All patches of the same images."""
    import numpy as np

    data = np.load(folder / "b.npy", mmap_mode="r")
    layer = ours(patch_size=7)
    with Measured() as measured:
        layer.adapt(data, verbose=0)
    return measured.row(patches=layer.accumulator.patches)


def few(folder: Path, who: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """(d) Fewer images than values: what either makes of images that it has not seen."""
    import numpy as np

    data = np.load(folder / "d.npy")
    known, unseen = data[:-8], data[-8:]
    if who == "ours":
        layer = ours(rank=len(known), center="channel", epsilon_on="singular_value")
        with Measured() as measured:
            layer.adapt(known, verbose=0)
        white, held = np.asarray(layer(unseen)), sum(np.asarray(w).nbytes for w in layer.weights)
    else:
        generator = None
        with Measured() as measured:
            generator = generator_of(known)
        held = generator.zca_whitening_matrix.nbytes
        white = np.stack([generator.standardize(image.astype("float32")) for image in unseen])
    np.save(folder / f"d {who}.npy", white)
    return measured.row(weights_mb=round(held / 1e6, 1))


CASES: dict[str, tuple[Callable[..., dict[str, Any]], list[str]]] = {
    "a": (full, ["ours, uint8", "ours, float32", "ImageDataGenerator"]),
    "b": (leading, ["ours", "scikit-learn"]),
    "c": (patches, ["ours", "ours, one BLAS thread"]),
    "d": (few, ["ours", "ImageDataGenerator"]),
}


def compare(folder: Path, case: str, rows: dict[str, Any]) -> dict[str, Any]:
    """How far the contenders' answers lie apart."""
    import numpy as np

    if case == "a":
        return _compare_full(folder, rows)
    if case == "b":
        mine, theirs = (np.array(rows[who].pop("values")) for who in ("ours", "scikit-learn"))
        return {"largest relative difference of leading eigenvalues": float(abs(mine / theirs - 1).max())}
    if case == "d":
        mine, theirs = (np.load(folder / f"d {who}.npy") for who in ("ours", "ImageDataGenerator"))
        both = {"largest difference of W x": float(abs(mine - theirs).max()), "largest W x": float(abs(theirs).max())}
        ratios = {
            f"{key} ratio": round(rows["ImageDataGenerator"][key] / max(rows["ours"][key], 1e-3), 1)
            for key in ("weights_mb", "rise_mb")
        }
        return both | ratios
    return {}


def _compare_full(folder: Path, rows: dict[str, Any]) -> dict[str, Any]:
    """W against W on directions whose variance is above ``GAP``: a float32 SVD of the data resolves no others."""
    import numpy as np

    theirs = np.load(folder / "a ImageDataGenerator.npy").astype("float64")
    values, vectors = np.linalg.eigh(theirs)  # of W: 1 / standard deviation
    good = vectors[:, (values > 0) & (values < GAP**-0.5)]
    found = {"well conditioned directions": good.shape[1], "of": len(theirs)}
    for who in ("ours, uint8", "ours, float32"):
        matrix = np.load(folder / f"a {who}.npy").astype("float64")
        found[f"largest difference of W, {who}"] = float(abs(good.T @ (matrix - theirs) @ good).max())
        found[f"times faster, {who}"] = round(rows["ImageDataGenerator"]["seconds"] / rows[who]["seconds"], 2)
    return found


def main() -> None:
    common.quiet()
    if os.environ.get("KERAS_NORM_LAYERS_BENCHMARK_CHILD"):
        case, who, folder, size = sys.argv[1:]
        if who == "data":
            import numpy as np

            np.save(Path(folder) / f"{case}.npy", images(*SIZES[size][case]))
            print("{}")
            return
        import keras_norm_layers  # noqa: F401  # its memory is not what is asked for

        print(json.dumps(CASES[case][0](Path(folder), who, SIZES[size])))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    size = "smoke" if asked.smoke else "full"
    results = {} if asked.smoke else common.earlier("whitening", sizes=json.loads(json.dumps(SIZES[size])))
    with tempfile.TemporaryDirectory() as folder:
        for case in asked.case:
            question, contenders = CASES[case]
            print((question.__doc__ or "").splitlines()[0])
            child({"c": "b"}.get(case, case), "data", folder, size)
            rows = {who: child(case, who, folder, size) for who in contenders}
            results[case] = {"rows": rows, "compared": compare(Path(folder), case, rows)}
            for who, row in rows.items():
                print(f"  {who:20s} {row}")
            print(f"  {results[case]['compared']}", flush=True)
    if size == "full":
        path = common.save("whitening", {"question": __doc__.splitlines()[0], "sizes": SIZES[size], "results": results})
        print(f"written to {os.path.relpath(path)}")


def child(*args: str) -> Any:
    """One contender, or the making of the data, in a process of its own."""
    # Threads of OpenBLAS wait for each other at every small product: on a busy machine one is faster than two.
    threads = {"OPENBLAS_NUM_THREADS": "1"} if args[1].endswith("one BLAS thread") else {}
    return common.child(__file__, *args, backend="tensorflow", KERAS_NORM_LAYERS_BENCHMARK_CHILD="1", **threads)


if __name__ == "__main__":
    main()
