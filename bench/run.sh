#!/bin/bash
# run.sh [suite…]: `make bench`.  Builds plinth into a private copy of
# PostgreSQL, makes a cluster for each suite (a folder of bench/ with a
# bench.py) and prints what it measures.  Figures are ratios within one run.
#
# BENCH_SUITES names the suites where no argument does.  BENCH_ROWS,
# BENCH_ROUNDS and BENCH_SECONDS make it longer or shorter.
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
cd "$(dirname "$0")/.."
umask 022

suites=("$@")
# shellcheck disable=SC2206
[ $# -gt 0 ] || suites=(${BENCH_SUITES:-sync limits cache session request})
wants() { [[ " ${suites[*]} " == *" $1 "* ]]; }

test/deps.sh gcc make pkg-config libc6-dev libpq-dev postgresql-15 postgresql-client-15 postgresql-server-dev-15 \
	libmongoc-dev libsodium-dev libssl-dev python3 python3-psycopg2 \
	$(! wants sync || echo python3-pymongo) \
	$(! wants sync || [ -n "${MONGODB_URI:-}" ] || echo maven openjdk-17-jdk-headless) \
	$(! wants limits && ! wants cache && ! wants session && ! wants request ||
		echo redis-server redis-tools libhiredis-dev libcurl4-openssl-dev) \
	$(! wants request || command -v npm >/dev/null || echo nodejs npm)
PATH="$PATH:/usr/lib/postgresql/15/bin"
. test/env.sh
. test/place.sh
place=${PLINTH_BENCH:-${TMPDIR:-/tmp}/plinth-bench-$PLINTH_TESTER}
own_place "$place"

config=$(as_tester test/servers/pg.sh 15 "$place/pg")
put_tree "$place/src"
as_tester make -s -j2 -C "$place/src" PG_CONFIG="$config" all install </dev/null >"$place.build.log" 2>&1 ||
	{ cat "$place.build.log" >&2; exit 1; }
rm -f "$place.build.log"
PG_CONFIG=$config
PATH="$("$config" --bindir):$PATH"

export PLINTH_SERVERS=$place/servers
if wants sync && [ -z "${MONGODB_URI:-}" ]; then
	test/servers/fetch.sh build/servers
	put build/servers "$PLINTH_SERVERS" --exclude=./.lock --exclude=./m2 --exclude=./npm
fi
if wants request; then
	test/servers/fetch-npm.sh build/servers/npm
	put build/servers/npm "$PLINTH_SERVERS/npm" --exclude=./.lock
fi

stop() {
	if [ -e "$place/data/postmaster.pid" ]; then
		as_tester pg_ctl -D "$place/data" -m immediate -w stop >/dev/null || true
	fi
	as_tester rm -rf "$place/data"
}
trap stop EXIT

# build PROGRAM SOURCE... -- LIBRARY...
build() {
	local program=$1 sources=()
	shift
	while [ "$1" != -- ]; do
		sources+=("$1")
		shift
	done
	shift
	# shellcheck disable=SC2046
	as_tester gcc -O2 -Wall -Wextra -Werror -o "$place/bin/$program" "${sources[@]}" $(pkg-config --cflags --libs "$@") -lpthread
}

for suite in "${suites[@]}"; do
	echo "# $suite"
	stop
	# TCP is for comparing with peers that are reached by it.
	PGPASSWORD=$(openssl rand -hex 16)
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	export PGPASSWORD port
	as_tester bash -c 'umask 077; printf "%s\n" "$PGPASSWORD" >"$1"' bash "$place/password"
	as_tester initdb -D "$place/data" -U postgres --no-locale -E UTF8 \
		--auth-local=trust --auth-host=scram-sha-256 --pwfile="$place/password" >/dev/null
	as_tester "$place/src/test/servers/pg_conf.sh" "$place"
	as_tester tee -a "$place/data/postgresql.conf" >/dev/null <<-CONF
		fsync = on
		shared_buffers = 256MB
		max_wal_size = 4GB
		unix_socket_permissions = 0700
		listen_addresses = '127.0.0.1'
		port = $port
		plinth.session_memory = 256MB
	CONF
	as_tester pg_ctl -D "$place/data" -l "$place/postgresql.log" -w -t 60 start >/dev/null ||
		{ tail -20 "$place/postgresql.log" >&2; exit 1; }
	as_tester mkdir -p "$place/bin"
	if [ "$suite" = sync ]; then
		for source in "$place/src/bench/sync"/*.c; do
			build "$(basename "$source" .c)" "$source" -- libmongoc-1.0 libpq
		done
	else
		build load "$place/src/bench/common"/*.c -- hiredis libpq libcurl
	fi
	PGHOST=$place PGPORT=$port PGUSER=postgres BENCH_BIN=$place/bin \
		as_tester "$PLINTH_PYTHON" "$place/src/bench/$suite/bench.py"
done
