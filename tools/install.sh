#!/bin/sh
# Brings node_modules and build/ in step with the lockfile and wasm/; silent when nothing is due.
# Needs any npm. Node itself comes as a binary package, so that every machine runs the same one.
set -eu
cd "$(dirname "$0")/.."
stamp=node_modules/.redoubt-installed
if ! cmp -s package-lock.json "$stamp"; then
  # Two that start at once must not install over each other: the second waits, and finds it done.
  if command -v flock >/dev/null; then
    exec 9<.
    flock 9
  fi
fi
if ! cmp -s package-lock.json "$stamp"; then
  command -v npm >/dev/null || {
    echo 'redoubt: npm is not installed; install it first (Debian: apt-get install npm)' >&2
    exit 2
  }
  echo 'redoubt: installing dependencies (once)' >&2
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  # npm 9, as Debian 12 has it, makes no link to the program of an optional package.
  if [ ! -e node_modules/.bin/node ]; then
    for program in node_modules/node-*-*/bin/node; do
      [ -x "$program" ] && ln -sf "../${program#node_modules/}" node_modules/.bin/node
    done
  fi
  [ -x node_modules/.bin/node ] || {
    echo "redoubt: there is no Node binary package for $(uname -s) on $(uname -m)" >&2
    exit 2
  }
  cp package-lock.json "$stamp"
fi
if [ ! -e build/kernels.wasm ] || [ -n "$(find wasm -newer build/kernels.wasm -type f)" ]; then
  node_modules/.bin/node wasm/build.js
fi
