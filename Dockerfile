# The service for exported folders on CPUs: no torch, no compiler, not root.
#
#     docker build -t sparsebert-serve .
#     docker run -p 8000:8000 -e SPARSEBERT_TOKEN -v "$PWD/out:/models/mine:ro" sparsebert-serve mine=/models/mine
FROM python:3.11-slim AS build
# The kernels are products for torch models, and are left out where there is no compiler, as here.
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE requirements-serve.txt ./
COPY csrc csrc
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /service \
    && pip --python /service/bin/python install --no-cache-dir --no-deps /wheels/*.whl -r requirements-serve.txt

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin serve
COPY --from=build /service /service
ENV PATH=/service/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /models
EXPOSE 8000
# Whether the process lives; whether it is ready, an orchestrator asks of /ready.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
STOPSIGNAL SIGTERM
# Binding beyond the container's own address needs a token: SPARSEBERT_TOKEN, or --token-file with a mounted secret.
ENTRYPOINT ["sparsebert", "serve", "--host", "0.0.0.0", "--port", "8000"]
