# Two small images out of one build: `tracker` and `peer`, and `shaper` for the swarm lab. For the classic builder too.
#
# Any base with Rust 1.95 and a C compiler will do for BUILDER, any with glibc 2.36 or later for RUNTIME. Where no image
# registry can be reached, `cargo xtask images` makes both from Debian's packages, dependencies included, and builds this file.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim
ARG SHAPER_BASE_IMAGE=debian:bookworm-slim

FROM ${BUILDER_IMAGE} AS build
WORKDIR /src
ENV CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo CARGO_INCREMENTAL=0
# The dependencies first, against empty crates: this layer stays while only our own code changes.
COPY Cargo.toml Cargo.lock ./
COPY proto/Cargo.toml proto/
COPY tracker-svc/Cargo.toml tracker-svc/
COPY peer/Cargo.toml peer/
COPY xtask/Cargo.toml xtask/
COPY xtask/assets/empty-crates.sh xtask/assets/
RUN sh xtask/assets/empty-crates.sh && cargo build --release --locked -p tracker-svc -p peer
COPY proto proto
COPY tracker-svc tracker-svc
COPY peer peer
# Cargo goes by times, and those of a build context may be older than the empty crates.
RUN find proto tracker-svc peer -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p tracker-svc -p peer --bins \
    && install -D -t /out target/release/tracker-svc target/release/peer

FROM ${RUNTIME_IMAGE} AS tracker
# Volumes take their first owner from here.
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
RUN install -d -m 700 -o 10001 -g 10001 /data /data/files
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
