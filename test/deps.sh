#!/bin/bash
# deps.sh PACKAGE…: installs what is missing of Debian packages, as root or by
# a sudo that asks no password; else names them and fails.
set -euo pipefail

missing=()
for package in "$@"; do
	status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$package")
done

# Server and headers must be of one minor version.
version() { dpkg-query -W -f='${Version}' "$1" 2>/dev/null || true; }
if [[ " $* " == *" postgresql-15 "* && " $* " == *" postgresql-server-dev-15 "* ]] &&
	[ "$(version postgresql-15)" != "$(version postgresql-server-dev-15)" ]; then
	missing+=(postgresql-15 postgresql-client-15 postgresql-server-dev-15)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ]; then
	sudo=()
elif sudo -n true 2>/dev/null; then
	sudo=(sudo -n)
else
	echo "These packages are missing, and installing them needs root or a sudo without password:" >&2
	echo "    apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "# installing ${missing[*]}"
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
install() { "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install; then
	"${apt[@]}" update </dev/null >/dev/null 2>&1 || true
	install || { tail -20 "$log" >&2; exit 1; }
fi
