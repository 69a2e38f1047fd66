# place.sh: sourced after env.sh by what builds and runs in a folder of its
# own.  It is the tester's, since the tree may be one that he cannot read.

# put FROM TO [tar's options]: a copy that belongs to the tester.
put() {
	local from=$1 to=$2
	shift 2
	as_tester mkdir -p "$to"
	tar -C "$from" "$@" -cf - . | as_tester tar -C "$to" --no-same-owner -xf -
}

# put_tree TO: a copy of the sources, where objects of earlier runs are kept.
put_tree() {
	as_tester mkdir -p "$1"
	as_tester find "$1" -type f ! -name '*.o' ! -path "$1/build/*" -delete
	put "$PLINTH_ROOT" "$1" --exclude=./.git --exclude=./build --exclude='*.o' --exclude='*.so' \
		--exclude=./results --exclude=./src/zz_stubs.c
}

# own_place DIR: makes it, and sees that nobody else made it before.
own_place() {
	as_tester mkdir -p "$1" && [ "$(stat -c %U "$1")" = "$PLINTH_TESTER" ] && [ ! -L "$1" ] ||
		{ echo "$1 belongs to somebody else" >&2; return 1; }
}
