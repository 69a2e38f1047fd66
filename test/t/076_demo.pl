# `make demo` to its end and twice, by the script itself, on a small size and
# in a folder of its own; and `make demo-stop`, which leaves nothing behind.
use strict;
use warnings;

use IPC::Run;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PLINTH_ROOT};
plan skip_all => 'the demo uses PostgreSQL 15 whatever is tested'
  if `"$ENV{PG_CONFIG}" --version` !~ /^PostgreSQL 15\./ || !-x '/usr/lib/postgresql/15/bin/postgres';

# Short, for the socket is in it.
my $place = PostgreSQL::Test::Utils::tempdir_short() . '/d';
local $ENV{PLINTH_DEMO} = $place;

sub demo
{
	my (@arguments) = @_;
	my $out = '';
	my $run = IPC::Run::run([ "$root/examples/forum/demo.sh", @arguments ], '<', \undef, '>&', \$out, IPC::Run::timeout(600));
	diag($out) unless $run;
	return $run ? $out : undef;
}

sub servers
{
	my @pids = map { slurp_file($_) } glob("$place/*.server.pid"), glob("$place/data/postmaster.pid");
	return grep { kill 0, $_ } map { /^(\d+)/ } @pids;
}

# What was compiled for the tests need not be compiled again.
system_or_bail('bash', '-c', 'mkdir -p "$1" && cd "$0" && find src -name "*.o" -print0 | tar -cf - --null -T - | tar -C "$1" -xf -',
	$root, "$place/src");

my @size = ('--replies', 40, '--cut-seconds', 1);
for my $time ('the first time', 'again')
{
	my $out = demo('start', @size) // '';
	like($out, qr/^replies, each read back from MongoDB +40 +\d+\.\d +\d+\.\d$/m, "$time: replies are read back");
	like($out, qr/can neither change .*'s reply nor write in that name/, "$time: as themselves") if $time eq 'the first time';
	like($out, qr/stat_sync says: \w+, /, "$time: what is cut off is told");
	like($out, qr/^  \Q$_\E +\d+ rows, +\d+ documents: equal$/m, "$time: $_ are equal") for qw(replies reactions threads);
	like($out, qr/^compared: replies +6[0-9]$/m, "$time: none is missing");
	my ($psql) = $out =~ /^Everything is still running:\n  (psql .*)$/m;
	ok(PlinthTest::wait_until(sub { `$psql -qAtXc "SELECT count(*) FROM plinth.stat_sync WHERE state = 'streaming'"` eq "12\n" }),
		"$time: psql connects as it says");
}
my @servers = servers();
is(scalar @servers, 4, 'PostgreSQL, PostgREST, MongoDB and the network in between go on running') or diag("@servers");
ok(defined demo('stop'), 'demo-stop');
ok(PlinthTest::wait_until(sub { !grep { kill 0, $_ } @servers }), 'they are stopped');
ok(!-e "$place/data", 'and their data is gone');

END
{
	local $?;
	demo('stop') if defined $place && -e "$place/data";
}

done_testing();
