# One build makes two small images, `tracker` and `peer`. `shaper` is for the swarm lab, `stores` for several trackers. The
# classic builder works too.
#
# BUILDER needs Rust 1.95 and a C compiler. RUNTIME needs glibc 2.36 or later. Where no image registry can be reached,
# `cargo xtask images` makes both from Debian's packages, with the dependencies included, and builds this file.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim
ARG SHAPER_BASE_IMAGE=debian:bookworm-slim
ARG STORES_BASE_IMAGE=debian:bookworm-slim

FROM ${RUNTIME_IMAGE} AS skeleton
COPY . /src
RUN sh /src/xtask/assets/skeleton.sh /src /skeleton

# There are few layers, because with some storage drivers each layer takes the time to look at every file below it.
FROM ${BUILDER_IMAGE} AS build
WORKDIR /src
# The dependencies are built first, with empty crates. This layer stays cached while only our own code changes.
COPY --from=skeleton /skeleton ./
# 3 for production. A lower level builds faster.
ARG OPT_LEVEL=3
RUN cargo build --profile image --config profile.image.opt-level=$OPT_LEVEL --locked -p tracker-svc -p peer \
    && rm -rf */benches */*/benches
COPY . ./
# Cargo compares modification times, and files of a build context may be older than the empty crates.
RUN find proto tracker-svc peer -name '*.rs' -exec touch {} + \
    && cargo build --profile image --config profile.image.opt-level=$OPT_LEVEL --locked -p tracker-svc -p peer --bins \
    && install -D -t /out target/image/tracker-svc target/image/peer

FROM ${RUNTIME_IMAGE} AS tracker
# A new volume takes its owner from the first image that mounts it, which may be this one or the peer's.
RUN install -d -m 700 -o 10001 -g 10001 /data && install -d -m 755 -o 10001 -g 10001 /ca
COPY --from=build /out/tracker-svc /usr/local/bin/
USER 10001:10001
WORKDIR /data
ENV HOME=/data TRACKER_DATA_DIR=/data TRACKER_LISTEN=[::]:7700
EXPOSE 7700
STOPSIGNAL SIGTERM
ENTRYPOINT ["tracker-svc"]
CMD ["serve"]

FROM ${RUNTIME_IMAGE} AS peer
RUN install -d -m 700 -o 10001 -g 10001 /data /data/files && install -d -m 755 -o 10001 -g 10001 /ca
COPY --from=build /out/peer /usr/local/bin/
USER 10001:10001
WORKDIR /data/files
ENV HOME=/data PEER_HOME=/data/home PEER_LISTEN=[::]:7800
EXPOSE 7800
STOPSIGNAL SIGTERM
ENTRYPOINT ["peer"]
CMD ["daemon"]

# Shapes the uplink of the peer whose network it shares. It is the only image here that needs NET_ADMIN.
FROM ${SHAPER_BASE_IMAGE} AS shaper
RUN command -v tc >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends iproute2 && rm -rf /var/lib/apt/lists/*; }
COPY xtask/assets/shape.sh /usr/local/bin/shape
ENTRYPOINT ["shape"]

# The database and the swarm store of several trackers. Both are Debian's packages; `store` says how they are run.
FROM ${STORES_BASE_IMAGE} AS stores
RUN command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends postgresql redis-server && rm -rf /var/lib/apt/lists/*; }
# initdb wants its user to have a name.
RUN echo 'store:x:10001:10001::/data:/bin/sh' >>/etc/passwd \
    && install -d -m 700 -o 10001 -g 10001 /data /secrets
COPY xtask/assets/store.sh /usr/local/bin/store
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["store"]
