
# What administrators do while sync is busy, or hangs: none of it waits for us,
# and nothing is left behind.

use strict;
use warnings;
use PlinthTest qw(within_ok);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main',
	conf => "plinth.sync_zombie_window = 500\nplinth.sync_timeout = '30s'\nplinth.sync_connect_timeout = '10s'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);

# A database with a table that is synced, and a client that writes it.
my %writers;

sub make_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION plinth');
	PlinthTest::sync_server($node, 'docs', $proxy->uri, $db, dbname => $db);
	$node->safe_psql(
		$db, q{
CREATE TABLE busy (id int PRIMARY KEY, body text);
CREATE TABLE other (id int PRIMARY KEY, body text);
INSERT INTO busy SELECT i, 'x' FROM generate_series(1, 1000) i;
SELECT plinth.sync_table('busy', 'docs'), plinth.sync_table('other', 'docs');
});
	is($node->safe_psql($db, "SELECT plinth.sync_wait('180s')"), 't', "$db: synced");
	return;
}

sub write_on
{
	my ($db) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$db.sql";
	append_to_file($file, "\\set id random(1, 1000)\nUPDATE busy SET body = body || 'y' WHERE id = :id;\n");
	$writers{$db} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 1, '-T', 600, '-f', $file, '-d', $node->connstr($db) ],
		'>', '/dev/null', '2>', '/dev/null');
	return;
}

sub stop_writing
{
	my ($db) = @_;
	my $run = delete $writers{$db} or return;
	$run->signal('TERM');
	eval { $run->finish };
	return;
}

sub slots
{
	my ($db) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'"
		  . ($db ? " AND database = '$db'" : ''));
}

make_database('one');
make_database('two');
write_on('one');
write_on('two');

# ---- another server joins, and one leaves: nobody else notices ----
my $pids = sub {
	$node->safe_psql('postgres', "SELECT string_agg(service || pid, ' ' ORDER BY service, instance) FROM plinth.stat_workers WHERE database = 'one' AND instance = 0");
};
my $before = $pids->();
PlinthTest::sync_server($node, 'more', $mongo->uri, 'more', dbname => 'one');
$node->safe_psql('one', "CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1); SELECT plinth.sync_table('more', 'more')");
ok(PlinthTest::wait_until(sub { $mongo->count('more', 'more') == 1 }), 'a table on another server is synced');
is($pids->(), $before, 'and the workers that ran run on');
$node->safe_psql('one', "SELECT plinth.sync_drop('more'); DROP SERVER more CASCADE");
sleep 3;
is($pids->(), $before, 'also when it goes');

# ---- while it streams ----
within_ok(20, 'VACUUM FULL', sub { $node->safe_psql('one', 'VACUUM FULL busy') });
within_ok(20, 'DROP TABLE of a synced table', sub { $node->safe_psql('one', 'DROP TABLE other') });
ok( PlinthTest::wait_until(
		sub { $node->safe_psql('one', "SELECT state FROM plinth.stat_sync WHERE name = 'other'") eq 'blocked' }),
	'its mapping says so');
like($node->safe_psql('one', "SELECT reason FROM plinth.stat_sync WHERE name = 'other'"),
	qr/dropped/, 'with the reason');
is($node->safe_psql('one', "SELECT plinth.sync_drop('other')"), '', 'and can be removed');
within_ok(20, 'CREATE DATABASE TEMPLATE', sub {
	stop_writing('one');
	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE one');
	write_on('one');
});
is(slots('copy'), 0, 'the copy has no slot');
within_ok(20, 'DROP EXTENSION rolled back', sub {
	$node->safe_psql('one', 'BEGIN; DROP EXTENSION plinth CASCADE; ROLLBACK') });
is($node->safe_psql('one', "SELECT plinth.sync_wait('180s')"), 't', 'sync has gone on');

# ---- while MongoDB is a black hole ----
$proxy->blackhole;
sleep 1;
$node->safe_psql('postgres', 'CREATE DATABASE bystander');
within_ok(5, 'DROP DATABASE of another database', sub { $node->safe_psql('postgres', 'DROP DATABASE bystander') });
within_ok(10, 'DROP EXTENSION', sub {
	stop_writing('one');
	$node->safe_psql('one', 'DROP EXTENSION plinth CASCADE') });
ok(PlinthTest::wait_until(sub { slots('one') == 0 }), 'no slot is left');
stop_writing('two');
within_ok(10, 'DROP DATABASE with sync hanging', sub { $node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)') });
is(slots(), 0, 'nor here');
$proxy->pass;

# ---- DROP EXTENSION and a crash right after its commit ----
make_database('three');
is(slots('three'), 1, 'a slot');
$node->safe_psql('three', 'DROP EXTENSION plinth CASCADE');
$node->kill9;
ok(PlinthTest::start_again($node), 'starts again');
ok(PlinthTest::wait_until(sub { slots('three') == 0 }), 'no slot is left after a crash either');

# ---- pg_ctl stop -m fast, busy and hanging ----
make_database('four');
write_on('four');
$proxy->blackhole;
sleep 1;
within_ok(3, 'stop -m fast with MongoDB a black hole', sub { $node->stop('fast') });
stop_writing('four');
$node->start;
$proxy->pass;
is($node->safe_psql('four', "SELECT plinth.sync_wait('180s')"), 't', 'all is delivered afterwards');
is($mongo->eval("sum(len(d['body']) for d in client['four']['busy'].find())"),
	$node->safe_psql('four', 'SELECT sum(length(body)) FROM busy'), 'and equal');

$node->stop('fast');
done_testing();
