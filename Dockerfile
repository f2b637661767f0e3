# sstplb in a container. Written without an engine at hand: not yet built (docs/operations.md).
#
#   docker build -t sstplb .
#   docker run -d --name sstplb -p 443:443 -v /etc/sstplb:/etc/sstplb:ro --tmpfs /run/sstplb:uid=10443 sstplb
#
# Ports below 1024 need no privilege in a container (net.ipv4.ip_unprivileged_port_start is 0).
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sstplb sstplb
RUN python -m venv /opt/sstplb && /opt/sstplb/bin/pip install --no-cache-dir '.[openssl]'

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10443 --home-dir /var/lib/sstplb --create-home sstplb \
 && install -d -o sstplb -m 0750 /run/sstplb
COPY --from=build /opt/sstplb /opt/sstplb
ENV PATH=/opt/sstplb/bin:$PATH PYTHONUNBUFFERED=1
USER sstplb
EXPOSE 443
VOLUME /var/lib/sstplb
# The file says where the admin side is; without one (admin.socket) the container counts as unhealthy.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
  CMD ["sstplb", "ctl", "--conf", "/etc/sstplb/sstplb.yaml", "version"]
ENTRYPOINT ["sstplb"]
CMD ["run", "/etc/sstplb/sstplb.yaml"]
