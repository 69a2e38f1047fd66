
# What one mapping, one document or one filter may not do: stop the others.

use strict;
use warnings;
use PlinthTest;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.sync_zombie_window = 300\nplinth.sync_checkpoint_interval = 200\nplinth.sync_retry_max = 500");
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'forum');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub equal
{
	my ($table, $name) = @_;
	return PlinthTest::equal_ok($node, 'postgres',
		"SELECT json_build_object('_id', id, 'body', body) FROM $table", $mongo, 'forum', $table, $name);
}

sub stat_is
{
	my ($mapping, $pattern, $name) = @_;
	my $stat;
	return ok(
		PlinthTest::wait_until(sub {
			$stat = sql("SELECT concat_ws(' | ', state, reason, hint) FROM plinth.stat_sync WHERE name = '$mapping'");
			return $stat =~ $pattern;
		}), $name) || diag($stat);
}

# ---- more pairs of server and owner than there are lanes ----
sql(q{CREATE TABLE t1 (id int PRIMARY KEY, body text); INSERT INTO t1 SELECT i, 'n' || i FROM generate_series(1, 50) i;
	SELECT plinth.sync_table('t1', 'docs')});
for my $i (2 .. 17)
{
	PlinthTest::sync_server($node, "s$i", $mongo->uri, 'forum');
	sql("CREATE TABLE t$i AS TABLE t1; ALTER TABLE t$i ADD PRIMARY KEY (id)");
}
sql("SELECT plinth.sync_table('t$_', 's$_')") for 2 .. 16;
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'as many as there are lanes');
equal("t$_", "t$_ is there") for 1, 16;
# As a dump brings one more.
sql(q{INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)
	VALUES ('t17', 't17', current_user::regrole, 's17', 't17', '{id}')});
sql("UPDATE t$_ SET body = 'with one more'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
# Its state cannot be written as long as somebody holds it, which delays nothing.
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM plinth.sync_states s JOIN plinth.sync_mappings m ON m.id = s.mapping_id
	WHERE m.name = 't17' FOR KEY SHARE OF s");
sql("SELECT plinth.sync_adopt('s17')");
sql("UPDATE t$_ SET body = 'while held'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
is(sql("SELECT count(*) FROM plinth.sync_states WHERE blocked IS NOT NULL"), 0, 'the state is held');
$holder->query_safe('COMMIT');
stat_is('t17', qr/^blocked \| more than 16 pairs.*\| .*sync_drop/, 'one more is blocked, and says why');
sql("UPDATE t$_ SET body = 'once more'") for 1, 16, 17;
equal("t$_", "t$_ goes on") for 1, 16;
sql("SELECT plinth.sync_resync('t17')");
stat_is('t17', qr/^blocked \| more than 16/, 'and stays so as long as there are too many');
sql("SELECT plinth.sync_drop('t2'); SELECT plinth.sync_resync('t17')");
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'with one less it is delivered');
equal("t$_", "t$_ is there") for 1, 16, 17;
sql("SELECT plinth.sync_drop('t$_'); DROP TABLE t$_") for 3 .. 17;
$holder->quit;

# ---- a document over which the server closes the connection ----
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'cut', $proxy->uri, 'forum');
sql("CREATE TABLE $_ (id int PRIMARY KEY, body text); INSERT INTO $_ SELECT i, 'n' || i FROM generate_series(1, 3000) i;
	SELECT plinth.sync_table('$_', 'cut')") for 'good', 'bad';
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'two tables behind a proxy');
sub dead { return sql(q{SELECT coalesce(string_agg(translate(key, '{}"', '') || ' ' || status, ',' ORDER BY key DESC), '-') FROM plinth.sync_dead_letters}) }
$proxy->command('cut-if POISON');
sql("BEGIN; UPDATE bad SET body = CASE WHEN id IN (777, 2222) THEN 'POISON' ELSE 'changed' END; COMMIT; UPDATE good SET body = 'changed'");
equal('good', 'the other table goes on');
ok(PlinthTest::wait_until(sub { dead() eq '777 unreachable,2222 unreachable' }), 'the two documents become dead letters')
  or diag(dead(), "\n", sql('SELECT * FROM plinth.stat_sync'));
like(sql('SELECT min(reason) FROM plinth.sync_dead_letters'), qr/closes the connection/, 'and say why');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'nothing else is owed');
is(PlinthTest::value($mongo, "client['forum']['bad'].count_documents({'body': 'changed'})"), 2998, 'all others are there');
sql("UPDATE bad SET body = 'mended' WHERE body = 'POISON'");
equal('bad', 'mended, they arrive');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'and are there');
is(dead(), '-', 'no dead letter is left');
# In a snapshot, and as the only one that is owed.
sql("CREATE TABLE first AS SELECT id, CASE id WHEN 1234 THEN 'POISON' ELSE 'first' END AS body FROM generate_series(1, 2500) id;
	ALTER TABLE first ADD PRIMARY KEY (id); SELECT plinth.sync_table('first', 'cut'); UPDATE good SET body = 'once more'");
equal('good', 'the other table goes on');
ok(PlinthTest::wait_until(sub { dead() eq '1234 unreachable' }), 'a row of a snapshot becomes a dead letter') or diag(dead());
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'the snapshot ends');
is(PlinthTest::value($mongo, "client['forum']['first'].count_documents({})"), 2499, 'with all others');
sql("UPDATE first SET body = 'POISON again' WHERE id = 77");
ok(PlinthTest::wait_until(sub { dead() eq '77 unreachable,1234 unreachable' }), 'the only one that changed becomes one too') or diag(dead());
$proxy->pass;
sql("SELECT plinth.sync_retry(id) FROM plinth.sync_dead_letters");
equal('first', 'tried again without the fault, they arrive');

