# ennead and kvctl in an image of their own: two static programs, and the folders that volumes are mounted on.
#
#     docker build -t ennead:local .
#
# Where no image can be pulled, packaging/image makes the same one from programs built on this computer.

FROM rust:1-slim AS build
WORKDIR /src
COPY . .
# A target of its own name, or the flag would meet the build scripts and procedural macros too.
RUN host="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$host" -p ennead -p kvctl \
 && mkdir -p /root-of-image/data /root-of-image/certs \
 && cp "target/$host/release/ennead" "target/$host/release/kvctl" /root-of-image/

FROM scratch
# A new volume takes over whom the folder belongs to.
COPY --from=build --chown=65532:65532 /root-of-image/ /
USER 65532:65532
ENV PATH=/ KVCTL_CERTS=/certs
EXPOSE 9595/udp 9596/tcp
ENTRYPOINT ["/ennead"]
