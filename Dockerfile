# Processor:     docker build --tag monai-memo .
# NVIDIA card:   docker build --tag monai-memo-cuda --build-arg TORCH=cuda .
# Another Python: --build-arg PYTHON=3.12
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cpu

WORKDIR /opt/monai_memo
COPY constraints.txt constraints-label.txt ./
# PyTorch first and by itself, in the tested version: the build without CUDA is 2 GB smaller.
RUN torch="$(grep '^torch==' constraints.txt)" \
    && case "$TORCH" in \
        cpu) pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$torch" ;; \
        cuda) pip install --no-cache-dir "$torch" ;; \
        *) echo "TORCH is cpu or cuda, not $TORCH" >&2; exit 2 ;; \
    esac

COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY monai_memo monai_memo
COPY bundles bundles
# An account without rights: results belong to it, or to the user that --user names.
RUN pip install --no-cache-dir --constraint constraints.txt . && useradd --create-home --uid 1000 auditor
USER 1000
ENV MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /data
ENTRYPOINT ["monai-memo"]
CMD ["--help"]
