# Mappings that are altered in place: another query of documents while its tables
# are written, with servers killed in between; and of each thing that can be
# changed, which documents are written again, as another client sees it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DocumentModel;
use IPC::Run;
use PlinthTest qw(wait_until equal_ok psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;
use WorkerTest;

my $long  = $ENV{PLINTH_LONG};
my $start = $ENV{PLINTH_SEED} // ($long ? time() % 1_000_000 : 1);
my $node = PlinthTest::node('alter', conf => <<'CONF');
plinth.sync_checkpoint_interval = '100ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '500ms'
plinth.sync_lock_timeout = '100ms'
jit = off
client_min_messages = error
CONF
my $mongo = PlinthTest::mongo_start();
PlinthTest::sync_server($node, 'docs', $mongo->uri, 'app');
diag("seeds from $start on");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered") || diag(sql('SELECT * FROM plinth.stat_sync')); }
# Marks every document, as no writer of ours would: what is written again has the mark no more.
sub mark { return PlinthTest::value($mongo, "client['app']['$_[0]'].update_many({}, {'\$set': {'mark': 1}}).modified_count"); }
sub written { return PlinthTest::value($mongo, "','.join(str(i) for i in sorted(d['_id'] for d in client['app']['$_[0]'].find({'mark': {'\$exists': False}})))"); }
sub ids { return PlinthTest::value($mongo, "','.join(str(i) for i in sorted(d['_id'] for d in client['app']['$_[0]'].find()))"); }

# ---- the model: random queries take the place of others while rows change ----
my $cases = 0;
SEED:
for my $seed ($start .. $start + ($ENV{PLINTH_SEED} ? 0 : $long ? 24 : 1))
{
	my $model = DocumentModel->new($seed);
	my $path  = "SET search_path = a$seed;";
	my %mapping;
	sql("CREATE SCHEMA a$seed; $path" . $model->schema);
	for (1 .. 200)
	{
		my ($root, $query) = $model->query;
		my $name = "a${seed}_$root";
		next if $mapping{$name};
		my $lanes = 1 + int rand 3;
		my ($rc, $out, $err) = $node->psql('postgres',
			"$path SELECT plinth.sync_document('$name', 'docs', '$name', '$root', \$q\$$query\$q\$, lanes => $lanes)");
		$mapping{$name} = { root => $root, query => $query } if $rc == 0;
	}
	cmp_ok(scalar keys %mapping, '>', 1, "seed $seed: mappings");
	for my $round (1 .. ($long ? 10 : 5))
	{
		# Two who write all the time, one transaction after another.
		my @writers = map {
			my $file = PostgreSQL::Test::Utils::tempdir() . "/a$seed.$round.$_";
			append_to_file($file, join "\n", $path, map { my $n = 1 + int rand 3; join('; ', 'BEGIN', (map { $model->write } 1 .. $n), 'COMMIT') . ';' } 1 .. 60);
			IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $file ], '>', '/dev/null', '2>', '/dev/null');
		} 1, 2;
		for (1 .. 6)
		{
			my ($root, $query) = $model->query;
			my $mapping = $mapping{"a${seed}_$root"} or next;
			my $undone = DocumentModel::chance(0.2);
			my ($rc, $out, $err) = $node->psql('postgres', "$path BEGIN; " . $model->write
				  . "; SELECT plinth.sync_alter('a${seed}_$root', query => \$q\$$query\$q\$); " . ($undone ? 'ROLLBACK' : 'COMMIT'), on_error_stop => 1);
			next if $rc != 0 && $err =~ /not certain|FULL JOIN is only supported|deadlock|foreign key|duplicate key|could not serialize/;
			is($rc, 0, "seed $seed, round $round: $query") or diag($err) && last SEED;
			$mapping->{query} = $query unless $undone;
		}
		if ($round % 3 == 2)
		{
			$node->kill9;
			$_->finish for @writers;
			PlinthTest::start_again($node);
		}
		else { $_->finish for @writers; }
		my $delivered = sql("SELECT plinth.sync_wait('180s')");
		is($delivered, 't', "seed $seed, round $round: delivered") or diag(sql('SELECT * FROM plinth.stat_sync')) && last SEED;
		for my $name (sort keys %mapping)
		{
			$cases++;
			my ($root, $query) = @{ $mapping{$name} }{qw(root query)};
			my @differences = PlinthTest::differences($node, 'postgres', "$path " . $model->ids($root, $query), $mongo, 'app', $name);
			next unless @differences;
			fail("seed $seed, round $round, $name: as the query has it");
			diag(join "\n", $query, @differences);
			last SEED;
		}
	}
	sql("SELECT plinth.sync_drop(name) FROM plinth.sync_mappings; DROP SCHEMA a$seed CASCADE");
}
cmp_ok($cases, '>', 9, "$cases cases");

