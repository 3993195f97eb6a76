# arccse_hf on CPUs. It runs the quickstart, which takes minutes and needs no network once the image is there:
#
#     docker build --tag arccse .
#     docker run --rm arccse
#
# Your own text and the result lie in a folder of yours, which the user 1000 may write to:
#
#     docker run --rm --volume "$PWD:/work" arccse train own-documents --train_file docs --output_dir out
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /package

# PyTorch's wheels for CPUs come first: those of the package index bring gigabytes of CUDA along.
COPY requirements.txt requirements-quickstart.txt ./
RUN pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.txt)" \
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
