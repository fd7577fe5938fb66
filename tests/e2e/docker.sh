# A Docker daemon and an image registry for tests, on paths and ports of their own. Source it.
# The images are made from Debian packages and served by the registry as Docker Hub's mirror, so that
# pulling "nginx:1.8" works where no registry is reachable.

WORK=${SKIFF_E2E_DIR:-/var/tmp/skiff-e2e}
REGISTRY=127.0.0.1:${SKIFF_E2E_REGISTRY_PORT:-5055}
export DOCKER_HOST=unix://$WORK/docker.sock
mkdir -p "$WORK"

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

# wait_for SECONDS COMMAND...   until it succeeds
wait_for() {
  local limit=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || { echo "gave up waiting for: $*" >&2; return 1; }
    read -rt 0.2 <> <(:) || :
  done
}

registry_up() {
  curl -fs "http://$REGISTRY/v2/" >/dev/null 2>&1 && return
  cat >"$WORK/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $WORK/registry}}
http: {addr: $REGISTRY}
YAML
  setsid docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 </dev/null &
  echo $! >"$WORK/registry.pid"
  wait_for 20 curl -fs "http://$REGISTRY/v2/"
}

docker_up() {
  docker version >/dev/null 2>&1 && return
  rm -f "$WORK/docker.pid"
  setsid dockerd --data-root "$WORK/docker" --exec-root "$WORK/docker-exec" --pidfile "$WORK/docker.pid" \
    -H "$DOCKER_HOST" --registry-mirror "http://$REGISTRY" >"$WORK/dockerd.log" 2>&1 </dev/null &
  wait_for 30 docker version || { tail -5 "$WORK/dockerd.log" >&2; return 1; }
}

# stop_pid FILE   ends the process whose number the file holds, and waits until it is gone
stop_pid() {
  [ -f "$1" ] || return 0
  local pid; pid=$(cat "$1")
  kill "$pid" 2>/dev/null || :
  wait_for 30 bash -c "! kill -0 $pid" || kill -9 "$pid"
  rm -f "$1"
}

docker_down() {
  docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1
  stop_pid "$WORK/docker.pid"
  stop_pid "$WORK/registry.pid"
}

# nginx as three tags, told apart by their page; logs go to stdout and stderr as in Docker's own image.
build_images() {
  [ -f "$WORK/images.done" ] && return
  say "making the test images from Debian packages"
  [ -f "$WORK/nginx.tar" ] || mmdebstrap --quiet --variant=minbase --include=nginx-light,psmisc \
    --dpkgopt='path-exclude=/usr/share/{doc,man,locale,info}/*' bookworm "$WORK/nginx.tar"
  docker import "$WORK/nginx.tar" nginx:raw >/dev/null
  local tag
  for tag in 1.7.9 1.8 latest; do
    mkdir -p "$WORK/build"
    cat >"$WORK/build/Dockerfile" <<DOCKERFILE
FROM nginx:raw
RUN mkdir -p /usr/share/nginx/html && echo '<html><body>Welcome to nginx! ($tag)</body></html>' >/usr/share/nginx/html/index.html && \
  sed -i 's|root /var/www/html;|root /usr/share/nginx/html;|' /etc/nginx/sites-available/default && \
  ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
DOCKERFILE
    DOCKER_BUILDKIT=0 docker build -q -t "nginx:$tag" "$WORK/build" >/dev/null
    docker tag "nginx:$tag" "$REGISTRY/library/nginx:$tag"
    docker push -q "$REGISTRY/library/nginx:$tag" >/dev/null
  done
  touch "$WORK/images.done"
}
