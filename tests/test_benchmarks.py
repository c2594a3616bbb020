"""The script for a GPU runs, here on a CPU and on small images: it checks results, and times nothing in earnest. And
what the others measure by does what it says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BACKEND

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the script is for JAX and torch")
def test_the_device_script_checks_and_measures():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "device.py"), "--smoke", "--backend", BACKEND],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"passed": true' in done.stdout


def test_a_contender_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    def contender(*lines):
        script = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        script.write_text("\n".join((f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\nimport common", *lines)))
        return common.Apart(str(script), backend=BACKEND)

    calls = tmp_path / "calls"
    noted = f"def call():\n    with open({str(calls)!r}, 'a') as file:\n        file.write('x')"
    one = contender("print('said by a library')", noted, "common.serve(call)")
    assert one(2) > 0.0 and one(3) > 0.0
    assert calls.read_text() == "xxxxx"
    assert one.close() > 1  # MB
    for fails, said in (
        ("common.serve(lambda: 1 / 0)", "division by zero"),
        ("sys.exit('no such library')", "no such"),
    ):
        one = contender(fails)
        for _ in range(2):
            with pytest.raises(common.Said, match=said):
                one(1)
        assert (one.close() is None) == ("exit" in fails)
