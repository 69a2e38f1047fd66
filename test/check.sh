#!/bin/bash
# check.sh [--all] [STAGE…]: every test.  `make check` calls it.
#
# It installs what it needs, copies the tree to a folder of its own, builds
# and tests there against private copies of PostgreSQL, as an ordinary user
# (PostgreSQL does not run as root), and ends with "N passed, N failed, N
# skipped".  --all runs every test on every PostgreSQL that can be had, and
# the long ones (PLINTH_LONG=1 is what the tests see).
#
#	STAGES="regress tap"       only these: build static unit fuzz regress
#	                           isolation pgtap tap sanitize debian
#	TESTS="100_x.pl types"     only these files of the stages that have files
#	PLINTH_WORK=DIR            where to work
#	JOBS=N                     how many TAP files at a time (3: they wait more than they work)
#	PLINTH_BASE=17             the system's PostgreSQL, where it is not 15
#	PLINTH_RESULTS=FILE        a copy of what each test said (see run_tap.pl)
set -uo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
cd "$(dirname "$0")/.." || exit 1
source_root=$PWD
umask 022

all=
stages=()
for argument in "$@"; do
	case $argument in
		--all) all=1 ;;
		*) stages+=("$argument") ;;
	esac
done
[ ${#stages[@]} -gt 0 ] || read -r -a stages <<<"${STAGES:-build static unit fuzz regress isolation pgtap tap${all:+ sanitize debian}}"
tests=${TESTS:-}
if [ -n "$all" ]; then
	export PLINTH_LONG=1
fi

started=$(date +%s)
say() { printf '\n# [%4ds] %s\n' $(($(date +%s) - started)) "$*"; }
die() { echo "check.sh: $*" >&2; exit 1; }

# ---- what it needs ---------------------------------------------------------
base=${PLINTH_BASE:-15}
packages=(gcc make pkg-config binutils libc6-dev libcrypt-dev openssl ca-certificates
	"postgresql-$base" "postgresql-client-$base" "postgresql-server-dev-$base" "postgresql-$base-pgtap" libipc-run-perl
	libmongoc-dev libsodium-dev libssl-dev libfaketime pgbouncer python3 python3-psycopg2 python3-jwt python3-cryptography)
if [ "$base" = 15 ]; then
	packages+=(clang-14 clang-format-14 libclang-rt-14-dev maven openjdk-17-jdk-headless python3-pip python3-pymongo python3-gridfs)
	command -v npm >/dev/null || packages+=(nodejs npm)
else
	# What comes from Maven and npm was fetched outside.
	packages+=(default-jre-headless nodejs)
	export PG_CONFIG=/usr/lib/postgresql/$base/bin/pg_config
fi
say "packages"
test/deps.sh "${packages[@]}" || die "cannot go on without them"

say "test servers"
build=$source_root/build
[ -e "$build/servers/go/.done" ] || command -v go >/dev/null || test/deps.sh golang-go || true
test/servers/fetch-go.sh "$build/servers/go" &
fetching_go=$!
test/servers/fetch.sh "$build/servers" || die "the test server could not be fetched"
test/servers/fetch-npm.sh "$build/servers/npm" || die "what the tests need of npm could not be fetched"
have_pgserver=
if [ "$base" = 15 ] && test/servers/fetch-pgserver.sh "$build/pgserver"; then
	have_pgserver=1
fi
wait $fetching_go || echo "# without pgx: no Go, or its modules cannot be had"

# ---- a place to work in ----------------------------------------------------
. test/env.sh
. test/place.sh
work=${PLINTH_WORK:-${TMPDIR:-/tmp}/plinth-check-$PLINTH_TESTER-$(printf %s "$source_root" | cksum | cut -d' ' -f1)}
own_place "$work" || exit 1
exec 8>"$build/.check.lock"
flock -n 8 || die "another check of this tree is running"

put "$build/servers" "$work/servers" --exclude=.lock --exclude=./m2
[ -z "$have_pgserver" ] || [ -e "$work/pgserver/.done" ] || put "$build/pgserver" "$work/pgserver"
export PLINTH_SERVERS=$work/servers PLINTH_PGSERVER=$work/pgserver
export HOME=$work
results=$work/results
logs=$work/logs
as_tester rm -rf "$results" "$logs"
as_tester mkdir -p "$logs"
as_tester touch "$results"

record() { printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}" | as_tester tee -a "$results" >/dev/null; }
passed() { record ok "$1"; echo "ok - $1"; }
failed() { record fail "$1" "${2:-}"; echo "not ok - $1"; }
skipped() { record skip "$1" "$2"; echo "ok - $1 # SKIP $2"; }

tap() { # tap OPTIONS… FILES…
	local status=0
	as_tester test/run_tap.pl -r "$results" "$@" </dev/null || status=$?
	# 1 is a failed test, which is recorded; anything else is no verdict.
	[ $status -le 1 ] || failed "test driver ($stage)" "exit status $status"
}

chosen() { # of the files given, those that TESTS asks for
	local file test
	for file in "$@"; do
		[ -e "$file" ] || continue
		if [ -z "$tests" ]; then
			echo "$file"
			continue
		fi
		for test in $tests; do
			case $(basename "$file") in "$test" | "$test".*) echo "$file" ;; esac
		done
	done
}

# ---- build -----------------------------------------------------------------
declare -A config
build_on() { # build_on VERSION: sets config[VERSION]
	local version=$1 log=$logs/build-$1.log
	if ! config[$version]=$(as_tester test/servers/pg.sh "$version" "$work/pg$version" 2>"$work/pg.err"); then
		unset "config[$version]"
		skipped "build on PostgreSQL $version" "not in the system, and not to be had from PyPI within a minute"
		return
	fi
	put_tree "$work/src$version"
	as_tester make -j2 -C "$work/src$version" PG_CONFIG="${config[$version]}" all install </dev/null 2>&1 |
		as_tester tee "$log" >/dev/null
	if [ "${PIPESTATUS[0]}" != 0 ]; then
		tail -40 "$log"
		failed "build on PostgreSQL $version" "see $log"
		unset "config[$version]"
	elif grep -qi 'warning' "$log"; then
		grep -i 'warning' "$log" | head
		failed "build on PostgreSQL $version" "warnings, see $log"
	else
		passed "build on PostgreSQL $version without a warning"
	fi
}

use() { # use VERSION: what follows runs there
	export PG_CONFIG=${config[$1]}
	cd "$work/src$1" || exit 1
	. test/env.sh
	version=$1
}

# ---- a server for pg_regress ----------------------------------------------
server_start() { # server_start DIR [ENVIRONMENT…]
	local dir=$1
	shift
	server=$dir
	as_tester rm -rf "$dir"
	as_tester mkdir -p "$dir"
	as_tester initdb -D "$dir/data" -A trust -N -U postgres --no-locale -E UTF8 >"$work/initdb.log" 2>&1 ||
		{ cat "$work/initdb.log"; return 1; }
	as_tester test/servers/pg_conf.sh "$dir" >/dev/null
	# A value may be refused by a cache while others' transactions go on: those that nobody asked for need not.
	echo "autovacuum = off" | as_tester tee -a "$dir/data/postgresql.conf" >/dev/null
	as_tester env "$@" pg_ctl -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null || { tail -20 "$dir/log"; return 1; }
	export PGHOST=$dir PGPORT=5432 PGUSER=postgres
}

server_stop() {
	as_tester pg_ctl -D "$server/data" -w -m fast stop >/dev/null
	unset PGHOST PGPORT PGUSER
}

pg_regress() { # pg_regress KIND GOALS…: runs installcheck, counts its tests
	local kind=$1 out=$logs/$1-$version.out line name
	shift
	as_tester make -s installcheck PG_CONFIG="$PG_CONFIG" "$@" </dev/null 2>&1 | as_tester tee "$out" |
		grep -E '^(test |ok |not ok |# .*(failed|differ))'
	while read -r line; do
		name=$(sed -E 's/^test +([^ ]+) .*/\1/; s/^(not )?ok +[0-9]+ +[-+] +([^ ]+).*/\2/' <<<"$line")
		case $line in
			"test "*FAILED* | "not ok"*) record fail "$kind $name ($version)" ;;
			*) record ok "$kind $name ($version)" ;;
		esac
	done < <(grep -E '^(test .* \.\.\. |ok [0-9]|not ok [0-9])' "$out")
	if ! grep -qE '^(test .* \.\.\. |ok [0-9]|not ok [0-9])' "$out"; then
		tail -20 "$out"
		failed "$kind ($version)" "did not run, see $out"
	elif grep -qE '^test .*FAILED|^not ok' "$out"; then
		find . -name regression.diffs -newer "$results.start" -exec head -150 {} \;
	fi
}

