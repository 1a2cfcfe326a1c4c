# JetPack 7.2, for Orin and Thor: Ubuntu 24.04, Python 3.12, CUDA 13.2, TensorRT 10.16. NOT RUN by us: we have no Jetson.
#   git archive HEAD | docker build -f cpp/docker/jetpack7.Dockerfile -t imkd-edge:jetpack7 -
#   docker run --rm --runtime nvidia imkd-edge:jetpack7 bench tiny --frames 100
# JetPack 7.1 (Thor only: CUDA 13.0, TensorRT 10.13): add --build-arg L4T=r38.4 --build-arg CUDA=13-0 to the build.
# There is no l4t-jetpack image for JetPack 7: CUDA and TensorRT come from the repository that the device itself uses.
FROM ubuntu:24.04
ARG L4T=r39.2
ARG CUDA=13-2
ARG DEBIAN_FRONTEND=noninteractive
ADD --chmod=644 https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /usr/share/keyrings/jetson.asc
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb [signed-by=/usr/share/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/common $L4T main" \
        >/etc/apt/sources.list.d/jetson.list \
    && apt-get update && apt-get install -y --no-install-recommends \
        cuda-toolkit-$CUDA tensorrt python3-libnvinfer \
        cmake g++ ninja-build nlohmann-json3-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

COPY . /opt/imkd-edge
WORKDIR /opt/imkd-edge
# The system's packages are seen because TensorRT's Python module is one of them.
RUN python3 -m venv --system-site-packages /opt/venv && /opt/venv/bin/python -m pip install --no-cache-dir .
RUN cmake -S . -B build/jetson -G Ninja -DIMKD_BUILD_EXAMPLES=ON && cmake --build build/jetson \
    && cmake --install build/jetson --component cpp && install build/jetson/cpp/examples/detect /usr/local/bin/imkd-detect

WORKDIR /root
ENV PATH=/opt/venv/bin:/usr/local/cuda/bin:$PATH
ENTRYPOINT ["imkd-edge"]
CMD ["doctor"]
