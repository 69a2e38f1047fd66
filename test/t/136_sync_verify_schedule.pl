# Verification by itself: on a schedule, at some size in bounded memory, while
# rows change, with and without repair.  With PLINTH_LONG 1,000,000 documents, with a
# MONGODB_URI too 10,000,000; or as many as PLINTH_VERIFY_ROWS says.  The server that
# the tests bring keeps them in memory: about 1 KB each.
use strict;
use warnings;

use JSON::PP;
use PlinthTest qw(wait_until equal_ok psql_fails_like);
use PostgreSQL::Test::Utils;
use WorkerTest;
use Test::More;

my $rows = $ENV{PLINTH_VERIFY_ROWS} || ($ENV{PLINTH_LONG} ? ($ENV{MONGODB_URI} ? 10_000_000 : 1_000_000) : 10_000);
my $patience = 300 + $rows / 1000;
my $memory = 48 * 1024;    # kB: what comparing may take

# Where there is no index in the order of _id the first page takes as long as a sort of all of them.
my $node = PlinthTest::node('schedule', conf => "plinth.sync_zombie_window = '100ms'\nplinth.sync_timeout = '10min'");
$ENV{PLINTH_JAVA_OPTS} ||= sprintf '-Xms64m -Xmx%dm -XX:+UseSerialGC -Xshare:auto', 2048 + $rows / 1000;
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
# Runs of a mapping that began after a moment.
sub runs { return sql("SELECT $_[2] FROM plinth.sync_verify_runs WHERE mapping_id = (SELECT id FROM plinth.sync_mappings WHERE name = '$_[0]') AND started_at > '$_[1]' ORDER BY id DESC LIMIT 1"); }
sub run_ok
{
	my ($name, $expected, $test) = @_;
	my $now = sql('SELECT clock_timestamp()');
	my $what = "concat_ws(',', missing, different, extra, repaired, error)";
	wait_until(sub { runs($name, $now, 'true') eq 't' }, $patience);
	return is(runs($name, $now, $what), $expected, $test);
}

sql("CREATE TABLE big (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0); INSERT INTO big SELECT g, 'value ' || g FROM generate_series(1, $rows) g;"
	  . "CREATE TABLE small (id int PRIMARY KEY, v text); INSERT INTO small SELECT g, 'v' FROM generate_series(1, 1000) g;"
	  . "SELECT plinth.sync_table('big', 'docs'), plinth.sync_table('small', 'docs')");
my $began = time;
is($node->safe_psql('postgres', "SELECT plinth.sync_wait('${patience}s')", timeout => $patience + 60), 't', 'copied');
note("$rows rows were copied within " . (time - $began) . ' s');

# Refusals.
psql_fails_like($node, 'postgres', "SELECT plinth.sync_verify_schedule('nosuch', '1h')", qr/does not exist/, 'no such mapping');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_verify_schedule('small', '1ms')", qr/more often than once a second/, 'too often');
sql('CREATE ROLE stranger; GRANT USAGE ON SCHEMA plinth TO stranger');
psql_fails_like($node, 'postgres', "SET ROLE stranger; SELECT plinth.sync_verify_schedule('small', '1h')", qr/permission denied for sync mapping/, 'a stranger');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verifier'"), 0, 'no worker without a schedule');

# ---- a small one, every second ----
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN plinth_sync');
sql("SELECT plinth.sync_verify_schedule('small', '1s')");
run_ok('small', '0,0,0,f', 'equal');
my $heard = sub { return $listener->query_safe('SELECT 1') =~ /with payload "(\{[^"]*"event": "verify".*\})" received/ ? decode_json($1) : undef; };
my $event;
ok(wait_until(sub { $event = $heard->() }), 'which is told');
is(join(',', map { "$_=$event->{$_}" } qw(mapping complete missing different extra)), 'mapping=small,complete=1,missing=0,different=0,extra=0', 'with what was found');
$mongo->eval("client['app']['small'].delete_one({'_id': 5}) and client['app']['small'].insert_one({'_id': -1}) and None");
$mongo->eval("client['app']['small'].update_one({'_id': 7}, {'\$set': {'v': 'other'}}) and None");
run_ok('small', '1,1,1,f', 'differences');
is(runs('small', '-infinity', q{(SELECT string_agg(e ->> 'key' || ' ' || (e ->> 'difference'), ', ' ORDER BY (e ->> 'key')::int) FROM jsonb_array_elements(examples) e)}),
	'-1 extra, 5 missing, 7 different', 'are written down');
