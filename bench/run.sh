#!/bin/bash
# run.sh [suite…]: `make bench`.  Builds plinth into a private copy of
# PostgreSQL, makes a cluster for each suite (a folder of bench/ with a
# bench.py) and prints what it measures.  Figures are ratios within one run.
#
# BENCH_ROWS, BENCH_ROUNDS and BENCH_SECONDS make it longer or shorter.
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
cd "$(dirname "$0")/.."
umask 022

test/deps.sh gcc make pkg-config libc6-dev libpq-dev postgresql-15 postgresql-client-15 postgresql-server-dev-15 \
	libmongoc-dev libsodium-dev libssl-dev python3 python3-pymongo python3-psycopg2 \
	$([ -n "${MONGODB_URI:-}" ] || echo maven openjdk-17-jdk-headless)
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

if [ -z "${MONGODB_URI:-}" ]; then
	test/servers/fetch.sh build/servers
	put build/servers "$place/servers" --exclude=./.lock --exclude=./m2
	export PLINTH_SERVERS=$place/servers
fi

stop() {
	if [ -e "$place/data/postmaster.pid" ]; then
		as_tester pg_ctl -D "$place/data" -m immediate -w stop >/dev/null || true
	fi
	as_tester rm -rf "$place/data"
}
trap stop EXIT

for suite in "${@:-sync}"; do
	stop
	as_tester initdb -D "$place/data" -A trust -U postgres --no-locale -E UTF8 >/dev/null
	as_tester "$place/src/test/servers/pg_conf.sh" "$place"
	as_tester tee -a "$place/data/postgresql.conf" >/dev/null <<-CONF
		fsync = on
		shared_buffers = 256MB
		max_wal_size = 4GB
		unix_socket_permissions = 0700
	CONF
	as_tester pg_ctl -D "$place/data" -l "$place/postgresql.log" -w -t 60 start >/dev/null ||
		{ tail -20 "$place/postgresql.log" >&2; exit 1; }
	as_tester mkdir -p "$place/bin"
	for source in "$place/src/bench/$suite"/*.c; do
		# shellcheck disable=SC2046
		as_tester gcc -O2 -Wall -Wextra -Werror -o "$place/bin/$(basename "$source" .c)" "$source" \
			$(pkg-config --cflags --libs libmongoc-1.0 libpq) -lpthread
	done
	PGHOST=$place PGPORT=5432 PGUSER=postgres BENCH_BIN=$place/bin \
		as_tester "$PLINTH_PYTHON" "$place/src/bench/$suite/bench.py"
done
