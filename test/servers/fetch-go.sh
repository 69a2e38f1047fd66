#!/bin/bash
# fetch-go.sh [DIR]: builds the test client that uses pgx (pgx/main.go) into
# DIR, build/servers/go by default, with the Go on PATH, 1.19 or newer.  Does
# nothing when it is there.  Fails where there is no Go, or its modules cannot be
# had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../build/servers/go}
. "$here/once.sh" "$here"/pgx/*

command -v go >/dev/null || { echo "fetch-go.sh: go is missing (apt-get install golang-go)" >&2; exit 1; }
# Everything in a folder of its own: the tester may have no home.
work=$dir/.work
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
cp "$here"/pgx/* "$work/"
export GOPATH=$work/path GOCACHE=$work/cache GOFLAGS=-modcacherw GOTOOLCHAIN=local CGO_ENABLED=0
cd "$work"
timeout 60 go mod download </dev/null >&2
# Not optimized: the client waits, and what it stands on is compiled in half the time.
go build -gcflags='all=-N -l' -ldflags='-s -w' -o "$dir/pgx" . </dev/null >&2
echo "$want" >"$dir/.done"