# ---- one query, looked at closely ----
sql(<<'SQL');
CREATE TABLE authors (id int PRIMARY KEY, name text);
CREATE TABLE decks (id int PRIMARY KEY, name text, author int);
CREATE TABLE cards (id int PRIMARY KEY, deck int, face text);
CREATE TABLE notes (id int PRIMARY KEY, card int, body text);
CREATE INDEX ON cards (deck);
CREATE INDEX ON notes (card);
CREATE INDEX ON decks (author);
ALTER TABLE notes REPLICA IDENTITY FULL;
INSERT INTO authors SELECT g, 'a' || g FROM generate_series(1, 3) g;
INSERT INTO decks SELECT g, 'd' || g, g FROM generate_series(1, 3) g;
INSERT INTO cards SELECT g, 1 + g % 3, 'f' || g FROM generate_series(1, 9) g;
INSERT INTO notes SELECT g, g, 'n' || g FROM generate_series(1, 9) g;
SQL
my $deck = 'SELECT c.id, c.face, d.name AS deck FROM cards c JOIN decks d ON d.id = c.deck';
my $note = 'SELECT c.id, c.face, (SELECT jsonb_agg(n.body ORDER BY n.id) FROM notes n WHERE n.card = c.id) AS notes FROM cards c';
my $both = 'SELECT c.id, d.name AS deck, a.name AS author FROM cards c JOIN decks d ON d.id = c.deck LEFT JOIN authors a ON a.id = d.author WHERE c.id <> 9';
sub cards_ok { my ($query, $name) = @_; delivered($name); return equal_ok($node, 'postgres', "SELECT jsonb_build_object('_id', q.id) || (to_jsonb(q) - 'id') FROM ($query) AS q", $mongo, 'app', 'cards', $name, 0); }
sub alter { return sql("SELECT plinth.sync_alter('cards', $_[0])"); }
sub sources { return sql("SELECT string_agg(source || ' ' || relation, ', ' ORDER BY source) FROM plinth.sync_sources"); }
sql("SELECT plinth.sync_document('cards', 'docs', 'cards', 'cards', '$deck')");
cards_ok($deck, 'a query');
is(sources(), '1 decks', 'its sources');
mark('cards');
sql("BEGIN; SELECT plinth.sync_alter('cards', query => '$note'); ROLLBACK");
delivered('rolled back');
is(written('cards') . sources(), '1 decks', 'what rolls back was never asked for');
alter("query => '$deck'");
delivered('the same again');
is(written('cards') . sources(), '1 decks', 'the same query sends nothing');
my $deleted = sql("SELECT documents_deleted FROM plinth.stat_sync WHERE name = 'cards'");
alter("query => '$note'");
cards_ok($note, 'another query');
is(written('cards'), '1,2,3,4,5,6,7,8,9', 'every document is sent');
is(sql("SELECT documents_deleted FROM plinth.stat_sync WHERE name = 'cards'"), $deleted, 'and none deleted in between');
sql("UPDATE notes SET body = 'changed' WHERE id = 4; UPDATE decks SET name = 'changed'");
cards_ok($note, 'and what it reads is followed');
alter("query => '$both', fields => '{\"author\": \"by\"}'");
delivered('a third');
is(sources(), '3 decks, 4 authors', 'no number is given twice, and a way back is a new one');
equal_ok($node, 'postgres', "SELECT jsonb_build_object('_id', id, 'deck', deck, 'by', author) FROM ($both) AS q", $mongo, 'app', 'cards', 'with a field of another name', 0);
is(sql("SELECT documents_deleted FROM plinth.stat_sync WHERE name = 'cards'"), $deleted + 1, 'the one that it has no more is deleted');
alter("query => '$both', reset => '{fields}'");
cards_ok($both, 'and back');
is(sources(), '3 decks, 4 authors', 'ways that stay keep their numbers');

