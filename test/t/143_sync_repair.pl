# sync_verify with repair writes what differs and nothing else: by several lanes,
# of queries, logs and files, while rows change; what becomes of it when its
# connection is cut, its backend or worker is killed, or a TRUNCATE comes in
# between.  And sync_wait for one mapping.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use PlinthTest qw(wait_until psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('repair',
	conf => "plinth.sync_zombie_window = '100ms'\nplinth.sync_retry_max = 500\nplinth.sync_batch_rows = 50\nplinth.worker_restart_delay = '200ms'");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub tamper { return $mongo->eval("db = client['app']\n$_[0]\nresult = 1", statements => 1); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub found { return sql("SELECT string_agg(coalesce(key, '-') || ' ' || difference, ',' ORDER BY difference, length(key), key) FROM plinth.sync_verify('$_[0]'" . ($_[1] ? ', true)' : ')')); }
sub written { return sql("SELECT sum(documents_replaced) || '+' || sum(documents_deleted) FROM plinth.stat_sync"); }
# What verifying finds is repaired by so many writes, and then nothing differs.
sub repair_ok
{
	my ($name, $expected, $writes) = @_;
	my ($replaced, $deleted) = split /\+/, written();
	is(found($name, 1), $expected, "$name: what differs is found");
	delivered($name);
	my ($replaced_now, $deleted_now) = split /\+/, written();
	is(($replaced_now - $replaced) . '+' . ($deleted_now - $deleted), $writes, "$name: only that is written");
	return is(found($name), '', "$name: nothing differs any more");
}

# The one row at which who reads the table can be stopped.
sql(<<'SQL');
CREATE FUNCTION gate(id int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF id = 700 THEN PERFORM pg_advisory_xact_lock_shared(143); END IF;
	RETURN true;
END $$;
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT g, 'n' || g FROM generate_series(1, 1000) g;
SELECT plinth.sync_table('notes', 'docs', filter => 'public.gate(id)', lanes => 3);
CREATE TABLE boards (id int PRIMARY KEY, title text);
CREATE TABLE posts (id int PRIMARY KEY, board_id int REFERENCES boards, body text);
CREATE INDEX ON posts (board_id);
INSERT INTO boards SELECT g, 'b' || g FROM generate_series(1, 60) g;
INSERT INTO posts SELECT g, g % 60 + 1, 'p' || g FROM generate_series(1, 600) g;
ALTER TABLE posts REPLICA IDENTITY FULL;
SELECT plinth.sync_document('boards', 'docs', 'boards', 'boards',
	'SELECT b.id, b.title, (SELECT jsonb_agg(p.body ORDER BY p.id) FROM public.posts p WHERE p.board_id = b.id) AS posts FROM public.boards b');
CREATE TABLE logs (id bigint PRIMARY KEY, line text);
INSERT INTO logs SELECT g, 'l' || g FROM generate_series(1, 200) g;
SELECT plinth.sync_append('logs', 'docs');
SELECT plinth.file_bucket_create('media');
SELECT plinth.file_put('media', 'file' || g, convert_to(repeat('x', g * 100000), 'UTF8')) FROM generate_series(1, 6) g;
SELECT plinth.sync_bucket('media', 'docs');
SQL
delivered('copied');
is(found($_), '', "$_: equal") for 'notes', 'boards', 'logs', 'media.files', 'media.chunks';

# ---- nothing else is written ----
sub damage
{
	tamper(<<'PY');
db.notes.delete_many({'_id': {'$in': [1, 2, 3, 999]}})
db.notes.update_many({'_id': {'$in': [10, 11, 500]}}, {'$set': {'body': 'other'}})
db.notes.insert_many([{'_id': i} for i in (5000, 5001, 5002, 5003)])
db.boards.delete_one({'_id': 7})
db.boards.update_one({'_id': 9}, {'$set': {'posts': []}})
db.boards.insert_one({'_id': 900})
db.logs.delete_many({'_id': {'$in': [5, 6]}})
db.logs.replace_one({'_id': 900}, {}, upsert=True)
PY
	return;
}
my %differ = (
	notes => '10 different,11 different,500 different,5000 extra,5001 extra,5002 extra,5003 extra,1 missing,2 missing,3 missing,999 missing',
	boards => '9 different,900 extra,7 missing',
	logs => '5 missing,6 missing');
damage();
repair_ok('notes', $differ{notes}, '7+4');
repair_ok('boards', $differ{boards}, '2+1');
repair_ok('logs', $differ{logs}, '2+0');
tamper(<<'PY');
f = db['media.files'].find_one({'filename': 'file3'})
c = db['media.chunks'].find_one({'files_id': db['media.files'].find_one({'filename': 'file5'})['_id'], 'n': 1})
db['media.files'].delete_one({'_id': f['_id']})
db['media.chunks'].update_one({'_id': c['_id']}, {'$set': {'data': b'torn'}})
PY
like(found('media.files', 1), qr/^\S+ missing$/, 'a file that is gone');
like(found('media.chunks', 1), qr/^\S+ different$/, 'a chunk that is torn');
delivered('files');
is(found($_), '', "$_: nothing differs any more") for 'media.files', 'media.chunks';

# ---- while rows change ----
{
	my $script = PostgreSQL::Test::Utils::tempdir() . '/write.sql';
	append_to_file($script, <<'SQL');
\set id random(501, 998)
UPDATE notes SET body = body || '.' WHERE id = :id AND id <> 700;
DELETE FROM notes WHERE id = :id + 500;
INSERT INTO notes VALUES (:id + 500, 'new') ON CONFLICT DO NOTHING;
UPDATE posts SET body = body || '.', board_id = 20 + :id % 40 WHERE id = :id % 400;
INSERT INTO logs SELECT coalesce(max(id), 0) + 1, 'more' FROM logs ON CONFLICT DO NOTHING;
SQL
	my ($out, $err) = ('', '');
	sql('UPDATE posts SET board_id = 20 + id % 40');
	delivered('moved');
	damage();
	my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '3600', '-R', '200', '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	ok(wait_until(sub { sql("SELECT count(*) > 300 FROM logs") eq 't' }), 'rows change');
	is(found($_, 1), $differ{$_}, "$_: each difference and no other while rows change") for 'notes', 'boards', 'logs';
	$bench->signal('TERM');
	$bench->finish;
	delivered('quiet');
	is(found($_), '', "$_: equal") for 'notes', 'boards', 'logs';
}

# ---- stopped in the middle ----
my $gate = $node->background_psql('postgres');
# Runs sync_verify until it stands in the middle of the table.
sub stand
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$gate->query_safe('SELECT pg_advisory_lock(143)');
	$session->query_until(qr/begun/, "\\echo begun\nSELECT 'found ' || count(*) FROM plinth.sync_verify('notes', true);\n\\echo over\n");
	ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify' AND wait_event = 'advisory'") == 1 }), 'it stands in the middle');
	return ($session, $pid);
}
sub go_on { $gate->query_safe('SELECT pg_advisory_unlock(143)'); return; }

tamper('db.notes.delete_many({"_id": {"$in": [4, 990]}})');
my ($session) = stand();
$proxy->cut;
go_on();
like($session->query_until(qr/over/, ''), qr/found 2\b/, 'a connection that is cut is made again');
$session->quit;
delivered('cut');
is(found('notes'), '', 'and all is repaired');

# The cursor by which documents are read is lost: it goes on behind the last one, and in the types behind that.
sql("INSERT INTO notes SELECT g, 'more' FROM generate_series(2001, 2600) g");
delivered('more');
tamper('db.notes.insert_many([{"_id": 9000}, {"_id": "text"}])');
($session) = stand();
$gate->query_safe('SELECT pg_advisory_unlock(143), pg_advisory_lock(143)');
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify' AND wait_event = 'advisory'") == 1 }), 'it stands in the middle of the collection');
tamper(<<'PY');
db.command('killCursors', 'notes', cursors=[bson.Int64(i) for i in range(1, 1000)])
try:
    client.admin.command('killAllSessions', [])
except pymongo.errors.OperationFailure:
    pass
PY
go_on();
like($session->query_until(qr/over/, ''), qr/found 2\b/, 'a cursor that is lost is made again');
$session->quit;
tamper('db.notes.delete_one({"_id": "text"})');
delivered('repaired');
is(found('notes'), '', 'and nothing differs any more');

# A TRUNCATE: what is swept and not gone yet is not extra.
sql('CREATE TABLE emptied (id int PRIMARY KEY); INSERT INTO emptied SELECT generate_series(601, 1100)');
sql("SELECT plinth.sync_table('emptied', 'docs', filter => 'public.gate(id)')");
delivered('another table');
$gate->query_safe('SELECT pg_advisory_lock(143)');
$session = $node->background_psql('postgres');
$session->query_until(qr/begun/, "\\echo begun\nSELECT 'found ' || count(*) FROM plinth.sync_verify('emptied');\n\\echo over\n");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth verify' AND wait_event = 'advisory'") == 1 }), 'it stands in the middle');
$proxy->delay(50);
my $truncate = $node->background_psql('postgres');
$truncate->query_until(qr/begun/, "\\echo begun\nTRUNCATE emptied;\n\\echo over\n");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'TRUNCATE%' AND wait_event_type = 'Lock'") == 1 }), 'a TRUNCATE waits');
go_on();
like($session->query_until(qr/over/, ''), qr/found 0\b/, 'what a TRUNCATE has emptied meanwhile is no difference');
$truncate->query_until(qr/over/, '');
$proxy->delay(0);
$session->quit;
$truncate->quit;
delivered('emptied');
is($mongo->count('app', 'emptied'), 0, 'its documents are gone');
sql("SELECT plinth.sync_drop('emptied')");

# kill -9 of either half: the server starts again, nothing was repaired by halves.
foreach my $victim ('backend', 'worker')
{
	# What a crash would have written once more is covered, and that is on disk.
	my $end = sql('SELECT pg_current_wal_insert_lsn()');
	ok(wait_until(sub {
				sql('CHECKPOINT');
				sql('SELECT (SELECT count(*) FROM plinth.sync_dirty) + (SELECT count(*) FROM plinth.sync_tasks)') == 0
				  && sql("SELECT bool_and(confirmed_flush_lsn >= '$end') FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'") eq 't' }),
		'all is calm');
	sql('CHECKPOINT');
	tamper('db.notes.delete_many({"_id": {"$in": [4, 990]}})');
	my ($killed, $pid) = stand();
	$pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'plinth verify'") if $victim eq 'worker';
	kill 'KILL', $pid;
	ok(PlinthTest::begun_anew($node, $pid), "the $victim was killed");
	ok(wait_until(sub { PlinthTest::answers($node) }), 'the server is back');
	eval { $killed->quit; };
	eval { $gate->quit; };
	$gate = $node->background_psql('postgres');
	is($mongo->count('app', 'notes'), sql('SELECT count(*) FROM notes') - 2, 'nothing was written');
	is(found('notes', 1), '4 missing,990 missing', 'and both are found');
	delivered('repaired');
	is(found('notes'), '', 'nothing differs any more');
}

# ---- sync_wait for one mapping ----
my $other = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'away', $other->uri, 'elsewhere');
sql("CREATE TABLE far (id int PRIMARY KEY); INSERT INTO far VALUES (1); SELECT plinth.sync_table('far', 'away')");
delivered('another server');
$other->refuse;
sql("INSERT INTO far VALUES (2); UPDATE notes SET body = 'near' WHERE id <= 100; ALTER TABLE notes ADD COLUMN more int DEFAULT 1");
is(sql("SELECT plinth.sync_wait('1s')"), 'f', 'a server is away');
is(sql("SELECT plinth.sync_wait('1s', 'far')"), 'f', 'and with it its mapping');
is(sql("SELECT plinth.sync_wait('180s', 'notes')"), 't', 'but another mapping is not');
is($mongo->eval("client['app']['notes'].count_documents({'body': 'near'})"), 100, 'which is there');
is($mongo->eval("client['app']['notes'].count_documents({'more': 1})"), sql('SELECT count(*) FROM notes'), 'as it was defined anew');
is(sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM notes; SELECT plinth.sync_wait('180s', name => 'notes'); COMMIT") =~ s/.*\n//r, 't', 'under a snapshot too');
$other->pass;
is(sql("SELECT plinth.sync_wait(name => 'far')"), 't', 'until it is back');
# A snapshot of another mapping, of the same lane, which takes its time.
sql("ALTER SYSTEM SET plinth.sync_snapshot_rate = 50");
$node->reload;
sql("CREATE TABLE slow (id int PRIMARY KEY); INSERT INTO slow SELECT generate_series(1, 100000); SELECT plinth.sync_table('slow', 'docs')");
ok(wait_until(sub { sql("SELECT state FROM plinth.stat_sync WHERE name = 'slow'") eq 'snapshot' }), 'a long snapshot');
sql("UPDATE notes SET body = 'meanwhile' WHERE id <= 100");
is(sql("SELECT plinth.sync_wait('180s', 'notes')"), 't', 'is not waited for');
is($mongo->eval("client['app']['notes'].count_documents({'body': 'meanwhile'})"), 100, 'and all is there');
is(sql("SELECT plinth.sync_wait('200ms', 'slow')"), 'f', 'the snapshot itself takes longer');
sql("TRUNCATE slow");
my ($rc, $out, $err) = $node->psql('postgres', "SELECT plinth.sync_pause('slow'); SELECT plinth.sync_wait(name => 'slow')");
is($out =~ s/^\n//r, 'f', 'one that is paused is not waited for');
like($err, qr/WARNING:.*sync mapping "slow" is not delivered, it is paused\nHINT:.*sync_resume\('slow'\)/, 'and it says so');
sql("DROP TABLE slow");
($rc, $out, $err) = $node->psql('postgres', "SELECT plinth.sync_resume('slow'); SELECT plinth.sync_wait(name => 'slow')");
is($out =~ s/^\n//r, 'f', 'nor one that is blocked');
like($err, qr/WARNING:.*sync mapping "slow" is not delivered, it is blocked: /, 'and it says so');
is(sql("SELECT plinth.sync_wait('180s', 'notes')"), 't', 'which does not concern others');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_wait(name => 'nosuch')", qr/sync mapping "nosuch" does not exist/, 'no such mapping');
sql('CREATE ROLE stranger; GRANT USAGE ON SCHEMA plinth TO stranger');
psql_fails_like($node, 'postgres', "SET ROLE stranger; SELECT plinth.sync_wait(name => 'notes')", qr/permission denied for sync mapping "notes"/, 'a stranger');

# ---- an extension that was dropped leaves no state to its successor ----
my $id = sql("SELECT id FROM plinth.sync_mappings WHERE name = 'slow'");
ok(wait_until(sub { sql("SELECT reason IS NOT NULL FROM plinth.stat_sync WHERE name = 'slow'") eq 't' }), 'a reason');
$gate->quit;
sql('DROP EXTENSION plinth CASCADE');
like(
	sql("CREATE EXTENSION plinth; CREATE TABLE fresh (id int PRIMARY KEY);"
		  . "CREATE SERVER docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri '" . $proxy->uri . "', database 'fresh'); CREATE USER MAPPING FOR PUBLIC SERVER docs;"
		  . "SELECT setval('plinth.sync_mappings_id_seq', $id, false);"
		  . "BEGIN; SELECT plinth.sync_table('fresh', 'docs'); SELECT id || ' ' || status FROM plinth.sync_status(), plinth.sync_mappings; COMMIT"),
	qr/^$id public\.fresh to docs\/fresh: no worker delivers it; 0 changed keys wait$/m, 'a mapping of the same number begins anew');
delivered('the fresh one');
is(sql("SELECT ok || ' ' || coalesce(last_error, '-') FROM plinth.sync_status() JOIN plinth.stat_sync USING (name)"), 'true -', 'and nothing is wrong with it');
$node->stop;
done_testing();
