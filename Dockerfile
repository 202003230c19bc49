# Install began from its wheel, for NVIDIA GPUs or the CPU:
#   docker build -t began .
#   docker run --gpus all --ipc=host -v "$PWD:/work" began train loss=bgan dataset=mnist
FROM python:3.13-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY began_cli began_cli
COPY conf conf
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels

FROM python:3.13-slim
COPY --from=wheel /wheels /wheels
# The default PyTorch wheels include CUDA. For a CPU only, with wheels a third of the size, build with
# --build-arg INDEX=https://download.pytorch.org/whl/cpu
ARG INDEX=https://pypi.org/simple
RUN pip install --no-cache-dir --index-url "$INDEX" torch torchvision \
    && pip install --no-cache-dir "$(ls /wheels/*.whl)[onnx,joblib,slurm,optuna]" \
    && rm -r /wheels
WORKDIR /work
ENTRYPOINT ["began"]
