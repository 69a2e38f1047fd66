# A crash in the middle of a large transaction, and a table that goes while it
# is being sent.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use Test::More;

# So little that a large transaction is streamed and spilled.
my $node = PlinthTest::node('main', conf => "logical_decoding_work_mem = 64kB\nplinth.sync_memory = 4MB\nplinth.sync_checkpoint_interval = 200");
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'cut');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub equal
{
	my ($table, $name) = @_;
	return PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'v', v) FROM $table", $mongo, 'cut', $table, $name);
}

sub passes_decoder
{
	my $lsn = sql("SELECT pg_logical_emit_message(false, 'test', '')");
	return ok(wait_until(sub { sql("SELECT decoded >= '$lsn' FROM plinth.stat_decode") eq 't' }), $_[0]);
}

sub spilled { return scalar grep { -f } glob($node->data_dir . '/base/pgsql_tmp/*'), glob($node->data_dir . '/pg_replslot/*/*.spill'); }

sub crash
{
	my ($name) = @_;
	$node->stop('immediate');
	$node->start;
	return ok(wait_until(sub { PlinthTest::answers($node) }), $name);
}

sql("CREATE TABLE big (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY, v text);
	INSERT INTO big SELECT i, 'old' FROM generate_series(1, 20000) i; INSERT INTO small VALUES (1, 'old');
	SELECT plinth.sync_table('big', 'docs'), plinth.sync_table('small', 'docs')");
equal($_, "$_ is there") for qw(big small);

# ---- one that is open: nothing of it may arrive ----
my $writer = $node->background_psql('postgres');
$writer->query_safe("BEGIN; UPDATE big SET v = 'never'; DELETE FROM big WHERE id % 3 = 0; SAVEPOINT s; TRUNCATE small");
passes_decoder('the decoder has read an open transaction');
crash('after a crash in an open transaction');
eval { $writer->quit };
sql("INSERT INTO small VALUES (2, 'after'); UPDATE big SET v = 'after' WHERE id = 20000");
equal($_, "$_: nothing of what was open arrived") for qw(small big);
is(PlinthTest::value($mongo, "client['cut']['big'].count_documents({'v': 'never'})"), 0, 'nor did it ever');

# ---- one that is committed, and of which a part has arrived ----
$proxy->delay(1000);
sql("BEGIN; UPDATE big SET v = 'new'; DELETE FROM big WHERE id % 3 = 0; COMMIT");
ok( wait_until(sub { PlinthTest::value($mongo, "client['cut']['big'].count_documents({'v': 'new'})") > 0 }),
	'a part of a large transaction has arrived');
# The rest is kept back.  A slot that moved past it would be on disk with the last checkpoint.
$proxy->hold;
for (1 .. 3)
{
	sql('CHECKPOINT');
	passes_decoder('the decoder is past it');
}
sql('CHECKPOINT');
crash('after a crash in the middle of it');
$proxy->command('drop-held');
$proxy->pass;
equal('big', 'all of it arrives');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'and nothing is owed');

# ---- a table that is dropped while it is sent, and one while it is copied ----
sub restarts { return sql('SELECT coalesce(sum(restarts), 0) FROM plinth.stat_workers'); }
my $restarts = restarts();
$proxy->delay(20);
sql("UPDATE big SET v = 'last'; CREATE TABLE more AS SELECT i AS id, 'm' AS v FROM generate_series(1, 20000) i; ALTER TABLE more ADD PRIMARY KEY (id);
	SELECT plinth.sync_table('more', 'docs')");
ok(wait_until(sub { PlinthTest::value($mongo, "client['cut']['more'].count_documents({})") > 0 }), 'a snapshot has begun');
PlinthTest::within_ok(10, 'DROP TABLE does not wait for what is sent', sub { sql('DROP TABLE big, more') });
sql("INSERT INTO small VALUES (3, 'beside')");
equal('small', 'another goes on');
for my $name (qw(big more))
{
	my $state = '';
	ok(wait_until(sub { ($state = sql("SELECT concat_ws(': ', state, reason) FROM plinth.stat_sync WHERE name = '$name'")) =~ /^blocked: the table was dropped/ }),
		"$name: told")
	  or diag($state);
	sql("SELECT plinth.sync_drop('$name')");
}
$proxy->pass;
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'nothing waits for them');
is(restarts(), $restarts, 'no worker ended by it');
PlinthTest::settled($node, 'postgres');
ok(wait_until(sub { spilled() == 0 }), 'no file of large transactions is left');

# ---- and of the extension nothing, in a crash right after ----
sql("BEGIN; UPDATE small SET v = 'at the end'; COMMIT; DROP EXTENSION plinth CASCADE");
crash('after a crash right after DROP EXTENSION');
ok(wait_until(sub { sql('SELECT count(*) FROM pg_replication_slots') eq '0' }), 'no slot is left');

$node->stop('fast');
done_testing();