is(sql("SET ROLE stranger; SELECT count(*) FROM plinth.sync_verify_runs"), 0, 'not for strangers');
sql("SELECT plinth.sync_verify_schedule('small', '1s', true)");
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.sync_verify_runs WHERE (missing, different, extra, repaired) = (1, 1, 1, true)") > 0 }), 'with repair');
ok(wait_until(sub { runs('small', '-infinity', "concat_ws(',', missing, different, extra, repaired)") eq '0,0,0,f' }), 'then both sides are equal');
equal_ok($node, 'postgres', q{SELECT json_build_object('_id', id, 'v', v) FROM small}, $mongo, 'app', 'small', 'as another client says', 0);
$listener->quit;
sql("SELECT plinth.sync_pause('small')");
ok(wait_until(sub { runs('small', '-infinity', 'error') =~ /it is paused/ }), 'a paused one cannot be verified, and says so');
sql("SELECT plinth.sync_resume('small'), plinth.sync_verify_schedule('small', NULL)");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verifier'") == 0 }), 'the worker ends with its last schedule');

# ---- a large one, while rows change ----
my $script = PostgreSQL::Test::Utils::tempdir() . '/write.sql';
append_to_file($script, <<"SQL");
\\set id random(1, $rows)
UPDATE big SET n = n + 1 WHERE id = :id;
DELETE FROM big WHERE id = :id + 1;
INSERT INTO big VALUES (:id, 'again') ON CONFLICT (id) DO UPDATE SET v = 'again';
SQL
my ($out, $err) = ('', '');
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '7200', '-R', '100', '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
my $now = sql('SELECT clock_timestamp()');
sql("SELECT plinth.sync_verify_schedule('big', '1 day')");
my $peak = 0;
ok(wait_until(
		sub {
			my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'plinth verifier'");
			my $size = WorkerTest::peak($pid);
			$peak = $size if $size > $peak;
			return runs('big', $now, 'true') eq 't';
		}, $patience), 'the large one was verified');
is(runs('big', $now, "concat_ws(',', missing, different, extra, repaired, error)"), '0,0,0,f', "no false alarms while rows change ($rows rows)");
cmp_ok($peak, '<', $memory, "in bounded memory ($peak kB)");
cmp_ok($peak, '>', 0, 'which was measured');
note('it took ' . runs('big', $now, 'finished_at - started_at'));

# Many differences: repaired, and only they are written.
$mongo->eval("client['app']['big'].delete_many({'_id': {'\$gt': 1000, '\$lte': 4000}}) and None");
sql("SELECT plinth.sync_verify_schedule('big', NULL)");
$bench->signal('TERM');
$bench->finish;
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'quiet');
my $replaced = sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = 'big'");
my $missing = sql('SELECT count(*) FROM big WHERE id > 1000 AND id <= 4000') - $mongo->eval("client['app']['big'].count_documents({'_id': {'\$gt': 1000, '\$lte': 4000}})");
cmp_ok($missing, '>', 1000, 'documents are missing');
$now = sql('SELECT clock_timestamp()');
sql("DELETE FROM plinth.sync_verify_runs; SELECT plinth.sync_verify_schedule('big', '1 day', true)");
ok(wait_until(sub { runs('big', $now, 'true') eq 't' }, $patience), 'verified');
is(runs('big', $now, "concat_ws(',', missing, different, extra, repaired, error)"), "$missing,0,0,t", 'each was found');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'and repaired');
ok(wait_until(sub { sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = 'big'") >= $replaced + $missing }), 'by writing it again');
cmp_ok(sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = 'big'"), '<=', $replaced + $missing + 10, 'and nothing else');
is($mongo->eval("client['app']['big'].count_documents({})"), sql('SELECT count(*) FROM big'), 'as another client says');
$node->stop;
done_testing();
