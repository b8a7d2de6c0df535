#!/usr/bin/env bash
# Trains on a Cloud TPU VM, or on all hosts of a pod slice; docs/many_devices.md explains.
#
#   experiments/run_tpu.sh create | status | install | data | train | log | stop | fetch | delete
#
# DRY_RUN=1 prints the commands and runs none. The settings are environment variables:
set -euo pipefail

TPU=${TPU:-technogen}                   # name of the TPU
ZONE=${ZONE:-europe-west4-b}            # cloud.google.com/tpu/docs/regions-zones
TYPE=${TYPE:-v5litepod-8}               # kind and number of chips
VERSION=${VERSION:-v2-alpha-tpuv5-lite} # software of the machine, which depends on TYPE: cloud.google.com/tpu/docs/runtimes
SPOT=${SPOT:-1}                         # 1: cheaper, but can be taken away at any time
REPOSITORY=${REPOSITORY:-}              # address of the git repository
RECORDS=${RECORDS:-}                    # gs://BUCKET/FOLDER: the dataset that data_prep.prepare wrote
CONFIG=${CONFIG:-configs/technogan.py:m}
OPTIONS=${OPTIONS:-}                    # more options of technogen_jax.train
RUN=${RUN:-first}                       # name of the run
KEEP=${KEEP:-}                          # gs://BUCKET/FOLDER: one host copies its runs there
KEEP_S=${KEEP_S:-300}                   # seconds between copies
SHARED=${SHARED:-}                      # SERVER:/FOLDER: an NFS share for the runs; a pod slice needs it

# ---------------------------------------------------------------- on the hosts: functions that `on` sends there

# The machine's own Python may be older than TechnoGen needs: uv brings one.
remote_install() {
  python3 -m pip install --user --quiet uv
  [ -d ~/technogen ] || git clone --depth 1 "$REPOSITORY" ~/technogen
  cd ~/technogen
  ~/.local/bin/uv venv --allow-existing --python 3.12 .venv
  ~/.local/bin/uv pip install --python .venv/bin/python -r requirements.txt "jax[tpu]"
  if [ -n "$SHARED" ]; then
    sudo apt-get install -y -q nfs-common
    sudo mkdir -p /mnt/shared
    mountpoint -q /mnt/shared || sudo mount -t nfs "$SHARED" /mnt/shared
  fi
}

# Batches are shuffled over the whole dataset, so each host needs all of it.
remote_data() {
  mkdir -p ~/records
  gcloud storage rsync --recursive "$RECORDS" ~/records
}

# In the background, so that a lost connection does not stop the training.
remote_train() {
  local workdir=~/runs/$RUN
  if [ -n "$SHARED" ]; then workdir=/mnt/shared/$RUN; fi
  if [ -n "$KEEP" ] && gcloud storage ls "$KEEP/$RUN/config.json"; then # copied by a previous machine
    mkdir -p "$workdir"
    gcloud storage rsync --recursive "$KEEP/$RUN" "$workdir"
  fi
  cd ~/technogen
  # shellcheck disable=SC2086 # OPTIONS is several words
  nohup .venv/bin/python -m technogen_jax.train --config "$CONFIG" --workdir "$workdir" \
    --config.data.dir="$HOME/records" $OPTIONS >~/train.log 2>&1 </dev/null &
  local pid=$!
  echo $pid >~/train.pid
  if [ -n "$KEEP" ]; then
    (
      trap "" HUP
      while kill -0 $pid; do # copies once more after the training has ended
        sleep "$KEEP_S"
        gcloud storage rsync --recursive "$workdir" "$KEEP/$RUN" || true
      done
    ) >~/keep.log 2>&1 </dev/null &
  fi
}

remote_log() { tail -n 50 -f ~/train.log; }

remote_stop() { kill -TERM "$(cat ~/train.pid)"; }

# ---------------------------------------------------------------------------------------------------------------- here

run() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# on WORKER FUNCTION: runs a function of this file on one host (a number) or on all of them.
on() {
  local name script="set -euo pipefail"$'\n'
  for name in REPOSITORY RECORDS CONFIG OPTIONS RUN KEEP KEEP_S SHARED; do
    script+="$name=$(printf %q "${!name}")"$'\n'
  done
  script+="$(declare -f "$2")"$'\n'"$2"
  run gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$script"
}

need() {
  if [[ -z ${!1} ]]; then
    echo "run_tpu.sh: $1 is not set; the head of this file explains it" >&2
    exit 2
  fi
}

create() {
  local spot=()
  if [[ $SPOT == 1 ]]; then spot=(--spot); fi
  run gcloud compute tpus queued-resources create "$TPU-request" --node-id="$TPU" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" "${spot[@]}"
}

case ${1:-} in
  create) create ;;
  status) run gcloud compute tpus queued-resources describe "$TPU-request" --zone="$ZONE" ;;
  install) need REPOSITORY && on all remote_install ;;
  data) need RECORDS && on all remote_data ;;
  train) on all remote_train ;;
  log) on 0 remote_log ;;
  stop) on all remote_stop ;;
  fetch)
    mkdir -p runs
    folder=runs/$RUN
    if [[ -n $SHARED ]]; then folder=/mnt/shared/$RUN; fi
    run gcloud compute tpus tpu-vm scp --recurse --zone="$ZONE" --worker=0 "$TPU:$folder" "runs/$RUN"
    ;;
  delete) run gcloud compute tpus queued-resources delete "$TPU-request" --zone="$ZONE" --force ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
