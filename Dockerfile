# syntax=docker/dockerfile:1
# Makes two images: `serve` answers requests and has no TensorFlow; `train` has the training worker and its libraries. The
# layers go from what changes least to what changes most: system, locked dependencies, code.
#   docker build --target serve .                                CPU
#   docker build --target train --build-arg ACCELERATOR=cuda .   CUDA: 13 in serve, 12 in train (docs/containers.md)
#   docker build --build-arg ACCELERATOR=openvino .              OpenVINO, only in serve
ARG PYTHON=3.11
ARG ACCELERATOR=cpu

FROM python:${PYTHON}-slim-trixie AS base
# tini is PID 1: it reaps dead processes and passes signals on. /data: a new named volume gets the owner of the folder that it
# is mounted on, so both images have to run as the same user
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && groupadd --gid 10001 resnext \
 && useradd --uid 10001 --gid resnext --no-create-home --home-dir /tmp resnext \
 && install --directory --owner resnext --group resnext /data/models /data/datasets /data/weights /data/state
# /tmp, also the user's home, is the only folder beside the volumes that can be written
ENV MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RESNEXT_HOST=0.0.0.0 \
    RESNEXT_MODELS=/data/models \
    RESNEXT_DATASETS=/data/datasets \
    RESNEXT_WEIGHTS=/data/weights \
    RESNEXT_STATE=/data/state \
    RESNEXT_CACHE=/data/state/cache \
    PYTHONPATH=/app
# here the command line's defaults, models, datasets and weights, are the volumes
WORKDIR /data
LABEL org.opencontainers.image.licenses="MIT"
ENTRYPOINT ["tini", "--"]

# --only-binary: nothing is compiled here, so no compiler is needed, and no layer keeps what one leaves behind. fontmeta, which
# mplfonts needs, exists only as source, in plain Python
FROM base AS serve-cpu
# ONNX Runtime's CUDA part cannot be loaded without CUDA; it is 285 MB of the wheel's 356
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/serve.txt,target=/requirements.txt \
    pip install --root-user-action=ignore --only-binary=:all: --require-hashes -r /requirements.txt \
 && find /usr/local/lib -name 'libonnxruntime_providers_*' ! -name '*_shared.so' -delete

FROM base AS serve-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/serve-cuda.txt,target=/requirements.txt \
    pip install --root-user-action=ignore --only-binary=:all: --require-hashes -r /requirements.txt
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM base AS serve-openvino
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/serve-openvino.txt,target=/requirements.txt \
    pip install --root-user-action=ignore --only-binary=:all: --require-hashes -r /requirements.txt

# stands on the serving libraries for the CPU, so that both images share them: a training measures with ONNX Runtime on the
# CPU, and TensorFlow uses CUDA 12 only. TensorFlow's headers, 430 MB, are for compiling against it
FROM serve-cpu AS train-cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/train.txt,target=/requirements.txt \
    pip install --root-user-action=ignore --only-binary=:all: --no-binary=fontmeta --require-hashes -r /requirements.txt \
 && rm -r /usr/local/lib/python*/site-packages/tensorflow/include

FROM serve-cpu AS train-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=requirements/train-cuda.txt,target=/requirements.txt \
    pip install --root-user-action=ignore --only-binary=:all: --no-binary=fontmeta --require-hashes -r /requirements.txt \
 && rm -r /usr/local/lib/python*/site-packages/tensorflow/include
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM train-${ACCELERATOR} AS train
COPY LICENSE /app/
COPY training /app/training
USER 10001:10001
# a worker is its name: the next container that starts under this name goes on with the job of the one before
ENV RESNEXT_NAME=worker-0
# a worker holds its lock as long as it lives, and the system releases it however the process ends
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=2s \
  CMD lock=$RESNEXT_STATE/workers/$RESNEXT_NAME.lock; test -e $lock && ! flock --shared --nonblock $lock true
STOPSIGNAL SIGTERM
CMD ["python", "-m", "training", "worker"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ResNeXt Service: training worker" \
      org.opencontainers.image.description="Runs training jobs: a folder of images in, a verified and published ResNeXt-50 classifier out" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# the last stage is the one that `docker build` makes when no target is named
FROM serve-${ACCELERATOR} AS serve
COPY LICENSE /app/
COPY training /app/training
COPY app /app/app
USER 10001:10001
EXPOSE 8000
# asks whether it is live, not ready: being without a model at first is normal, and a restart would not bring one
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=2s \
  CMD ["python", "-IS", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"RESNEXT_PORT\") or 8000}/health/live', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "app"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ResNeXt Service" \
      org.opencontainers.image.description="Classifies images over HTTP, and goes on to the next version without a lost request" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
