# arccse_hf on CPUs. It runs the quickstart, which takes minutes and needs no network once the image is there:
#
#     docker build --tag arccse --build-arg TORCH_INDEX=URL .
#
# URL is the index of PyTorch's builds for CPUs, from its page https://pytorch.org/get-started/locally/; without it the
# image is some gigabytes larger, because the package index's build brings CUDA along.
#
#     docker run --rm arccse
#
# Your own text and the result lie in a folder of yours, which the user 1000 may write to:
#
#     docker run --rm --volume "$PWD:/work" arccse train own-documents --train_file docs --output_dir out
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /package

ARG TORCH_INDEX=
COPY requirements.txt requirements-quickstart.txt ./
# hadolint ignore=DL3013  # the version is that of requirements.txt
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)" \
    && pip install --requirement requirements.txt --requirement requirements-quickstart.txt

COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY arccse_hf arccse_hf
RUN pip install --no-deps . && useradd --create-home --uid 1000 reader \
    && mkdir /work && chown reader /work

USER 1000
WORKDIR /work
ENTRYPOINT ["arccse"]
CMD ["train", "quickstart"]