# Marks of a source that goes, written down since the tables cannot be read.
my $lock = $node->background_psql('postgres', on_error_stop => 1);
$lock->query_safe('BEGIN; LOCK cards IN ACCESS EXCLUSIVE MODE');
sql("UPDATE authors SET name = name || '!'; UPDATE decks SET name = 'again'");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sync_via') >= 6 }), 'marks wait');
$lock->query_safe('COMMIT');
$lock->quit;
alter("query => '$deck'");
cards_ok($deck, 'marks of sources that went');
is(sql('SELECT count(*) FROM plinth.sync_via'), 0, 'nothing is left of them');

# A query that cannot be used any more is mended by another one.
sql('ALTER TABLE decks RENAME COLUMN name TO title');
ok(wait_until(sub { sql("SELECT concat(state, last_error, reason) FROM plinth.stat_sync WHERE name = 'cards'") =~ /query cannot be used/ }), 'a column is renamed');
$deck = 'SELECT c.id, c.face, d.title AS deck FROM cards c JOIN decks d ON d.id = c.deck';
alter("query => '$deck'");
cards_ok($deck, 'another query mends it');

# A column that comes, and which of them the query reads.
mark('cards');
sql("ALTER TABLE decks ADD more int DEFAULT 7; ALTER TABLE cards ADD more int DEFAULT 7; ALTER TABLE decks DROP more");
delivered('columns that it does not read');
is(written('cards'), '', 'send nothing');
alter(q{query => 'SELECT c.id, to_jsonb(d) AS deck FROM cards c JOIN decks d ON d.id = c.deck'});
delivered('a query with whole rows');
mark('cards');
sql('ALTER TABLE cards ADD most int DEFAULT 8');
delivered('a column of the other table');
is(written('cards'), '', 'sends nothing');
sql('ALTER TABLE decks ADD most int DEFAULT 8');
cards_ok('SELECT c.id, to_jsonb(d) AS deck FROM cards c JOIN decks d ON d.id = c.deck', 'a column that comes into whole rows');
is(written('cards'), '1,2,3,4,5,6,7,8,9', 'sends all');

# A field is called by the query's name for it, whatever a column of the root is called.
$deck = 'SELECT c.id, d.title AS face FROM cards c JOIN decks d ON d.id = c.deck';
alter("query => '$deck', fields => '{\"face\": \"deck\"}'");
delivered('a field of its own');
sql('ALTER TABLE cards RENAME face TO front; UPDATE decks SET title = title || 1');
delivered('a column of the same name is renamed');
equal_ok($node, 'postgres', "SELECT jsonb_build_object('_id', id, 'deck', face) FROM ($deck) AS q", $mongo, 'app', 'cards', 'which is not the field', 0);
sql('ALTER TABLE cards RENAME front TO face');
alter("query => '$deck', reset => '{fields}'");

# via, which stays the word of whoever altered it last.
my $via = q{SELECT c.id, (SELECT max(a.name) FROM authors a) AS last FROM cards c};
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', query => '$via')", qr/not certain/, 'a query without a way');
alter("query => '$via', " . q(via => '{"authors": "SELECT c.id FROM cards c WHERE c.id > $1.id - 1000"}'));
cards_ok($via, 'with one that is given');
sql("INSERT INTO authors VALUES (9, 'z')");
cards_ok($via, 'which is followed');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', query => '$via')", qr/not certain/, 'and does not outlast it');
alter(q{via => '{"authors": "SELECT c.id FROM cards c WHERE c.id > $1.id - 100"}'});
cards_ok($via, 'another way for the query as it is');

