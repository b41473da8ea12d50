# raudo serve on CPUs. From the repository's folder:
#   docker build -f deploy/cpu.Dockerfile -t raudo:cpu .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v ./runs/latest/:/model:ro raudo:cpu
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build
ENV PIP_NO_CACHE_DIR=1
RUN python3 -m venv /srv/raudo
WORKDIR /build
COPY deploy/constraints.txt pyproject.toml README.md ./
COPY src ./src
RUN /srv/raudo/bin/python -m pip install --constraint constraints.txt ".[serve]" openvino onnxruntime onnx

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
RUN useradd --no-log-init --uid 10001 --no-create-home --shell /usr/sbin/nologin raudo
COPY --from=build /srv/raudo /srv/raudo
ENV PATH=/srv/raudo/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["raudo", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
