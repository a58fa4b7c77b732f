# One image per process: EXTRAS names what it needs, so that a replica never carries torch.
FROM python:3.11-slim
ARG EXTRAS=all
WORKDIR /app
RUN useradd --system --create-home fincoach && mkdir -p /var/lib/fincoach && chown fincoach /var/lib/fincoach
# LightGBM's OpenMP runtime is the one shared library that the slim image lacks.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY fincoach_events fincoach_events
COPY schemas schemas
COPY backends backends
COPY modelkit modelkit
COPY models models
COPY streams streams
COPY trainers trainers
COPY deployer deployer
COPY serving serving
COPY admin admin
COPY stack stack
COPY migrations migrations
RUN pip install --no-cache-dir -c constraints.txt ./fincoach_events ".[${EXTRAS}]"
USER fincoach
CMD ["fincoach-learning", "--help"]
