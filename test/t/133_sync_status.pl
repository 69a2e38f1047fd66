# What sync tells of itself: sync_status() for people, NOTIFY on changes of
# state, lag alerts; and mappings that are altered in place while rows change.
use strict;
use warnings;

use JSON::PP;
use PlinthTest qw(wait_until equal_ok psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('status', conf => <<'CONF');
plinth.sync_checkpoint_interval = '200ms'
plinth.sync_zombie_window = '100ms'
plinth.sync_retry_max = '500ms'
plinth.sync_lag_alert = '1s'
CONF
my $mongo = PlinthTest::mongo_start();
my $proxy = PlinthTest::proxy_start($mongo);
PlinthTest::sync_server($node, 'docs', $proxy->uri, 'app');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub status { return sql("SELECT concat_ws('|', ok, status, action) FROM plinth.sync_status() WHERE name = '$_[0]'"); }
sub status_like
{
	my ($name, $pattern, $test) = @_;
	return ok(wait_until(sub { status($name) =~ $pattern }), $test) || diag(status($name));
}
sub delivered { return is(sql("SELECT plinth.sync_wait('180s')"), 't', "$_[0]: delivered"); }
sub replaced { return sql("SELECT documents_replaced FROM plinth.stat_sync WHERE name = '$_[0]'"); }

# Everything that was notified so far; psql shows it after a statement.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN plinth_sync');
my @heard;
sub heard
{
	my ($event, %want) = @_;
	my $out = $listener->query_safe('SELECT 1');
	push @heard, map { decode_json($_) } $out =~ /Asynchronous notification "plinth_sync" with payload "(\{.*\})" received/g;
	return scalar grep { my $e = $_; $e->{event} eq $event && !grep { "$e->{$_}" ne "$want{$_}" } keys %want } @heard;
}
sub heard_ok { my ($name, @what) = @_; return ok(wait_until(sub { heard(@what) > 0 }), $name) || diag(encode_json(\@heard)); }

# ---------------------------------------------------------------------------
# A table of some size, as it is copied.
my $rows = 20_000;
# Slow enough to be seen, and measured, on any machine.
$proxy->delay(200);
sql("CREATE TABLE t (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0, secret text);"
	  . "INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, $rows) g; ANALYZE t;"
	  . "SELECT plinth.sync_table('t', 'docs')");
status_like('t', qr/^t\|public.t to docs\/t: copies rows: [\d,]+ of about 20,000 \(\d+ %\), (about .* at the [\d,]+ documents a second measured|.*unknown)/, 'a snapshot shows how far it is');
$proxy->pass;
delivered('the snapshot');
is(status('t'), 't|public.t to docs/t: follows, nothing waits', 'nothing to do');
ok(sql("SELECT documents_per_second > 0 FROM plinth.stat_sync") eq 't', 'and it is known how fast it was');
heard_ok('streaming is told', 'state', mapping => 't', state => 'streaming');

# ---------------------------------------------------------------------------
# MongoDB away.
$proxy->refuse;
sql("UPDATE t SET n = n + 1 WHERE id <= 5000");
status_like('t', qr/^f\|public.t to docs\/t: MongoDB is away for \d+ m?s; 5,000 changed keys wait, about \d+ m?s at the [\d,]+ documents a second measured; tries again in .*; behind by .* of WAL\|Mend MongoDB/,
	'away: how much waits, and for how long');
heard_ok('unreachable is told', 'state', mapping => 't', state => 'unreachable', was => 'streaming');
heard_ok('so is the lag', 'lag', mapping => 't', late => 1);
sql("UPDATE t SET n = n + 1 WHERE id = 6000");
status_like('t', qr/5,001 changed keys wait/, 'more waits');
is(heard('lag', late => 1), 1, 'the lag is told once');
$proxy->pass;
delivered('it comes back');
status_like('t', qr/^t\|public.t to docs\/t: follows, nothing waits$/, 'and all is well');
heard_ok('that it has caught up is told', 'lag', mapping => 't', late => 0);
ok(wait_until(sub { heard('state', mapping => 't', state => 'streaming') == 2 }), 'and that it streams again') || diag(encode_json(\@heard));
is(heard('lag', late => 0), 1, 'once');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/sync of "t" is behind by \d+ ms.*sync of "t" has caught up/s, 'the log says so too');
is((grep { exists $_->{reason} || exists $_->{last_error} } @heard), 0, 'nobody who may not see the mapping learns why');

# A pause is told at once, and what to do about it.
sql("SELECT plinth.sync_alter('t', paused => true); UPDATE t SET n = n + 1 WHERE id <= 3");
heard_ok('paused is told', 'state', state => 'paused');
status_like('t', qr/^t\|public.t to docs\/t: paused; 3 changed keys wait.*\|SELECT plinth.sync_resume\('t'\);$/, 'paused');
sql("SELECT plinth.sync_alter('t', paused => false)");
delivered('resumed');

# Blocked, and refused rows.
$mongo->eval("client['app']['there'].insert_one({'_id': 1})");
sql("CREATE TABLE there (id int PRIMARY KEY, v text); INSERT INTO there VALUES (1, 'x'); SELECT plinth.sync_table('there', 'docs')");
status_like('there', qr/^f\|.*: nothing is written: the collection holds documents that are not ours; .*wait\|Empty it/, 'blocked, and what to do');
heard_ok('blocked is told', 'state', mapping => 'there', state => 'blocked');
sql("SELECT plinth.sync_drop('there'); INSERT INTO t VALUES (0, repeat('x', 17000000))");
status_like('t', qr/^f\|.*; refused: 1, the last one as .*\|Mend the rows/, 'a row that cannot be a document');
heard_ok('which is told', 'dead_letters', mapping => 't', any => 1);
sql("DELETE FROM t WHERE id = 0");
heard_ok('and that it has gone', 'dead_letters', any => 0);

