"""How the benchmarks measure: same work, same images, one run, in turns; medians with their spread; results as JSON.

Contenders of one backend take turns in one process (A B A B ...), so that a machine that slows down slows down all.
Each call ends with a synchronization. Peak memory is a second process's, one a contender: the resident set it reached.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BACKENDS = ("tensorflow", "jax", "torch")


def quiet() -> None:
    """Keeps the libraries' start-up messages off the screen; call it before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


def synchronize(result: Any) -> None:
    """Waits until a tensor of any backend has been computed."""
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()
    elif type(result).__module__.startswith("torch"):
        if result.is_cuda:
            sys.modules["torch"].cuda.synchronize()
    elif hasattr(result, "numpy") and not hasattr(result, "__array_interface__"):
        result[(0,) * len(result.shape)].numpy()


def turns(
    contenders: dict[str, Callable[[], Any]], rounds: int = 12, warmup: int = 2, limit_s: float = 90.0
) -> dict[str, Any]:
    """Times each contender ``rounds`` times, in turns: {name: median, quartiles, least and greatest in ms, n, first
    call}.

    A contender that has used up ``limit_s`` seconds stops early, with no fewer than 3 measurements; its ``n`` says so.
    """
    first, times = {}, {name: [] for name in contenders}
    for name, call in contenders.items():
        first[name] = _once(call)
        for _ in range(warmup - 1):
            _once(call)
    for _ in range(rounds):
        for name, call in contenders.items():
            if len(times[name]) < 3 or sum(times[name]) < limit_s:
                times[name].append(_once(call))
    return {name: summary(values) | {"first_call_ms": round(first[name] * 1e3, 1)} for name, values in times.items()}


def _once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    synchronize(call())
    return time.perf_counter() - start


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median and spread of some times, in milliseconds."""
    low, _, high = statistics.quantiles(seconds, n=4)
    numbers = {"median": statistics.median(seconds), "q1": low, "q3": high, "min": min(seconds), "max": max(seconds)}
    return {f"{name}_ms": round(value * 1e3, 2) for name, value in numbers.items()} | {
        "n": len(seconds),
        "all_ms": [round(value * 1e3, 2) for value in seconds],
    }


def times_longer(timed: dict[str, Any], reference: dict[str, Any]) -> float:
    """How many times longer one contender took than another: the median over the rounds, each with its neighbour."""
    pairs = zip(timed["all_ms"], reference["all_ms"])
    return round(statistics.median(a / b for a, b in pairs), 3)


def peak_memory_mb() -> float:
    """The largest resident set that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(script: str, *args: str, backend: str, **environment: str) -> Any:
    """Runs ``script`` with these arguments in a fresh process on a Keras backend; the JSON of its last line."""
    env = {**os.environ, "KERAS_BACKEND": backend, **environment}
    done = subprocess.run([sys.executable, script, *args], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(args)} on {backend} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in cpus if "model name" in line), platform.processor())
    versions = {}
    for package in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def _gpu() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def earlier(name: str, **conditions: Any) -> dict[str, Any]:
    """The results of ``results/name.json``, by backend, if it was measured on this machine under these conditions.

    Backends are runs of their own, so one can be measured again without the others.
    """
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    same = all(found.get(key) == value for key, value in {"machine": machine(), **conditions}.items())
    return found["results"] if same else {}


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes ``result``, with the machine, to ``results/name.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