# ---- a filter that never ends ----
$node->append_conf('postgresql.conf', 'plinth.sync_read_timeout = 1000');
$node->reload;
sql(q{CREATE FUNCTION endless(id int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$ BEGIN WHILE id = 13 LOOP NULL; END LOOP; RETURN true; END $$;
	CREATE TABLE slow (id int PRIMARY KEY, body text); INSERT INTO slow SELECT i, 'n' FROM generate_series(1, 12) i;
	SELECT plinth.sync_table('slow', 'cut', filter => 'endless(id)')});
equal('slow', 'a filter that ends');
sql("INSERT INTO slow VALUES (13, 'endless')");
ok( PlinthTest::wait_until(
		sub { sql("SELECT last_error FROM plinth.stat_sync WHERE name = 'slow'") =~ /57014: .*sync_read_timeout/ }),
	'one that does not is told');
sql("UPDATE good SET body = 'beside it'");
equal('good', 'the other table goes on');
like(sql("SELECT state FROM plinth.stat_sync WHERE name = 'slow'"), qr/^retrying$/, 'it is tried again');
sql(q{CREATE OR REPLACE FUNCTION endless(id int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$});
equal('slow', 'and goes on with a filter that ends');

# ---- a mapping that is blocked holds nobody ----
$mongo->eval("client['forum']['held'].insert_one({'_id': 'theirs'})", statements => 1);
sql(q{CREATE TABLE held (id int PRIMARY KEY, body text); SELECT plinth.sync_table('held', 'cut');
	CREATE ROLE somebody; GRANT USAGE ON SCHEMA plinth TO somebody});
stat_is('held', qr/^blocked \| the collection holds documents/, 'a mapping is blocked');
my ($rc, $out, $err) = $node->psql('postgres', "UPDATE good SET body = 'not held'; SELECT plinth.sync_wait()");
is($out, 'f', 'sync_wait without a timeout returns');
like($err, qr/WARNING: .*sync mapping "held" is not delivered, it is blocked: the collection holds.*\n.*HINT: .*on_existing/, 'and tells for which mapping and why');
PlinthTest::equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, 'body', body) FROM good", $mongo, 'forum', 'good', 'all else is there', 0);
($rc, $out, $err) = $node->psql('postgres', 'SELECT plinth.sync_drop(\'held\')');
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'without it, true');

# ---- what changed a moment ago ----
for my $n (1 .. 3)
{
	sql("ALTER TABLE good ADD COLUMN new$n int DEFAULT $n");
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "a column more: sync_wait returns");
	is(PlinthTest::value($mongo, "client['forum']['good'].count_documents({'new$n': $n})"), 3000, 'and its values are there');
}

# ---- a filter whose column is renamed ----
sql(q{CREATE TABLE filtered (id int PRIMARY KEY, body text); INSERT INTO filtered VALUES (1, 'a'), (2, 'b');
	SELECT plinth.sync_table('filtered', 'cut', filter => 'body <> ''b''')});
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'a mapping with a filter');
sql('ALTER TABLE filtered RENAME body TO words');
stat_is('filtered', qr/^blocked \| its filter cannot be used: .*body.* \| .*renamed/, 'its column was renamed: blocked, with reason and hint');
($rc, $out, $err) = $node->psql('postgres', "SELECT plinth.sync_wait('180s')");
like($err, qr/WARNING: .*"filtered" is not delivered, it is blocked: its filter/, 'sync_wait tells');
sql("INSERT INTO filtered VALUES (3, 'c'); ALTER TABLE filtered RENAME words TO body");
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'renamed back it goes on');
is(PlinthTest::value($mongo, "client['forum']['filtered'].count_documents({})"), 2, 'with what came meanwhile');

# ---- sync_verify where nothing is delivered ----
$proxy->command('answer-all {"ok": 0, "code": 10107, "errmsg": "not primary"}');
sql("UPDATE good SET body = 'away'");
stat_is('good', qr/^unreachable/, 'MongoDB takes no writes');
PlinthTest::psql_fails_like($node, 'postgres', "SELECT * FROM plinth.sync_verify('good')",
	qr/cannot verify sync mapping "good": it is unreachable \(/, 'sync_verify ends');
$proxy->pass;
is(sql("SELECT plinth.sync_wait('180s')"), 't', 'MongoDB takes them again');
is(PlinthTest::value($mongo, "client['forum']['good'].count_documents({'body': 'away'})"), 3000, 'and has what came meanwhile');

$node->stop('fast');
done_testing();
