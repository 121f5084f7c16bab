# mlfix-train on CPU: `docker build -t mlfix . && docker run --rm mlfix` runs the demo.
# With your own images: docker run --rm -v "$PWD:/data" -w /data mlfix audit data.root=photos
FROM python:3.11-slim
WORKDIR /opt/mlfix
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mlfix_train mlfix_train
COPY hydra_plugins hydra_plugins
COPY configs configs
RUN pip install --no-cache-dir --constraint constraints.txt '.[pretrained]' \
 && useradd --create-home user
USER user
WORKDIR /home/user
ENV MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
ENTRYPOINT ["mlfix"]
CMD ["demo"]