# What does not go.
sql("CREATE ROLE group_role; CREATE ROLE member IN ROLE group_role; CREATE ROLE other IN ROLE group_role; GRANT USAGE ON SCHEMA plinth TO group_role, member, other; GRANT USAGE ON FOREIGN SERVER docs TO group_role, member;"
	  . "CREATE TABLE shared (id int PRIMARY KEY, v text, n int); ALTER TABLE shared OWNER TO member; CREATE TABLE plain (id int PRIMARY KEY, v text, n int, d timestamptz)");
sql("SET ROLE member; SELECT plinth.sync_table('shared', 'docs')");
sql("ALTER TABLE shared OWNER TO group_role");
psql_fails_like($node, 'postgres', "SET ROLE other; SELECT plinth.sync_alter('shared', filter => 'n > 1')", qr/permission denied for sync mapping/, 'what runs as another role');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', filter => 'true')", qr/is one of a query/, 'a filter of documents');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', columns => '{id}')", qr/is one of a query/, 'columns of documents');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('shared', query => 'SELECT 1')", qr/is not one of a query/, 'a query of a table');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', query => 'SELECT c.face FROM cards c')", qr/does not return key column/, 'a query without the key');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('cards', fields => '{\"nosuch\": \"x\"}')", qr/nosuch/, 'a field that it has not');
sql("SELECT plinth.sync_drop(name) FROM plinth.sync_mappings");

# ---- a table: what each change writes ----
sub seq { return join ',', $_[0] .. $_[1]; }
sub changes_ok
{
	my ($arguments, $written, $there) = @_;
	# What no fence covers may be written once more.
	wait_until(sub { sql('SELECT count(*) FROM plinth.sync_tasks k JOIN plinth.sync_mappings m ON m.id = k.mapping_id WHERE NOT m.paused') == 0
				&& sql('SELECT count(*) FROM plinth.sync_dirty') == 0
				&& sql('SELECT coalesce(sum(keys_owed + keys_to_rewrite), 0) FROM plinth.stat_sync') == 0 }) or diag('not calm');
	mark('t');
	sql($arguments =~ /^[A-Z]/ ? $arguments : "SELECT plinth.sync_alter('t', $arguments)");
	delivered($arguments);
	is(written('t'), $written, "$arguments: what is written");
	return is(ids('t'), $there, "$arguments: what is there");
}
sql("CREATE TABLE t (id int PRIMARY KEY, v text, user_name text, n int, other int);"
	  . "INSERT INTO t SELECT g, 'v' || g, 'u' || g, g FROM generate_series(1, 20) g; SELECT plinth.sync_table('t', 'docs')");
