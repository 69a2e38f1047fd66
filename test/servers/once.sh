# once.sh FILE...: sourced by fetch*.sh with dir set to a folder that is made of
# these files.  Ends the script when it was; else makes the folder, takes its
# lock, and makes dir absolute.  The script then ends by writing $want to
# $dir/.done.
want=$(cat "$@" | sha256sum)
is_done() { [ "$(cat "$dir/.done" 2>/dev/null)" = "$want" ]; }

if is_done; then
	exit 0
fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/.lock"
flock 9
if is_done; then
	exit 0
fi
