#!/usr/bin/env bash
# Measures this project on one GPU in a quarter of an hour, then trains photo-x4 wider.
#
#   pip install -e '.[cuda]'
#   MACHINE=h100:1 PHOTOS=TRAIN HELD_OUT=TEST benchmarks/one_gpu.sh runs/gpu
#
#   1. plan/     the largest batch of NETWORK that fits, its steps and its sampler by the
#                clock, and their share of a large matrix product
#   2. traced/   a short training of NETWORK; trace.txt says where the time of a step goes
#   3. photo/    SECONDS_OF_TRAINING of small/photo_refine with more channels, stopped by
#                a signal, which saves; give the command again and it continues
#
# PHOTOS and HELD_OUT are folders of photographs; without them there is no third part.
# WEIGHTS is a folder with lpips_alex.safetensors, for a machine without the internet.
# To try it on a CPU: MACHINE=cpu NETWORK=quickstart CHANNELS=32 PHOTO_BATCH=4
# SECONDS_OF_TRAINING=60 SEARCH=False.
set -euo pipefail

out=${1:?a folder for the results}
here=$(dirname "${BASH_SOURCE[0]}")
machine=${MACHINE:-h200:1}
network=${NETWORK:-imagenet_64_256}
mkdir -p "$out"

sr3-train --config="$network" --workdir="$out/plan" --mode=plan \
  --config.plan.topology="$machine" --config.plan.strategies="('pmap',)" \
  --config.plan.search_batch="${SEARCH:-True}"
batch=$(python - "$out/plan/plan.json" <<'END'
import json
import sys

(plan,) = json.load(open(sys.argv[1]))['plans']
print(plan.get('largest_batch_per_chip') or plan['batch_size'])
END
)
echo "the largest batch that fits: $batch"

# scikit-image's photographs: few have ImageNet at hand on a machine lent for minutes.
sr3-train --config="$network" --workdir="$out/traced" --config.data.source=photos \
  --config.data.crop=random --config.data.eval_split=eval --config.regression_steps=0 \
  --config.train.batch_size="$batch" --config.train.num_steps=12 \
  --config.train.warmup_steps=2 --config.train.decay_steps=0 \
  --config.train.profile='(8,11)' --config.eval.every_steps=0 \
  --config.eval.final_images=1 --config.sampler.num_steps=2
python "$here/trace.py" "$out/traced/profile" | tee "$out/trace.txt"

[[ -n ${PHOTOS:-} && -n ${HELD_OUT:-} ]] || exit 0
timeout --signal=TERM "${SECONDS_OF_TRAINING:-480}" \
  sr3-train --config=small/photo_refine --workdir="$out/photo" \
  --config.data.path="$PHOTOS" --config.data.eval_path="$HELD_OUT" \
  --config.regression_steps=0 --config.model.channels="${CHANNELS:-192}" \
  --config.train.batch_size="${PHOTO_BATCH:-64}" --config.train.num_steps=20000 \
  --config.train.decay_steps=0 --config.data.workers=8 \
  --config.eval.weights="${WEIGHTS:-}" || [[ $? == 124 ]]  # stopped in time
