# Two small images out of one build: `tracker` and `peer`, and `shaper` for the swarm lab. For the classic builder too.
#
# Any base with Rust 1.95 and a C compiler will do for BUILDER, any with glibc 2.36 or later for RUNTIME. Where no image
# registry can be reached, `cargo xtask images` makes both from Debian's packages, dependencies included, and builds this file.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim
ARG SHAPER_BASE_IMAGE=debian:bookworm-slim

FROM ${RUNTIME_IMAGE} AS skeleton
COPY . /src
RUN sh /src/xtask/assets/skeleton.sh /src /skeleton

# Few layers: with some storage drivers each takes as long as it takes to look at every file below it.
FROM ${BUILDER_IMAGE} AS build
WORKDIR /src
# The dependencies first, against empty crates: this layer stays while only our own code changes.
COPY --from=skeleton /skeleton ./
# 3 for use; less builds faster.
ARG OPT_LEVEL=3
RUN cargo build --profile image --config profile.image.opt-level=$OPT_LEVEL --locked -p tracker-svc -p peer \
    && rm -rf */benches
COPY . ./
# Cargo goes by times, and those of a build context may be older than the empty crates.
RUN find proto tracker-svc peer -name '*.rs' -exec touch {} + \
    && cargo build --profile image --config profile.image.opt-level=$OPT_LEVEL --locked -p tracker-svc -p peer --bins \
    && install -D -t /out target/image/tracker-svc target/image/peer

FROM ${RUNTIME_IMAGE} AS tracker
# Volumes take their first owner from here, and it may be either image that meets one first.
RUN install -d -m 700 -o 10001 -g 10001 /data && install -d -m 755 -o 10001 -g 10001 /ca
COPY --from=build /out/tracker-svc /usr/local/bin/
USER 10001:10001
WORKDIR /data
ENV HOME=/data TRACKER_DATA_DIR=/data TRACKER_LISTEN=0.0.0.0:7700
EXPOSE 7700
STOPSIGNAL SIGTERM
ENTRYPOINT ["tracker-svc"]
CMD ["serve"]

FROM ${RUNTIME_IMAGE} AS peer
RUN install -d -m 700 -o 10001 -g 10001 /data /data/files && install -d -m 755 -o 10001 -g 10001 /ca
COPY --from=build /out/peer /usr/local/bin/
USER 10001:10001
WORKDIR /data/files
ENV HOME=/data PEER_HOME=/data/home PEER_LISTEN=0.0.0.0:7800
EXPOSE 7800
STOPSIGNAL SIGTERM
ENTRYPOINT ["peer"]
CMD ["daemon"]

# Shapes the uplink of the peer whose network it shares. Needs NET_ADMIN, and is the only thing here that does.
FROM ${SHAPER_BASE_IMAGE} AS shaper
RUN command -v tc >/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends iproute2 && rm -rf /var/lib/apt/lists/*; }
COPY xtask/assets/shape.sh /usr/local/bin/shape
ENTRYPOINT ["shape"]
