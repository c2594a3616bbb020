"""The script for a GPU runs, here on a CPU and on small images: it checks results, and times nothing in earnest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BACKEND

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the script is for JAX and torch")
def test_the_device_script_checks_and_measures():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "device.py"), "--smoke", "--backend", BACKEND],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"passed": true' in done.stdout
