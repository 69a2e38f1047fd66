# Rate limits through what goes wrong: backends killed in the middle of
# everything that changes the table, immediate stops, broken files, DROP
# EXTENSION and DROP DATABASE under load.
use strict;
use warnings;

use PlinthTest qw(psql_ok wait_until);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(stat);

my $node = PlinthTest::node('main', conf => "plinth.limits_save_interval = '100ms'\n");
my $file = $node->data_dir . '/pg_stat/plinth_limits.stat';

sub ask
{
	my ($arguments) = @_;
	return $node->safe_psql('postgres', "SELECT remaining FROM plinth.rate_limit_check($arguments)");
}

sub policies
{
	$node->safe_psql('postgres', <<'SQL');
SELECT plinth.rate_limit_create('keep', 10, '300 days', scope => 'key');
SELECT plinth.rate_limit_create('window', 10, '366 days', algorithm => 'fixed_window', scope => 'key');
SELECT plinth.rate_limit_create('brief', 1000, '1 s', burst => 1, scope => 'key');
SELECT plinth.rate_limit_create('come', 10, '1 s', scope => 'key');
SQL
	return;
}

sub alive
{
	return wait_until(sub { PlinthTest::answers($node) });
}

# A save that began after this call has ended: two have, each with something
# new, since nothing is written where nothing has changed.
my $saves = 0;
sub saved
{
	foreach my $n (1 .. 2)
	{
		my $before = (stat $file)[9] // 0;
		$saves++;
		ask("'keep', 'save $saves'");
		return 0 unless wait_until(sub { ((stat $file)[9] // 0) != $before });
	}
	return 1;
}

# A load by 8 clients, which goes on until it is ended or the server is.
sub load_start
{
	my ($dbname, $sql) = @_;
	my $script = $node->basedir . "/load.$dbname.sql";
	unlink $script;
	append_to_file($script, $sql);
	my ($out, $err) = ('', '');
	return IPC::Run::start(
		[ 'pgbench', '-n', '-c', 8, '-j', 1, '-T', 3600, '-f', $script, '-h', $node->host, '-p', $node->port, $dbname ],
		'>', \$out, '2>', \$err);
}

my $everything = <<'SQL';
\set k random(1, 30000)
SELECT count((plinth.rate_limit_check('brief', 'b' || :k + n)).allowed) FROM generate_series(1, 200) n;
SELECT count((plinth.rate_limit_check_all('{brief,come}', 'a' || :k + n)).allowed) FROM generate_series(1, 50) n;
SELECT count(plinth.rate_limit_reset('come', 'a' || :k + n)) FROM generate_series(1, 50) n;
SELECT count((plinth.rate_limit_check_adhoc('h' || :k + n, 100, '1 s')).allowed) FROM generate_series(1, 50) n;
SELECT sum(entries) FROM plinth.stat_limits;
SQL

policies();

# ---- a save, and what is lost without one ------------------------------------------
is(ask("'keep', 'a', 4"), 6, 'a bucket');
is(ask("'window', 'a', 4"), 6, 'a window');
ok(saved(), 'saved');

# ---- backends killed in the middle ---------------------------------------------------
my $rounds = $ENV{PLINTH_LONG} ? 40 : 6;
for my $round (1 .. $rounds)
{
	my $load = load_start('postgres', $everything);
	my $victim;

	wait_until(sub {
		$victim = $node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT (count|sum)' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");
		$victim ne '';
	});
	last unless ok($victim, "round $round: somebody is at work");
	kill 'KILL', $victim;
	$load->finish;
	ok(alive(), "round $round: a backend was killed at work, the server is back") or last;
}
is(ask("'keep', 'a', 0"), 6, 'what was saved is there: a bucket');
is(ask("'window', 'a', 0"), 6, 'and a window');

# ---- immediate stop ---------------------------------------------------------------------
is(ask("'keep', 'a', 1"), 5, 'some more');
ok(saved(), 'saved');
$node->stop('immediate');
$node->start;
is(ask("'keep', 'a', 0"), 5, 'an immediate stop forgets nothing of it');

# ---- the launcher, killed by name -----------------------------------------------------------
my $launcher = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'plinth launcher'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
is(ask("'keep', 'a', 1"), 4, 'decisions go on without the launcher');
ok(saved(), 'and it comes back to save');

# ---- files that are broken ---------------------------------------------------------------------
my $good = slurp_file($file);
foreach my $case (
	[ 'cut off', sub { substr($good, 0, length($good) - 8) } ],
	[ 'empty', sub { '' } ],
	[ 'too long', sub { $good . 'x' } ],
	[ 'one bit wrong', sub { my $bad = $good; substr($bad, -5, 1) ^= "\x10"; $bad } ],
	[ 'another version', sub { my $bad = $good; substr($bad, 4, 1) ^= "\x02"; $bad } ],
	[ 'noise', sub { join '', map { chr(int(rand(256))) } 1 .. 5000 } ])
{
	my ($what, $content) = @$case;
	$node->stop('fast');
	open my $fh, '>', $file or die;
	binmode $fh;
	print $fh $content->();
	close $fh;
	my $offset = -s $node->logfile;
	$node->start;
	is(ask("'keep', 'a', 0"), 10, "a file that is $what: keys begin anew");
	ok($node->log_contains(qr/ignoring file "pg_stat\/plinth_limits.stat"/, $offset), 'and the log says why')
	  if $node->can('log_contains');
}

# ---- a file from beyond the time that limits have ------------------------------------------------
# Going on from there, time would stand still: nothing would come back.
sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;
	foreach my $byte (unpack('C*', $bytes))
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 foreach 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}
foreach my $case ([ 'near', 2_713_910_399, '' ], [ 'far', 2_713_910_401, 1 ])
{
	my ($what, $seconds, $ignored) = @$case;
	$node->stop('fast');
	# Magic, version and salt; time, number of entries; checksum, padding.
	my $header = substr($good, 0, 24) . pack('q2', $seconds * 1_000_000, 0);
	open my $fh, '>', $file or die;
	binmode $fh;
	print $fh $header . pack('L2', crc32c($header), 0);
	close $fh;
	my $offset = -s $node->logfile;
	$node->start;
	is(scalar(slurp_file($node->logfile, $offset) =~ /ignoring file "pg_stat\/plinth_limits.stat", whose time is out of bounds/),
		$ignored, "time that is $what: ignored or not");
}
is( $node->safe_psql('postgres', "SELECT reset_after > interval '0' AND reset_after < interval '366 days' FROM plinth.rate_limit_check('window', 'time')"),
	't', 'and limits go by the wall clock');
is(ask("'come', 'time', 10"), 0, 'what is used');
ok(wait_until(sub { ask("'come', 'time', 0") > 0 }), 'comes back');
$node->stop('fast');
open my $fh, '>', $file or die;
binmode $fh;
print $fh $good;
close $fh;
$node->start;
is(ask("'keep', 'a', 0"), 4, 'the whole file is good');

# ---- a folder that cannot be written ---------------------------------------------------------------
ok(mkdir($file . '.tmp'), 'a save that fails');
is(ask("'keep', 'a', 1"), 3, 'decisions go on');
ok(wait_until(sub { slurp_file($node->logfile) =~ /could not create file "pg_stat\/plinth_limits.stat.tmp"/ }), 'and the log says so');
rmdir($file . '.tmp');
ok(saved(), 'then it is saved');

# ---- DROP EXTENSION under load ---------------------------------------------------------------------
my $load = load_start('postgres', $everything);
ok(wait_until(sub { $node->safe_psql('postgres', "SELECT allowed > 1000 FROM plinth.stat_limits WHERE policy = 'brief'") eq 't' }), 'a load');
# Who reads two views at once may meet it half-way: then one of them is told of a deadlock, as with any DROP.
ok(wait_until(sub { ($node->psql('postgres', 'DROP EXTENSION plinth'))[0] == 0 }), 'DROP EXTENSION');
$load->finish;
psql_ok($node, 'postgres', 'CREATE EXTENSION plinth', 'CREATE EXTENSION');
policies();
is(ask("'keep', 'a', 0"), 10, 'a new extension knows nothing of the old one');
is(ask("'keep', 'a', 10"), 0, 'and counts for itself');
is($node->safe_psql('postgres', "SELECT allowed, denied, entries FROM plinth.stat_limits WHERE policy = 'keep'"), '1|0|1', 'from nothing on');

my $session = $node->background_psql('postgres');
my $rows = "SELECT d, a, m FROM plinth.rate_limit_check('keep', 'row', 0) d, plinth.rate_limit_check_adhoc('row', 10, '1 day', cost => 0) a, plinth.rate_limit_check_all('{keep,window}', 'row', 0) m";
like($session->query_safe($rows), qr/^\(t,10,.*\(t,10,.*\(t,keep,10,/, 'a session that knows what rows are like');
$session->query_safe('BEGIN; DROP EXTENSION plinth; CREATE EXTENSION plinth; COMMIT');
policies();
is(ask("'keep', 'a', 1"), 9, 'both in one transaction: a new one again');
like($session->query_safe($rows), qr/^\(t,10,.*\(t,10,.*\(t,keep,10,/, 'whose rows the session learns anew');
$session->quit;
is($node->safe_psql('postgres', "SELECT allowed, denied, entries FROM plinth.stat_limits WHERE policy = 'keep'"), '1|0|1', 'that counts from nothing on');

# ---- DROP DATABASE under load -----------------------------------------------------------------------
for my $round (1 .. 2)
{
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', "CREATE EXTENSION plinth; SELECT plinth.rate_limit_create('brief', 1000, '1 s', scope => 'key'), plinth.rate_limit_create('come', 10, '1 s', scope => 'key')");
	$load = load_start('other', $everything);
	ok(wait_until(sub { $node->safe_psql('other', "SELECT allowed > 1000 FROM plinth.stat_limits WHERE policy = 'brief'") eq 't' }), 'a load in another database');
	psql_ok($node, 'postgres', 'DROP DATABASE other WITH (FORCE)', 'DROP DATABASE');
	$load->finish;
}
is(ask("'keep', 'a', 0"), 9, 'the others keep what they have');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|stuck spinlock|signal 11/, 'nothing went wrong that should not');
$node->stop('fast');

done_testing();
