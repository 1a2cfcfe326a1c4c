# JetPack 6.1 and 6.2, for Orin: Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3. NOT RUN by us: we have no Jetson.
#   git archive HEAD | docker build -f cpp/docker/jetpack6.Dockerfile -t imkd-edge:jetpack6 -
#   docker run --rm --runtime nvidia imkd-edge:jetpack6 bench tiny --frames 100
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        cmake g++ ninja-build nlohmann-json3-dev python3-dev python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY . /opt/imkd-edge
WORKDIR /opt/imkd-edge
# The system's packages are seen because TensorRT's Python module is one of them.
RUN python3 -m venv --system-site-packages /opt/venv && /opt/venv/bin/python -m pip install --no-cache-dir .
RUN cmake -S . -B build/jetson -G Ninja -DIMKD_BUILD_EXAMPLES=ON && cmake --build build/jetson \
    && cmake --install build/jetson --component cpp && install build/jetson/cpp/examples/detect /usr/local/bin/imkd-detect

WORKDIR /root
ENV PATH=/opt/venv/bin:$PATH
ENTRYPOINT ["imkd-edge"]
CMD ["doctor"]
