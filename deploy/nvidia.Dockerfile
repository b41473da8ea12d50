# raudo serve on NVIDIA GPUs, with TensorRT. Needs the NVIDIA Container Toolkit on the host.
#   docker build -f deploy/nvidia.Dockerfile -t raudo:nvidia .
#   docker run --rm --gpus all --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v ./runs/latest/:/model:ro raudo:nvidia
# A TensorRT engine runs with the TensorRT that built it: build yours with this image's.
FROM nvcr.io/nvidia/tensorrt:25.08-py3 AS build
ENV PIP_NO_CACHE_DIR=1
RUN python3 -m venv --system-site-packages /srv/raudo
WORKDIR /build
COPY deploy/constraints.txt pyproject.toml README.md ./
COPY src ./src
RUN /srv/raudo/bin/python -m pip install --constraint constraints.txt ".[serve]" cuda-bindings

FROM nvcr.io/nvidia/tensorrt:25.08-py3
RUN useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin raudo
COPY --from=build /srv/raudo /srv/raudo
ENV PATH=/srv/raudo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["raudo", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
