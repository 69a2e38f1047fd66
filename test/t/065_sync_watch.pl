# What stat_sync shows of a mapping, from its first row to its end; and the
# rights of the role that reads: what it may not see stops the mapping, and
# deletes nothing.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like wait_until);
use Test::More;

my $node = PlinthTest::node('watch', conf => <<'CONF');
plinth.sync_checkpoint_interval = 100ms
plinth.sync_retry_max = 500ms
plinth.sync_connect_timeout = 10s
plinth.sync_batch_rows = 100
plinth.sync_lock_timeout = 100ms
CONF
my $mongo = PlinthTest::mongo_start(embedded => 1);
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'watch');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub stat_of { return sql("SELECT $_[1] FROM plinth.stat_sync WHERE name = '$_[0]'"); }
sub delivered { return is(sql(q{SELECT plinth.sync_wait('180s')}), 't', $_[0]); }
sub becomes
{
	my ($name, $column, $pattern, $what) = @_;
	my $seen = '';
	return ok(wait_until(sub { ($seen = stat_of($name, $column)) =~ $pattern }), $what)
	  || diag("$column: $seen; " . sql("SELECT s FROM plinth.stat_sync s WHERE name = '$name'"));
}

# ---- a snapshot ---------------------------------------------------------------
sql(<<'SQL');
CREATE ROLE app;
GRANT USAGE ON FOREIGN SERVER docs TO app;
GRANT ALL ON SCHEMA public TO app; GRANT USAGE ON SCHEMA plinth TO app;
SET ROLE app;
CREATE TABLE counted (id int PRIMARY KEY, body text);
CREATE TABLE parts (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10000);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10000) TO (20000);
CREATE TABLE unseen (id int PRIMARY KEY, body text);
CREATE TABLE none (id int PRIMARY KEY);
INSERT INTO counted SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
INSERT INTO parts SELECT g, repeat('x', 100) FROM generate_series(9001, 12000) g;
ANALYZE counted, parts;
INSERT INTO unseen SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
SQL
sql("ALTER TABLE unseen SET (autovacuum_enabled = off)");
sql("SET ROLE app; BEGIN; SELECT plinth.sync_table(t, 'docs') FROM unnest('{counted, parts, unseen, none}'::regclass[]) t; SELECT plinth.sync_pause(t) FROM unnest('{counted, parts, unseen, none}'::text[]) t; COMMIT");
is(stat_of('counted', "state || ' ' || task || ' ' || task_done || '/' || task_total"), 'paused snapshot 0/3000', 'rows to copy, as ANALYZE counted them');
is(stat_of('parts', 'task_total'), 3000, 'of all partitions');
is(stat_of('none', 'task_total'), 0, 'none in an empty table');
my $estimate = stat_of('unseen', 'task_total');
cmp_ok($estimate, '>', 1000, 'without statistics an estimate');
cmp_ok($estimate, '<', 9000, 'which is not far off') or diag($estimate);
is($mongo->count('watch', 'counted'), 0, 'a paused mapping writes nothing');

$proxy->delay(300);
sql(q{SELECT plinth.sync_resume(t) FROM unnest('{counted, parts, unseen, none}'::text[]) t});
my ($low, $high) = (0, 0);
ok(wait_until(sub {
		my ($done, $total, $state) = split /\|/, stat_of('counted', 'task_done, task_total, state');
		return 0 unless defined $done && $done ne '' && $done > 0;
		($low, $high) = ($done, $total);
		return 1;
	}), 'progress of a snapshot is seen');
cmp_ok($low, '<=', $high, "$low of $high");
$proxy->pass;
delivered('copied');
becomes('counted', "state || ' ' || documents_replaced || ' ' || coalesce(task, '-')", qr/^streaming 3000 -$/, 'and streams');
cmp_ok(stat_of('counted', 'bytes_sent'), '>', 3000 * 100, 'bytes are counted');
is($mongo->count('watch', 'parts'), 3000, 'both partitions');
is(stat_of('counted', 'keys_owed'), 0, 'nothing is owed');