# ---- stages ----------------------------------------------------------------
stage_build() {
	build_on "$base"
	if [ "$base" = 15 ] && [ -n "${config[15]:-}" ]; then
		build_on 16
		build_on 18
	fi
}

stage_static() { tap $(chosen test/checks/*.sh test/checks/*.pl); }

stage_unit() { # each built with what its first line names
	local file name
	for file in $(chosen test/unit/*_test.c); do
		name=$(basename "$file" .c)
		compile "$file" "$work/unit/$name" clang-14 -fsanitize=address,undefined -fno-sanitize-recover=all &&
			UBSAN_OPTIONS=print_stacktrace=1 tap "$work/unit/$name"
	done
}

stage_fuzz() { # each as long as it says (20 s), ten times as long in check-all; JOBS at a time
	local file name seconds running=0
	for file in $(chosen test/fuzz/*_fuzz.c); do
		name=$(basename "$file" .c)
		seconds=$(sed -n 's|^/\* *seconds: *\([0-9]*\) *\*/.*|\1|p' "$file" | head -1)
		seconds=${seconds:-20}
		[ -z "$all" ] || seconds=$((seconds * 10))
		compile "$file" "$work/fuzz/$name" clang-14 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all || continue
		[ $running -lt "${JOBS:-2}" ] || { wait -n; running=$((running - 1)); }
		fuzz "$name" "$seconds" &
		running=$((running + 1))
	done
	wait
}

fuzz() { # fuzz NAME SECONDS
	local name=$1 seconds=$2 log=$work/fuzz/$1.log
	as_tester mkdir -p "$work/corpus/$name"
	if as_tester timeout $((seconds + 60)) "$work/fuzz/$name" -max_total_time="$seconds" -timeout=10 \
		-artifact_prefix="$logs/$name-" "$work/corpus/$name" </dev/null >"$log" 2>&1; then
		passed "fuzz $name, $seconds s: $(grep -oE '^Done [0-9]+ runs' "$log")"
	else
		tail -40 "$log"
		failed "fuzz $name" "see $logs/$name-*"
	fi
}

compile() { # compile FILE OUTPUT COMPILER OPTIONS…
	local file=$1 output=$2 source libs sources=()
	shift 2
	as_tester mkdir -p "$(dirname "$output")"
	for source in $(sed -n 's|^/\* *sources: *\(.*\) *\*/.*|\1|p' "$file" | head -1); do
		[ -e "src/$source" ] && source=src/$source
		sources+=("$source")
	done
	libs=$(sed -n 's|^/\* *libs: *\(.*\) *\*/.*|\1|p' "$file" | head -1)
	# shellcheck disable=SC2086
	if ! as_tester "$@" -g -O1 -Wall -Wextra -Werror -Wshadow -Isrc -Itest/unit -o "$output" \
		"$file" "${sources[@]}" $libs -lm >"$work/compile.log" 2>&1; then
		cat "$work/compile.log"
		failed "compile $file"
		return 1
	fi
}

stage_regress() {
	local names
	names=$(chosen test/sql/*.sql | xargs -rn1 basename | sed 's/\.sql$//' | tr '\n' ' ')
	[ -n "$names" ] || return
	server_start "$work/regress$version" || { failed "server for regress"; return; }
	pg_regress regress REGRESS="$names" ISOLATION=
	no_secret_in "$work/regress$version/log"
	server_stop
}

# no_secret_in LOG: what the tests sign in by, and what stands for it in tables,
# is in no line of a log that has all their errors.
no_secret_in() {
	local name="no password, token or hash in the log of the regression tests ($version)" found
	found=$(as_tester grep -nE 'pl[skor]_[A-Za-z0-9_-]{43}|\$argon2|\$2[aby]\$[0-9]|eyJ[A-Za-z0-9_-]{8,}\.eyJ|correct horse|battery staple' "$1" | head -5)
	if [ -n "$found" ]; then
		echo "$found"
		failed "$name" "see $1"
	else
		passed "$name"
	fi
}

stage_isolation() {
	local names
	names=$(chosen test/isolation/specs/*.spec | xargs -rn1 basename | sed 's/\.spec$//' | tr '\n' ' ')
	[ -n "$names" ] || return
	server_start "$work/isolation$version" || { failed "server for isolation"; return; }
	pg_regress isolation ISOLATION="$names" REGRESS=
	server_stop
}

stage_pgtap() {
	local files
	files=$(chosen test/pgtap/*.sql)
	[ -n "$files" ] || return
	if [ ! -e "$("$PG_CONFIG" --sharedir)/extension/pgtap.control" ]; then
		skipped "pgTAP ($version)" "this PostgreSQL has no pgtap"
		return
	fi
	server_start "$work/pgtap$version" || { failed "server for pgTAP"; return; }
	as_tester createdb pgtap
	as_tester psql -qX -d pgtap -c 'CREATE EXTENSION pgtap; CREATE EXTENSION plinth'
	# shellcheck disable=SC2086
	tap -e "psql -X -d pgtap -qAt -v ON_ERROR_STOP=1 -P pager=off -f" $files
	server_stop
}

stage_tap() {
	local files newer testdir=$work/tap$version
	files=$(chosen test/t/[0-9]*.pl)
	[ -n "$files" ] || return
	as_tester rm -rf "$testdir"
	as_tester mkdir -p "$testdir"
	export TESTDIR=$testdir TESTDATADIR=$testdir/tmp_check TESTLOGDIR=$testdir/tmp_check/log
	PLINTH_UPGRADE=
	for newer in 16 18; do
		[ -z "${config[$newer]:-}" ] || PLINTH_UPGRADE+="${PLINTH_UPGRADE:+:}$("${config[$newer]}" --bindir)"
	done
	export PLINTH_UPGRADE
	# shellcheck disable=SC2086
	tap -j "${JOBS:-3}" -t "$([ -n "$all" ] && echo 7200 || echo 900)" $files
}

# The regression tests once more, in a server under Valgrind, with a plinth
# whose undefined behaviour is instrumented.  (ASan has no say here: its
# runtime deadlocks in bindtextdomain when preloaded into a foreign program.)
# Reports count when they come from our library.
stage_sanitize() {
	local names reports
	command -v valgrind >/dev/null || test/deps.sh valgrind || { skipped sanitize "no valgrind"; return; }
	put_tree "$work/sanitize"
	PG_CONFIG=$(as_tester test/servers/pg.sh 15 "$work/pgsanitize") || return
	cd "$work/sanitize" || return
	if ! as_tester make -j2 PG_CONFIG="$PG_CONFIG" COPT="-O1 -g -fsanitize=undefined" WERROR= all install \
		</dev/null >"$work/sanitize.log" 2>&1; then
		tail -20 "$work/sanitize.log"
		failed "sanitize: build"
		return
	fi
	. test/env.sh
	names=$(chosen test/sql/*.sql | xargs -rn1 basename | sed 's/\.sql$//' | tr '\n' ' ')
	[ -n "$names" ] || return
	as_tester tee "$work/postgres.valgrind" >/dev/null <<-END
		#!/bin/sh
		exec valgrind --quiet --trace-children=yes --child-silent-after-fork=no --error-limit=no --num-callers=30 \\
			--suppressions=$work/sanitize/test/valgrind.supp --log-file=$logs/valgrind.%p $(command -v postgres) "\$@"
	END
	as_tester chmod +x "$work/postgres.valgrind"
	server_start "$work/sanitizedb" ||
		{ failed "sanitize: server"; return; }
	server_stop
	if ! as_tester env UBSAN_OPTIONS=print_stacktrace=1 pg_ctl -D "$work/sanitizedb/data" -p "$work/postgres.valgrind" \
		-l "$work/sanitizedb/log" -w -t 300 start >/dev/null; then
		head -20 "$logs"/valgrind.*
		failed "sanitize: server under Valgrind"
		return
	fi
	export PGHOST=$work/sanitizedb PGPORT=5432 PGUSER=postgres
	pg_regress sanitize REGRESS="$names" ISOLATION=
	server_stop
	reports=$(cat "$logs"/valgrind.* | awk 'BEGIN { RS = "\n==[0-9]+== \n" } /plinth\.so|\/src\/(base|crypto|worker|decode|limits|audit|identity|session|cache|mongo|sync)\//')
	if [ -n "$reports" ] || grep -q 'runtime error:' "$work/sanitizedb/log"; then
		head -80 <<<"$reports"
		grep -A8 'runtime error:' "$work/sanitizedb/log" | head -60
		failed "Valgrind and UBSan find nothing of ours in the regression tests" "see $logs/valgrind.*"
	else
		passed "Valgrind and UBSan find nothing of ours in the regression tests"
	fi
}

# Other suites of Debian: 17 with libmongoc 1.30, 18 with libmongoc 2.
stage_debian() {
	local suite number log status
	for suite in trixie:17 sid:18; do
		number=${suite#*:} suite=${suite%:*}
		log=$logs/debian-$suite.log
		"$source_root/test/debian.sh" "$suite" "$number" "$work/debian-$suite" "$results" 2>&1 |
			as_tester tee "$log"
		status=${PIPESTATUS[0]}
		if [ "$status" = 3 ]; then
			skipped "tests in Debian $suite, PostgreSQL $number" "$(tail -1 "$log")"
		elif [ "$status" != 0 ]; then
			failed "tests in Debian $suite, PostgreSQL $number" "exit status $status, see $log"
		fi
	done
}

# ---- go --------------------------------------------------------------------
as_tester touch "$results.start"
say "build"
if [[ " ${stages[*]} " == *" build "* ]]; then
	stage_build
else
	build_on "$base"
fi

if [ -n "${config[$base]:-}" ]; then
	for stage in "${stages[@]}"; do
		[ "$stage" = build ] && continue
		for number in $(printf '%s\n' "${!config[@]}" | sort -n); do
			# Only what runs in a server differs between versions.
			case $number:$stage in
				"$base":*) ;;
				*:regress | *:isolation | *:tap) [ -n "$all" ] || continue ;;
				*) continue ;;
			esac
			say "$stage ($number)"
			use $number
			"stage_$stage"
		done
	done
fi

cd "$source_root" || exit 1
[ -z "${PLINTH_RESULTS:-}" ] || cp "$results" "$PLINTH_RESULTS"
say "result"
count() { grep -c "^$1"$'\t' "$results"; }
if [ "$(count skip)" -gt 0 ]; then
	awk -F '\t' '$1 == "skip" { print "skipped: " $2 " -- " $3 }' "$results" | sort | uniq -c | sed -E 's/^ +1 //'
fi
if [ "$(count fail)" -gt 0 ]; then
	awk -F '\t' '$1 == "fail" { print "FAILED: " $2 ($3 == "" ? "" : " -- " $3) }' "$results"
	echo "logs: $logs, $work/tap$base/tmp_check/log"
fi
echo "$(count ok) passed, $(count fail) failed, $(count skip) skipped"
[ "$(count fail)" = 0 ] && [ "$(count ok)" -gt 0 ]