# Whose mapping it is not sees nothing.
sql("CREATE ROLE stranger; GRANT USAGE ON SCHEMA plinth TO stranger; CREATE ROLE admin; GRANT plinth_admin TO admin; GRANT USAGE ON SCHEMA plinth TO admin");
is(sql("SET ROLE stranger; SELECT count(*) FROM plinth.sync_status()"), 0, 'a stranger sees nothing');
is(sql("SET ROLE admin; SELECT count(*) FROM plinth.sync_status()"), 1, 'an administrator sees all');

# ---------------------------------------------------------------------------
# Altered in place.
my $before = replaced('t');
sql("SELECT plinth.sync_alter('t', rename_to => 'renamed')");
delivered('renamed');
is(replaced('renamed'), $before, 'a new name sends nothing');
is(sql("SELECT count(*) FROM plinth.sync_tasks"), 0, 'nor is anything to be sent');
psql_fails_like($node, 'postgres', "SET ROLE stranger; SELECT plinth.sync_alter('renamed', filter => 'true')", qr/permission denied for sync mapping/, 'a stranger');
psql_fails_like($node, 'postgres', "SET ROLE admin; SELECT plinth.sync_alter('renamed', filter => 'true')", qr/must be owner of table/, 'an administrator who does not own the table');
is(sql("SET ROLE admin; SELECT plinth.sync_alter('renamed', rename_to => 't')"), '', 'but may rename');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('t', filter => 'random() > 0')", qr/IMMUTABLE|immutable/i, 'a wrong filter');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('t', columns => '{nosuch}')", qr/nosuch/, 'a wrong column');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('t', field_names => 'upper')", qr/invalid field_names/, 'wrong field_names');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('t', reset => '{collection}')", qr/cannot be reset/, 'what cannot be reset');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('t', filter => 'true', reset => '{filter}')", qr/both given and reset/, 'both');
psql_fails_like($node, 'postgres', "SELECT plinth.sync_alter('nosuch', paused => true)", qr/does not exist/, 'no such mapping');
sql("BEGIN; SELECT plinth.sync_alter('t', columns => '{v}'); ROLLBACK");
delivered('rolled back');
is(replaced('t'), $before, 'what rolls back was never asked for');

# While rows change: documents are those of the old definition or of the new one, and of the new one in the end.
sql("CREATE TABLE kept (id int PRIMARY KEY, v text, n int NOT NULL, secret text)");
$mongo->eval("client['app']['kept'].insert_one({'_id': 'foreign'})");
sql("INSERT INTO kept SELECT g, 'v', g, 's' FROM generate_series(1, 2000) g; SELECT plinth.sync_table('kept', 'docs', on_existing => 'keep')");
my $script = PostgreSQL::Test::Utils::tempdir() . '/write.sql';
append_to_file($script, <<'SQL');
\set id random(1, 2100)
INSERT INTO kept VALUES (:id, 'w', :id, 's') ON CONFLICT (id) DO UPDATE SET v = 'w' || random(), n = (random() * 100)::int;
DELETE FROM kept WHERE id = (random() * 2100)::int;
SQL
my ($out, $err) = ('', '');
my $bench = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '600', '-R', '300', '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
my @alterations = (
	[ "columns => '{v,n}'",                       q{'v', v, 'n', n},                    'true' ],
	[ "filter => 'n % 2 = 0'",                    q{'v', v, 'n', n},                    'n % 2 = 0' ],
	[ "fields => '{\"v\": \"value\"}'",           q{'value', v, 'n', n},                'n % 2 = 0' ],
	[ "filter => 'n > 10', reset => '{columns}'", q{'value', v, 'n', n, 'secret', secret}, 'n > 10' ],
	[ "casts => '{\"n\": \"string\"}'",           q{'value', v, 'n', n::text, 'secret', secret}, 'n > 10' ],
	[ "lanes => 2",                               q{'value', v, 'n', n::text, 'secret', secret}, 'n > 10' ],
	[ "reset => '{filter,fields,casts}'",         q{'v', v, 'n', n, 'secret', secret},  'true' ]);
foreach my $alteration (@alterations)
{
	my ($arguments, $document, $where) = @$alteration;
	# Each time the writers have written under the definition before.
	my $lsn = sql('SELECT pg_current_wal_insert_lsn()');
	wait_until(sub { sql("SELECT pg_current_wal_insert_lsn() - '$lsn' > 20000") eq 't' });
	sql("SELECT plinth.sync_alter('kept', $arguments)");
	is(sql("SELECT plinth.sync_wait('180s')"), 't', "$arguments: delivered");
	# From here on nobody writes.
	my $lock = $node->background_psql('postgres');
	$lock->query_safe('BEGIN; LOCK TABLE kept IN EXCLUSIVE MODE');
	equal_ok($node, 'postgres', "SELECT json_build_object('_id', id, $document) FROM kept WHERE $where UNION ALL SELECT json_build_object('_id', 'foreign')",
		$mongo, 'app', 'kept', $arguments);
	$lock->query_safe('COMMIT');
	$lock->quit;
}
$bench->signal('TERM');
$bench->finish;
is(sql("SELECT count(*) FROM plinth.stat_workers WHERE restarts > 0"), 0, 'no worker ended');
$listener->quit;
$node->stop;
done_testing();