delivered('a table');
changes_ok("filter => 'n <= 10'", '', seq(1, 10));
changes_ok("filter => 'n BETWEEN 5 AND 15'", seq(11, 15), seq(5, 15));
changes_ok("filter => 'n > 4 AND n < 16'", '', seq(5, 15));
changes_ok("field_names => 'camelCase'", seq(5, 15), seq(5, 15));
changes_ok(q(fields => '{"user_name": "userName"}', field_names => 'same'), '', seq(5, 15));
changes_ok("columns => '{n,v,user_name,other}'", '', seq(5, 15));
changes_ok("columns => '{v,user_name,n}'", seq(5, 15), seq(5, 15));
changes_ok('ALTER TABLE t RENAME user_name TO login', '', seq(5, 15));
changes_ok(q(casts => '{"n": "string"}'), seq(5, 15), seq(5, 15));
changes_ok('lanes => 2', '', seq(5, 15));
changes_ok("filter => 'n < 12'", seq(1, 4), seq(1, 11));
changes_ok('lanes => 1', '', seq(1, 11));
changes_ok("rename_to => 'u'", '', seq(1, 11));
changes_ok("SELECT plinth.sync_alter('u', rename_to => 't', paused => true)", '', seq(1, 11));
# Not yet written by one filter when there is another.
changes_ok("SELECT plinth.sync_alter('t', filter => 'n < 6')", '', seq(1, 11));
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.sync_tasks WHERE old_filter IS NOT NULL") == 1 }), 'it is to be sent');
changes_ok("SELECT plinth.sync_alter('t', filter => 'n > 2 AND n < 12', paused => false)", seq(3, 11), seq(3, 11));
changes_ok("filter => 'n < 3', columns => '{v}', reset => '{casts,fields}'", seq(1, 2), seq(1, 2));
changes_ok("reset => '{filter}'", seq(3, 20), seq(1, 20));
# Nor when only the fields are others: what the earlier filter left goes.
sql("SELECT plinth.sync_alter('t', filter => 'n < 8', paused => true)");
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.sync_tasks WHERE old_filter IS NOT NULL") == 1 }), 'it is to be sent');
sql("SELECT plinth.sync_alter('t', columns => '{n}')");
ok(wait_until(sub { sql("SELECT count(*) FROM plinth.sync_tasks WHERE kind = 'snapshot' AND old_filter IS NULL") == 1 }), 'and other fields');
changes_ok("paused => false, columns => '{v}'", seq(1, 7), seq(1, 7));
changes_ok("reset => '{filter}'", seq(8, 20), seq(1, 20));
# A row that fails under a filter is looked at anew under the next; its page is sent whole.
my $others = '1,2,' . seq(4, 20);
changes_ok("filter => '10 / (n - 3) <> 99'", $others, seq(1, 20));
is(sql('SELECT key FROM plinth.sync_dead_letters'), '{"3"}', 'one row fails');
changes_ok("reset => '{filter}'", seq(1, 20), seq(1, 20));
is(sql('SELECT count(*) FROM plinth.sync_dead_letters'), 0, 'and not any more');
# What the old filter names goes.
changes_ok("filter => 'other IS NULL OR n < 0'", '', seq(1, 20));
changes_ok("BEGIN; SELECT plinth.sync_alter('t', filter => 'n < 7'); ALTER TABLE t DROP other; COMMIT", seq(1, 6), seq(1, 6));
# Killed in between, wherever that is.
sql("SELECT plinth.sync_alter('t', filter => 'n > 4')");
$node->kill9;
PlinthTest::start_again($node);
delivered('killed');
is(ids('t'), seq(5, 20), 'killed: what is there');

# ---- rows that are appended: later ones are of another definition ----
sql("CREATE TABLE l (id int PRIMARY KEY, v text, n int, at timestamptz DEFAULT now()); INSERT INTO l SELECT g, 'v', g FROM generate_series(1, 5) g;"
	  . "SELECT plinth.sync_append('l', 'docs', expire_field => 'at', expire_after => '30 days')");
delivered('appended');
mark('l');
psql_fails_like($node, 'postgres', q(SELECT plinth.sync_alter('l', casts => '{"at": "string"}')), qr/is no date/, 'documents that would not expire');
sql("SELECT plinth.sync_alter('l', columns => '{v,at}', filter => 'n <> 7'); INSERT INTO l SELECT g, 'v', g FROM generate_series(6, 8) g");
delivered('another definition');
is(written('l'), '6,8', 'of later rows only');
sub fields_of { return PlinthTest::value($mongo, "' '.join(sorted(client['app']['l'].find_one({'_id': $_[0]}).keys()))"); }
is(fields_of(1) . ', ' . fields_of(6), '_id at mark n v, _id at v', 'what is there stays as it is');
sql("SELECT plinth.sync_alter('l', reset => '{columns,filter}')");
delivered('and back');
is(ids('l'), '1,2,3,4,5,6,8', 'which sends nothing');
sql("SELECT plinth.sync_resync('l')");
delivered('resync');
is(ids('l') . ' ' . fields_of(6), seq(1, 8) . ' _id at v', 'brings what was left out');
sql("SELECT plinth.sync_drop(name) FROM plinth.sync_mappings");

is(sql("SELECT count(*) FROM plinth.stat_workers WHERE restarts > 0"), 0, 'no worker ended');
$node->stop;
done_testing();
