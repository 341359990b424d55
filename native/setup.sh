#!/bin/sh
# Prepares a checkout: installs the locked dependencies, compiles the native kernels when a C
# compiler is present, and builds dist/. Each step is skipped when its result is newer than its inputs.
set -eu
cd "$(dirname "$0")/.."

if [ ! -e node_modules/.package-lock.json ] ||
  [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo 'replaybd: installing dependencies (once) ...' >&2
  npm ci --no-audit --no-fund --loglevel=error --ignore-scripts >&2
fi
PATH="$PWD/node_modules/.bin:$PATH"

mkdir -p dist
if [ ! -e dist/libreplaybd.so ] ||
  [ -n "$(find native -name '*.c' -newer dist/libreplaybd.so | head -n 1)" ]; then
  if command -v cc >/dev/null 2>&1; then
    # A temporary name first: a killed compiler must not leave half a library behind.
    cc -O3 -shared -fPIC -Wall -Wextra -o "dist/libreplaybd.so.$$" native/*.c -ldl &&
      mv "dist/libreplaybd.so.$$" dist/libreplaybd.so ||
      echo 'replaybd: native kernels did not compile; the portable ones are used' >&2
  else
    echo 'replaybd: no C compiler (cc); the portable kernels are used' >&2
  fi
fi

if [ ! -e dist/.tsbuildinfo ] ||
  [ -n "$(find src native tui bench tsconfig.json tsconfig.build.json -newer dist/.tsbuildinfo -type f | head -n 1)" ]; then
  tsc -p tsconfig.build.json
  touch dist/.tsbuildinfo
fi
