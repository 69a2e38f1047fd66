#!/bin/bash
# tap.sh [prove's options] [files]: runs TAP tests against the PostgreSQL of
# PG_CONFIG, into which plinth must be installed.  All of test/t by default.
# KEEP=1 keeps the clusters; their logs are kept when a test fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. test/env.sh
test/servers/fetch.sh "$PLINTH_SERVERS"
test/servers/fetch-npm.sh "$PLINTH_SERVERS/npm"
test/servers/fetch-go.sh "$PLINTH_SERVERS/go" || echo "without pgx" >&2

options=() files=()
for argument in "$@"; do
	case $argument in
		*.pl) files+=("$argument") ;;
		*) options+=("$argument") ;;
	esac
done
[ ${#files[@]} -gt 0 ] || files=(test/t/*.pl)

TESTDIR=$(as_tester mktemp -d "${TMPDIR:-/tmp}/plinth-tap.XXXXXX")
# PostgreSQL 15 makes of the first what later ones ask for.
export TESTDIR TESTDATADIR=$TESTDIR/tmp_check TESTLOGDIR=$TESTDIR/tmp_check/log
[ -z "${KEEP:-}" ] || export PG_TEST_NOCLEAN=1

status=0
as_tester prove "${options[@]}" "${files[@]}" </dev/null || status=$?
if [ $status = 0 ] && [ -z "${KEEP:-}" ]; then
	rm -rf "$TESTDIR"
else
	echo "logs: $TESTDIR/tmp_check/log, clusters: $TESTDIR/tmp_check" >&2
fi
exit $status
