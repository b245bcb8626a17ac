# The images that kuberay.yaml names (cluster.yaml may use them too, and saves its setup on every node):
#
#   docker build -t genray:0.1.0 .
#   docker build -t genray:0.1.0-gpu --build-arg BASE=rayproject/ray:2.60.0-py311-gpu .
#
# The base fixes Python and Ray, constraints.txt all else; both name the same Ray: change them together.
ARG BASE=rayproject/ray:2.60.0-py311
FROM ${BASE}

# ffmpeg for films, HAProxy comes with ray[serve].
USER root
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/*
USER ray

# What changes rarely comes first: a new genray re-uses the layer with PyTorch (6 GB).
WORKDIR /home/ray/genray
COPY --chown=ray:users pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p genray tuning serve \
    && touch genray/__init__.py tuning/__init__.py serve/__init__.py \
    && pip install --no-cache-dir --editable . --constraint constraints.txt
COPY --chown=ray:users genray genray
COPY --chown=ray:users tuning tuning
COPY --chown=ray:users serve serve
RUN python -c "import genray, tuning, serve, ray, torch, torchvision" && genray --version
WORKDIR /home/ray
