#!/bin/bash
# fetch-npm.sh [DIR]: puts what the tests need of npm (npm/package.json) into
# DIR, build/servers/npm by default.  Does nothing when it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../build/servers/npm}
. "$here/once.sh" "$here"/npm/*

command -v npm >/dev/null || { echo "fetch-npm.sh: npm is missing (apt-get install npm)" >&2; exit 1; }
rm -rf "$dir/node_modules"
cp "$here"/npm/*.json "$dir/"
(cd "$dir" && npm_config_cache=$dir/.cache npm ci --ignore-scripts --no-audit --no-fund </dev/null >&2)
rm -rf "$dir/.cache"
echo "$want" >"$dir/.done"
