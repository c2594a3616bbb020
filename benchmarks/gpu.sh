#!/usr/bin/env bash
# The benchmarks on a machine with a GPU, images on the device: results/gpu.json and results/gpu_training_step.json.
# Needs Keras and JAX or torch with GPU support; TensorFlow is not needed.  benchmarks/gpu.sh [jax] [torch]
# PARTS="check chain" for some parts only, RESULTS=folder for another place. About 10 minutes a backend.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] && set -- jax torch
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export XLA_PYTHON_CLIENT_PREALLOCATE="${XLA_PYTHON_CLIENT_PREALLOCATE:-false}"
python="${PYTHON:-python3}"
results="${RESULTS:-benchmarks/results}"
mkdir -p "$results"
read -ra parts <<<"${PARTS:-check copy chain hlo single randaugment}"
for backend in "$@"; do
    "$python" benchmarks/device.py --backend "$backend" --results "$results" --parts "${parts[@]}"
    if [ -z "${PARTS:-}" ]; then
        "$python" benchmarks/training_step.py --backends "$backend" --results "$results" --save gpu_training_step
    fi
done
