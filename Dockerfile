# Longspan on the CPU, serving the bundled model unless --model says otherwise:
#   docker build -t longspan .
#   docker run --rm -p 8000:8000 longspan
#   docker run --rm -p 8000:8000 -v /path/to/checkpoint:/model:ro longspan --model /model

# ---- the dependencies that run, in a stage of their own so that npm's cache stays out of the image ----
FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
# .npmrc keeps install scripts off: onnxruntime-node's would fetch GPU libraries that are not used here.
COPY package.json package-lock.json .npmrc ./
# onnxruntime-node carries the libraries of every platform (about 290 MB); only this one's are kept.
RUN npm ci --omit=dev --no-update-notifier \
 && kept=$(node -p 'process.platform + "/" + process.arch') \
 && find node_modules/onnxruntime-node/bin -mindepth 3 -maxdepth 3 -type d ! -path "*/$kept" -exec rm -r {} + \
 && node -e 'require("onnxruntime-node")'

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
# The order of layers: what changes least first.
COPY models ./models
COPY package.json LICENSE ./
COPY bin ./bin
COPY config ./config
COPY engine ./engine
COPY kvcache ./kvcache
COPY retrieval ./retrieval
COPY routes ./routes
COPY scheduler ./scheduler
COPY server ./server
COPY tokenizer ./tokenizer

# Nothing is written below /app, so its files stay root's; the image's own user "node" (uid 1000) only reads them.
USER node

# A container's own loopback is out of reach of -p, so all addresses. Flags after the image's name win over this.
ENV LONGSPAN_HOST=0.0.0.0 LONGSPAN_PORT=8000
EXPOSE 8000

# SIGTERM drains: running answers have --drain-seconds (30) to end. Give `docker stop -t` more than that.
STOPSIGNAL SIGTERM

# The slim image has no curl. /health is 503 only when the engine is gone for good; it is 200 while it loads.
# The port is the one the variable names: set LONGSPAN_PORT rather than --port where another is wanted.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.LONGSPAN_PORT}/health`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]

# Exec form and node itself as process 1: npm would not pass SIGTERM on.
ENTRYPOINT ["node", "bin/longspan.mjs"]
