# The policy server alone: a static program in an empty file system, of a user that owns nothing. `make images`.
ARG CERTIFICATES=debian:bookworm-slim
ARG DEBIAN_DIGEST

# Authorities of the Web, for a collector of traces over TLS; those of the fleet are mounted.
FROM ${CERTIFICATES}@${DEBIAN_DIGEST} AS certificates
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*

FROM scratch
ARG TARGETARCH
ARG VERSION
LABEL org.opencontainers.image.title="nameward-server" \
      org.opencontainers.image.description="Policy server of Nameward: egress policy by domain name" \
      org.opencontainers.image.source="https://github.com/nameward/nameward" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chmod=0755 linux_${TARGETARCH}/nameward-server /usr/bin/nameward-server
USER 65532:65532
EXPOSE 7443 7480
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/nameward-server"]
