"""How the benchmarks measure: same work, same images, one run, in turns; medians with their spread; results as JSON.

Contenders of one backend take turns (A B A B ...), so that a machine that slows down slows down all: in one process, or
each in a process of its own (``Apart``), where none finds memory that another one left. Each call ends with a
synchronization. Peak memory is the resident set that a process with one contender reached. A contender that cannot run
stays in the results, with what it said.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
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
    """Waits until a tensor of any backend, or a dict or list of them, has been computed."""
    if isinstance(result, (dict, list, tuple)):
        for part in result.values() if isinstance(result, dict) else result:
            synchronize(part)
    elif hasattr(result, "block_until_ready"):
        result.block_until_ready()
    elif type(result).__module__.startswith("torch"):
        if result.is_cuda:
            sys.modules["torch"].cuda.synchronize()
    elif hasattr(result, "numpy") and not hasattr(result, "__array_interface__"):
        result[(0,) * len(result.shape)].numpy()


def turns(contenders: dict[str, Callable[[], Any]], rounds: int = 12, **options: Any) -> dict[str, Any]:
    """``timed_turns`` of calls in this process."""
    return timed_turns({name: functools.partial(_once, call) for name, call in contenders.items()}, rounds, **options)


def timed_turns(
    contenders: dict[str, Callable[[int], float]],
    rounds: int = 12,
    warmup: int = 2,
    limit_s: float = 40.0,
    least_s: float = 0.0,
) -> dict[str, Any]:
    """Times each contender ``rounds`` times, in turns: {name: median, quartiles, least and greatest in ms, n, first
    call}. Contenders take a number of calls to make, and say how many seconds each took.

    A contender that has used up ``limit_s`` seconds stops early, with no fewer than 3 measurements, or, after
    four times as long, with fewer; its ``n`` says so.
    One that raises at its first call has {"error": its first line} instead. A measurement repeats a call until
    ``least_s`` have passed and waits once at the end: on a GPU the calls queue up, as they do in a training.
    """
    first: dict[str, float] = {}
    result: dict[str, Any] = {}
    for name, timed in contenders.items():
        try:
            first[name] = timed(1)
        except Exception as error:
            result[name] = {"error": first_line(error)}
    repeats = {name: _warm(contenders[name], warmup, limit_s, least_s, took) for name, took in first.items()}
    times: dict[str, list[float]] = {name: [] for name in first}
    for _ in range(rounds):
        for name, measured in times.items():
            spent = sum(measured) * repeats[name]
            if spent < limit_s or (len(measured) < 3 and spent < 4 * limit_s):
                measured.append(contenders[name](repeats[name]))
    for name, values in times.items():
        result[name] = summary(values) | {"first_call_ms": round(first[name] * 1e3, 1), "calls_each": repeats[name]}
    return {name: result[name] for name in contenders}


def _warm(timed: Callable[[int], float], warmup: int, limit_s: float, least_s: float, took: float) -> int:
    """Calls ``warmup`` - 1 times more, unless the first took too long; how many calls make ``least_s`` seconds."""
    for _ in range(warmup - 1 if took < limit_s / 2 else 0):
        took = timed(1)
    return max(1, min(200, round(least_s / took)))


class Apart:
    """A contender in a process of its own: ``script``, which calls ``serve``. Made when it is first called."""

    def __init__(self, script: str, *args: str, backend: str) -> None:
        self._command, self._environment = [sys.executable, script, *args], environment(backend)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, repeats: int) -> float:
        return self._ask(repeats)["seconds"]

    def close(self) -> int | None:
        """Ends the process; its peak memory in MB, None if it had ended before."""
        peak = None
        with contextlib.suppress(Said):
            peak = self._ask(0)["peak_mb"]
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._errors.close()
        return peak

    def _ask(self, repeats: int) -> dict[str, Any]:
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
            self._process = subprocess.Popen(self._command, env=self._environment, **pipes)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(repeats, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                answer = json.loads(line.removeprefix(ANSWER))
                if "error" in answer:
                    raise Said(answer["error"])
                return answer
        self._errors.seek(0)
        raise Said((self._errors.read().strip().splitlines() or ["the process ended"])[-1])


class Said(RuntimeError):
    """What another process said, as it is."""


ANSWER = "answer: "  # the libraries write to the same place


def serve(call: Callable[[], Any]) -> None:
    """Makes as many calls as a line of standard input says, and says how long each took; for 0 the peak memory."""
    for line in sys.stdin:
        try:
            repeats = int(line)
            answer = {"seconds": _once(call, repeats)} if repeats else {"peak_mb": round(peak_memory_mb())}
        except Exception as error:
            answer = {"error": first_line(error)}
        print(ANSWER + json.dumps(answer), flush=True)


def _once(call: Callable[[], Any], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    synchronize(result)
    return (time.perf_counter() - start) / repeats


def first_line(error: BaseException) -> str:
    """What an exception says, in short, without the wrapping that Keras and TensorFlow put around it."""
    if isinstance(error, Said):
        return str(error)[:300]
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [
        line for line in lines if not re.match(r"in user code:|File |\w*:? ?Exception encountered|return |.*\^", line)
    ]
    named = [line for line in said if re.match(r"\w+(Error|Exception): (?!Exception encountered)", line)]
    if "in user code:" in text and named:
        return named[0][:300]
    return f"{type(error).__name__}: {said[0] if said else ''}"[:300]


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median and spread of some times, in milliseconds."""
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    numbers = {"median": statistics.median(seconds), "q1": low, "q3": high, "min": min(seconds), "max": max(seconds)}
    return {f"{name}_ms": round(value * 1e3, 4) for name, value in numbers.items()} | {
        "n": len(seconds),
        "all_ms": [round(value * 1e3, 4) for value in seconds],
    }


def ms(value: float) -> str:
    """A time in milliseconds as the tables show it."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def times_longer(timed: dict[str, Any], reference: dict[str, Any]) -> float:
    """How many times longer one contender took than another: the median over the rounds, each with its neighbour."""
    pairs = zip(timed.get("all_ms", [timed["median_ms"]]), reference.get("all_ms", [reference["median_ms"]]))
    return round(statistics.median(a / b for a, b in pairs), 3)


def fastest(times: dict[str, Any], who: str) -> str | None:
    """The name of the fastest contender whose name begins with ``who``; None if none of them ran."""
    ran = [name for name, t in times.items() if name.startswith(who) and "error" not in t]
    return min(ran, key=lambda name: times[name]["median_ms"], default=None)


def peak_memory_mb() -> float:
    """The largest resident set that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def environment(backend: str) -> dict[str, str]:
    """The environment of a process on a Keras backend."""
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path}


def child(script: str, *args: str, backend: str, **more: str) -> Any:
    """Runs ``script`` with these arguments in a fresh process on a Keras backend; the JSON of its last line."""
    env = {**environment(backend), **more}
    done = subprocess.run([sys.executable, script, *args], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(args)} on {backend} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


PACKAGES = (
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "triton"),
    *("kornia", "albumentations", "opencv-python-headless", "keras-aug", "scipy", "pillow"),
)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in cpus if "model name" in line), platform.processor())
    versions = {}
    for package in PACKAGES:
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
    undated = [{k: v for k, v in m.items() if k != "date"} for m in (found.get("machine", {}), machine())]
    same = undated[0] == undated[1] and all(found.get(key) == value for key, value in conditions.items())
    return found["results"] if same else {}


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes ``result``, with the machine, to ``results/name.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
