# Transactions, tables and documents of a size: in bounded memory, with visible
# progress, and going on after a crash where they were.
use strict;
use warnings;

use PlinthTest qw(wait_until equal_ok);
use WorkerTest;
use Test::More;

# With PLINTH_LONG the sizes of make check-all: the MongoDB then needs some 6 GB.
my $long = $ENV{PLINTH_LONG};
my $rows = $long ? 1_000_000 : 200_000;
my $table_rows = $long ? 10_000_000 : 200_000;
$ENV{PLINTH_JAVA_OPTS} ||= '-Xms64m -Xmx8g' if $long;
my $patience = $long ? 3600 : 300;
my $subtransactions = 50_000;
my $memory = 8 * 1024;    # plinth.sync_memory in kB
my $beside = 48 * 1024;   # what a process takes besides, kB: docs/sync.md

my $node = PlinthTest::node('large', conf => <<"CONF");
plinth.sync_memory = '${memory}kB'
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '1s'
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
sub delivered { return is($node->safe_psql('postgres', "SELECT plinth.sync_wait('${patience}s')", timeout => $patience + 60), 't', "$_[0]: delivered"); }
sub pid { return sql("SELECT pid FROM plinth.stat_workers WHERE service = '$_[0]'"); }

sub all_ok
{
	my ($table, $name) = @_;
	return equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'v', v) FROM $table", $mongo, 'app', $table, $name, 0);
}

# ---------------------------------------------------------------------------
# A snapshot, stopped in the middle: with 200 batches to go it takes a while on any machine.
$proxy->delay(30) unless $long;
sql("CREATE TABLE t (id int PRIMARY KEY, v text);"
	  . "INSERT INTO t SELECT g, 'value ' || g FROM generate_series(1, $table_rows) g; ANALYZE t;"
	  . "SELECT plinth.sync_table('t', 'docs')");
my %seen;
ok( wait_until(sub {
			my ($task, $done, $total) = split /\|/, stat_of('t', 'task, task_done, task_total');
			$seen{$done} = $total if $task;
			return $task && $done > $table_rows / 5; }, $patience), 'a snapshot shows how far it is');
is((grep { $_ < $table_rows * 0.9 || $_ > $table_rows * 1.1 } map { $seen{$_} } grep { $_ > 0 } keys %seen), 0, 'and how far it has to go')
  or diag(join ' ', %seen);
cmp_ok($mongo->count('app', 't'), '<', $table_rows, 'it is not done');
$node->stop('immediate');
$proxy->pass;
my $sent = $mongo->count('app', 't');
$node->start;
my $lane = pid('lane');
delivered('after an immediate stop');
if ($long)
{
	is($mongo->eval("client['app']['t'].estimated_document_count()"), $table_rows, 'the snapshot is whole');
	is($node->safe_psql('postgres', "SELECT * FROM plinth.sync_verify('t')", timeout => $patience), '', 'and equal');
}
else
{
	all_ok('t', 'the snapshot is whole');
}
cmp_ok(stat_of('t', 'documents_replaced'), '<', $table_rows - $sent + 50_000, 'it went on where it was');
is(stat_of('t', 'task'), '', 'and is done');

# ---------------------------------------------------------------------------
# Large transactions.
sql(<<'SQL');
CREATE TABLE u (id int PRIMARY KEY, v text);
INSERT INTO u VALUES (0, 'first');
SELECT plinth.sync_table('u', 'docs');
SQL
delivered('another table');
my %process = map { $_ => pid($_) } qw(decoder lane);
sql("INSERT INTO u SELECT g, repeat('x', 50) FROM generate_series(1, $rows) g");
delivered("a transaction of $rows rows");
sql("BEGIN; UPDATE u SET v = 'y' WHERE id % 20 = 0; DELETE FROM u WHERE id % 10 = 1; UPDATE u SET id = -id WHERE id % 20 = 2; COMMIT");
delivered('another one');
sql(<<"SQL");
DO \$\$
BEGIN
	FOR i IN 1..$subtransactions LOOP
		BEGIN
			INSERT INTO u VALUES (10000000 + i, 'subtransaction');
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'back';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END \$\$
SQL
delivered("$subtransactions subtransactions");
all_ok('u', 'both sides are equal');
for my $name (sort keys %process)
{
	is(pid($name), $process{$name}, "one $name did it all");
	my $peak = WorkerTest::peak($process{$name});
	cmp_ok($peak, '<', $memory + $beside, "the ${name}'s memory stayed in bounds ($peak kB)");
}

# The same with MongoDB away: what is owed goes to the table.
$proxy->refuse;
sql("UPDATE u SET v = 'away' WHERE id BETWEEN 1 AND 50000");
ok(wait_until(sub { stat_of('u', 'state') eq 'unreachable' && sql("SELECT count(*) > 20000 FROM plinth.sync_dirty") eq 't' }), 'owed keys are in sync_dirty');
$proxy->pass;
delivered('back again');
all_ok('u', 'equal again');
cmp_ok(WorkerTest::peak($process{lane}), '<', $memory + $beside, 'memory still in bounds');

# ---------------------------------------------------------------------------
# Large documents.
sql(<<'SQL');
CREATE TABLE big (id int PRIMARY KEY, v text);
SELECT plinth.sync_table('big', 'docs');
SQL
# {_id: int32, v: string}: 4 + (1 + 4 + 4) + (1 + 2 + 4 + length + 1) + 1 bytes
# The embedded server takes no message above 16 MiB, a real one takes such a document.
my $most = 16 * 1024 * 1024 - ($mongo->controllable ? 64 * 1024 : 22);
my $too_much = 16 * 1024 * 1024 - 21;
sql("INSERT INTO big SELECT g, CASE g WHEN 3 THEN repeat('a', $most) WHEN 5 THEN repeat('b', $too_much) WHEN 7 THEN repeat('c', 20000000)"
	  . " ELSE 'small' END FROM generate_series(1, 10) g");
delivered('large documents');
is(sql("SELECT string_agg(key || ' ' || status, ' ' ORDER BY key) FROM plinth.sync_dead_letters"), '{"5"} 54000 {"7"} 54000', 'over 16 MiB: dead letters');
my $sizes = 'client["app"]["big"].aggregate([{"$project": {"n": {"$strLenBytes": "$v"}}}])';
is($mongo->eval('sum(len(d["v"]) for d in client["app"]["big"].find())'), $most + 5 * 7, 'the largest possible one and the others arrived');
sql("UPDATE big SET v = 'smaller' WHERE id = 5");
delivered('one mended by a change');
sql("DELETE FROM big WHERE id = 3; UPDATE big SET v = 'mended' WHERE id = 7");
delivered('and the other');
all_ok('big', 'equal');
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'no dead letters are left');

# Many rows of some size in one statement: batches end by their bytes.
sql("INSERT INTO big SELECT g, repeat(chr(97 + g % 26), 20000) FROM generate_series(1000, 3000) g");
delivered('2,001 rows of 20 kB');
all_ok('big', 'equal');
cmp_ok(WorkerTest::peak($process{lane}), '<', $memory + $beside + 16 * 16 * 1024, 'with no more memory than large documents take');

$node->stop;
done_testing();
