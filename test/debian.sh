#!/bin/bash
# debian.sh SUITE VERSION DIR RESULTS: the tests that need a server, in a Debian
# of another suite, with the PostgreSQL, compiler and libmongoc that it has.
#
# The system is made in DIR by debootstrap and kept there; what the tests said
# is appended to RESULTS (see run_tap.pl).  Where it cannot be made the last line
# says why, and the exit status is 3.
set -uo pipefail
suite=$1 version=$2 dir=$3 results=$4
cd "$(dirname "$0")/.." || exit 1

cannot() { echo "$*"; exit 3; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
inside() { root chroot "$dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }

root true 2>/dev/null || cannot "needs root, or a sudo without password"
test/deps.sh debootstrap || cannot "no debootstrap"

if [ ! -e "$dir/.made" ]; then
	root rm -rf "$dir"
	mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1 | cut -d' ' -f1)
	log=$(mktemp)
	if ! root debootstrap --variant=minbase "$suite" "$dir" "${mirror:-http://deb.debian.org/debian}" >"$log" 2>&1; then
		tail -5 "$log"
		rm -f "$log"
		cannot "debootstrap of $suite failed"
	fi
	rm -f "$log"
	# No package starts a server there.
	printf '#!/bin/sh\nexit 101\n' | root tee "$dir/usr/sbin/policy-rc.d" >/dev/null
	root chmod 755 "$dir/usr/sbin/policy-rc.d"
	apt-config dump | grep '^Acquire::https\?::' | root tee "$dir/etc/apt/apt.conf.d/90host" >/dev/null
	# A PyMongo that speaks with servers as old as the embedded one; without its C parts.
	python3 -m pip install -q --no-deps --no-input --target "$dir/opt/pymongo" pymongo==4.10.1 >/dev/null 2>&1 ||
		root python3 -m pip install -q --no-deps --no-input --target "$dir/opt/pymongo" pymongo==4.10.1 >/dev/null 2>&1 ||
		cannot "PyMongo 4.10.1 is not to be had from PyPI"
	root touch "$dir/.made"
fi
root cp /etc/resolv.conf /etc/hosts "$dir/etc/"

mounted=
root mount -t proc proc "$dir/proc" || cannot "may not mount /proc in $dir"
mounted=1
# shellcheck disable=SC2317
cleanup() { [ -z "$mounted" ] || root umount "$dir/proc"; }
trap cleanup EXIT

root rm -rf "$dir/plinth" "$dir/results"
root mkdir -p "$dir/plinth/build"
tar --exclude=./.git --exclude=./build --exclude='*.o' --exclude='*.so' -cf - . | root tar -C "$dir/plinth" --no-same-owner -xf -
tar -C build --exclude=./servers/.lock --exclude=./servers/m2 -cf - servers | root tar -C "$dir/plinth/build" --no-same-owner -xf -

inside DEBIAN_FRONTEND=noninteractive apt-get -q -y update >/dev/null 2>&1
inside PLINTH_BASE="$version" PLINTH_RESULTS=/results PYTHONPATH=/opt/pymongo TESTS="${TESTS:-}" JOBS="${JOBS:-2}" \
	bash /plinth/test/check.sh build regress isolation pgtap tap </dev/null
[ -s "$dir/results" ] || cannot "the tests did not begin in $suite"
sed "s/\t/\t$suite, /" "$dir/results" >>"$results"
