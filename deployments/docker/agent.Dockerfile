# The agent, and the iptables that it calls: both backends with their bpf extension. `make images`.
ARG DEBIAN=debian:bookworm-slim
ARG DEBIAN_DIGEST
FROM ${DEBIAN}@${DEBIAN_DIGEST}
ARG TARGETARCH
ARG VERSION
LABEL org.opencontainers.image.title="nameward-agent" \
      org.opencontainers.image.description="Agent of Nameward: egress policy by domain name" \
      org.opencontainers.image.source="https://github.com/nameward/nameward" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# What the package in deployments/debian depends on, tried there on a machine that has nothing else.
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
 && iptables-nft --version && iptables-legacy --version \
 && iptables-nft -m bpf --help >/dev/null && iptables-legacy -m bpf --help >/dev/null
COPY --chmod=0755 linux_${TARGETARCH}/nameward-agent linux_${TARGETARCH}/namewardctl /usr/bin/
# The user of bpffs and of iptables' lock; which capabilities it has, who runs it says.
USER 0:0
EXPOSE 7481
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/nameward-agent"]
CMD ["run", "--config", "/etc/nameward/agent.yaml"]
