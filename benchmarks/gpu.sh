#!/usr/bin/env bash
# The benchmarks on a machine with a GPU: JAX and torch with the images on the device. Each script writes its JSON to results/.
# Needs the package and Keras importable, and JAX or torch with GPU support:  benchmarks/gpu.sh [jax] [torch]
set -euo pipefail
cd "$(dirname "$0")/.."
backends=("${@:-jax}")
[ $# -eq 0 ] && backends=(jax torch)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
for backend in "${backends[@]}"; do
    python3 benchmarks/chain.py --backends "$backend" --rounds 20 --no-memory --save "gpu_chain_$backend"
    python3 benchmarks/chain.py --backends "$backend" --rounds 20 --no-memory --batch 256 --size 256 --save "gpu_chain_256_$backend"
    python3 benchmarks/training_step.py --backends "$backend"
done
