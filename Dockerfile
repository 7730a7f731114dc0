# One file, four images: redis (a store with no third party's image needed), front (a load balancer), build (thrown away), run (every
# nunchi program).
FROM debian:bookworm-slim AS redis
RUN apt-get update -q && apt-get install -y -q --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
    && install -d -o redis -g redis -m 700 /data
USER redis
WORKDIR /data
EXPOSE 6379
# Kept (AOF) because accepted files live here; caches carry a time to live and are evicted first.
ENTRYPOINT ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes", "--save", "", \
            "--maxmemory-policy", "volatile-lru"]
CMD ["--maxmemory", "1gb"]

# Before several gateways.
FROM debian:bookworm-slim AS front
RUN apt-get update -q && apt-get install -y -q --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
COPY deploy/haproxy.cfg /etc/haproxy/haproxy.cfg
USER haproxy
EXPOSE 8642
ENTRYPOINT ["haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"]

FROM debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/packages.txt deploy/install-deps deploy/
RUN deploy/install-deps build
COPY . .
RUN make -j"$(nproc)" BUILD=/build all

FROM debian:bookworm-slim AS run
COPY deploy/packages.txt deploy/install-deps /tmp/deploy/
RUN /tmp/deploy/install-deps run && rm -rf /var/lib/apt/lists/* /tmp/deploy \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin nunchi \
    && install -d -o nunchi -g nunchi /var/lib/nunchi /var/lib/nunchi/models /var/lib/nunchi/spool
COPY --from=build /build/bin/ /usr/local/bin/
ENV NUNCHI_HOME=/var/lib/nunchi
USER nunchi
WORKDIR /var/lib/nunchi
EXPOSE 8642
ENTRYPOINT []
CMD ["nunchi", "--help"]
