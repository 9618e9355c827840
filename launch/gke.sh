#!/usr/bin/env bash
# Train on TPU slices of a GKE cluster, through xpk or as a JobSet.
#
#   export NAME=cifar10 IMAGE=us-docker.pkg.dev/my-project/dig/dig_jax:tpu
#   CLUSTER=my-cluster DEVICE=v5litepod-16 bash launch/gke.sh xpk \
#     --config=configs/cifar10.py --config.data.data_dir=gs://bucket/data \
#     --workdir=gs://bucket/cifar10
#   ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=4x4 HOSTS=4 bash launch/gke.sh jobset \
#     --config=configs/cifar10.py --config.data.data_dir=gs://bucket/data \
#     --workdir=gs://bucket/cifar10
#
# The data are prepared before, and lie in a bucket. Whether configuration and data can be
# read: the arguments that follow xpk or jobset, to `python -m dig_jax.main --dry_run`.
#
# With --dry_run it prints the command, or the JobSet. All hosts are started again
# together after 75 (watchdog), 76 (peer failure) and signals (137, 143: a machine that
# is taken away). Any other code ends the job, 77 (not finite) and 78 (bad input) too.
#
# IMAGE: from launch/docker.sh. SLICES: 1 by default. MAX_RESTARTS: 100 by default.
# CHIPS: of one host, 4 by default. GRACE: seconds to save in before a host goes away,
# 60 by default. SERVICE_ACCOUNT: Kubernetes' name of who may write to the workdir.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
take_arguments "$@"
manner="${ARGUMENTS[0]:-}"
ARGUMENTS=("${ARGUMENTS[@]:1}")
case "$manner" in
  xpk) need NAME IMAGE CLUSTER DEVICE ;;
  jobset) need NAME IMAGE ACCELERATOR TOPOLOGY HOSTS ;;
  *) refuse "one of xpk, jobset is needed, got '$manner'." ;;
esac
need_shared_workdir
max_restarts="${MAX_RESTARTS:-100}"
# No restart within a host: a slice starts again as a whole.
run=(env MAX_RESTARTS=0 bash launch/supervise.sh python -m dig_jax.main
  --distributed=auto "${ARGUMENTS[@]}")

# Words as a YAML list: JSON strings are YAML too.
yaml_list() {
  local word list=""
  for word in "$@"; do
    word="${word//\\/\\\\}"
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  echo "[$list]"
}

# shellcheck disable=SC2153 # `need` has seen to NAME
jobset() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: "$NAME"
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: ${SLICES:-1}
      template:
        spec:
          parallelism: $HOSTS
          completions: $HOSTS
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: train
                  operator: NotIn
                  values: [75, 76, 137, 143]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: ${GRACE:-60}
              serviceAccountName: "${SERVICE_ACCOUNT:-default}"
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: "$ACCELERATOR"
                cloud.google.com/gke-tpu-topology: "$TOPOLOGY"
              containers:
                - name: train
                  image: "$IMAGE"
                  command: $(yaml_list "${run[@]}")
                  resources:
                    limits:
                      google.com/tpu: ${CHIPS:-4}
YAML
}

if [[ "$manner" == xpk ]]; then
  # xpk itself restarts after 42 and 127 to 255.
  start xpk workload create "--workload=$NAME" "--cluster=$CLUSTER" \
    "--device-type=$DEVICE" "--num-slices=${SLICES:-1}" "--docker-image=$IMAGE" \
    "--max-restarts=$max_restarts" --restart-on-exit-codes=75,76 \
    "--termination-grace-period-seconds=${GRACE:-60}" "--command=$(quoted "${run[@]}")"
elif [[ "$DRY_RUN" == 1 ]]; then
  jobset
else
  jobset | kubectl apply -f -
fi