# ---- lag, outage, retry --------------------------------------------------------
becomes('counted', 'lag_bytes < 100000 AND coalesce(lag_ms, 0) = 0', qr/^t$/, 'no lag');
PlinthTest::settled($node);
$mongo->stop;
sql("UPDATE counted SET body = 'y' WHERE id <= 5");
becomes('counted', 'state', qr/^unreachable$/, 'MongoDB is down');
becomes('counted', 'last_error', qr/^unreachable: /, 'with the reason');
is(stat_of('counted', 'last_error_at > now() - interval \'1 minute\' AND next_try_at > last_error_at - interval \'1 second\' AND retries > 0'), 't', 'since when, and when it is tried again');
becomes('counted', 'keys_owed', qr/^5$/, 'five keys are owed');
becomes('counted', 'lag_bytes > 0', qr/^t$/, 'with a lag');
is(sql(q{SELECT plinth.sync_wait('300ms')}), 'f', 'sync_wait says that they have not arrived');
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty WHERE zombie_stage = 0') == 5 }), 'and stand in sync_dirty');
$mongo->start;    # the memory server has forgotten everything, its fences too
becomes('counted', 'state', qr/^blocked$/, 'a MongoDB that has lost what it acknowledged');
becomes('counted', 'hint', qr/sync_(adopt|resync)/, 'with what to do');
sql("SELECT plinth.sync_adopt('docs')");
delivered('adopted');
is($mongo->count('watch', $_), 3000, "$_ is whole again") foreach qw(counted parts unseen);
becomes('counted', 'state', qr/^streaming$/, 'streaming again');

# ---- the rights of the reader ----------------------------------------------------
sql('CREATE ROLE other; GRANT USAGE ON SCHEMA plinth TO other');
sql('SET ROLE app; CREATE POLICY few ON counted USING (id < 10); ALTER TABLE counted ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY');
sql("UPDATE counted SET body = 'z' WHERE id = 100; UPDATE unseen SET body = 'z' WHERE id = 100");
becomes('counted', "state || ': ' || coalesce(last_error, '')", qr/^(retrying|blocked): .*row-level security/, 'a policy that would hide rows stops the mapping');
ok(wait_until(sub { $mongo->eval('client["watch"]["unseen"].find_one({"_id": 100})["body"]') eq 'z' }), 'others go on');
is($mongo->count('watch', 'counted'), 3000, 'and deletes nothing');
sql('ALTER TABLE counted DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY');
ok(wait_until(sub { $mongo->eval('client["watch"]["counted"].find_one({"_id": 100})["body"]') eq 'z' }), 'without it, it goes on');

PlinthTest::settled($node);
sql('REVOKE USAGE ON FOREIGN SERVER docs FROM app');
becomes('counted', "state || ': ' || coalesce(reason, last_error)", qr/^blocked: .*may not use the server/, 'without USAGE on the server');
sql("UPDATE counted SET body = 'no usage' WHERE id = 101");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_dirty WHERE zombie_stage = 0') == 1 }), 'changed keys are kept');
is($mongo->eval('client["watch"]["counted"].find_one({"_id": 101})["body"]'), 'x' x 100, 'nothing is sent');
sql('GRANT USAGE ON FOREIGN SERVER docs TO app');
ok(wait_until(sub { $mongo->eval('client["watch"]["counted"].find_one({"_id": 101})["body"]') eq 'no usage' }), 'with it, it goes on');

sql('GRANT ALL ON SCHEMA public TO other; GRANT USAGE ON SCHEMA plinth TO other; GRANT USAGE ON FOREIGN SERVER docs TO other; ALTER TABLE none OWNER TO other');
becomes('none', "state || ': ' || coalesce(reason, last_error)", qr/^(retrying|blocked): .*own/i, 'a table that is somebody else\'s now');
sql('ALTER TABLE none OWNER TO app');
becomes('none', 'state', qr/^streaming$/, 'and back');

# ---- a locked table -------------------------------------------------------------------
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE parts_1 IN ACCESS EXCLUSIVE MODE');
sql("UPDATE parts SET body = 'z' WHERE id = 11000; UPDATE counted SET body = 'locked' WHERE id = 102");
ok(wait_until(sub { $mongo->eval('client["watch"]["counted"].find_one({"_id": 102})["body"]') eq 'locked' }), 'a locked table holds up no other');
$locker->quit;
delivered('and is delivered itself');
is($mongo->eval('client["watch"]["parts"].find_one({"_id": 11000})["body"]'), 'z', 'as it is');

# ---- who sees what ---------------------------------------------------------------------
is(sql("SET ROLE other; SELECT count(*) FROM plinth.stat_sync"), 0, 'others do not see a mapping');
is(sql("SET ROLE plinth_admin; SELECT count(*) FROM plinth.stat_sync"), 4, 'administrators do');
psql_fails_like($node, 'postgres', "SET ROLE other; SELECT plinth.sync_drop('counted')", qr/permission denied for sync mapping/, 'sync_drop by others');

done_testing();
