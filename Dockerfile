# The image of `make image`, for who has Docker: one static binary and nothing else, not even a shell.
FROM rust:1.95.0-slim-bookworm AS build
# What this image has is what rust-toolchain.toml names; without the lint components that it names too.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /postern
COPY . .
RUN cp "$(.ci/static)" /static-postern

FROM scratch
LABEL org.opencontainers.image.title="postern" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /static-postern /postern
ENTRYPOINT ["/postern"]
