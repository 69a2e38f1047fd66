# The sessions' shared memory through what goes wrong: too many sessions for it,
# changes by every hand, killed backends, restarts, the extension and a database
# dropped in use.  After each the answers must be right and the memory add up.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until psql_fails_like);
use Test::More;

my $node = node('memory', conf => "plinth.session_memory = '128kB'\nautovacuum = off\n");

sub sql
{
	my ($sql, $dbname) = @_;
	return $node->safe_psql($dbname || 'postgres', $sql);
}

my $sessions = <<'SQL';
CREATE TABLE mine (s int PRIMARY KEY, token text, id uuid);
INSERT INTO plinth.users (username) SELECT 'user' || i FROM generate_series(1, 50) i;
INSERT INTO mine SELECT s, 'pls_' || plinth.base64url_encode(plinth.random_bytes(32)) FROM generate_series(1, 1000) s;
INSERT INTO plinth.sessions (user_id, token_hash, expires_at, idle_timeout)
	SELECT (SELECT id FROM plinth.users WHERE username = 'user' || 1 + s % 50), plinth._blake2b(plinth.base64url_decode(substr(token, 5))),
		now() + interval '1 day', '1 hour' FROM mine;
UPDATE mine SET id = s.id FROM plinth.sessions s WHERE s.token_hash = plinth._blake2b(plinth.base64url_decode(substr(token, 5)));
SQL
sql($sessions);

sub good
{
	my ($where, $dbname) = @_;
	return sql("SELECT count(user_id) FROM mine, plinth.session_verify(token) WHERE $where", $dbname);
}

sub adds_up
{
	return sql('SELECT with_roles = role_references, in_flux FROM plinth._session_check()') eq 't|0';
}

# A load by 4 clients, which goes on until it is ended or the server is.
sub load_start
{
	my ($dbname) = @_;
	my $script = $node->basedir . "/load.$dbname.sql";
	open my $file, '>', $script or die $!;
	print $file <<'SQL';
\set k random(1, 1000)
SELECT count(user_id) FROM mine, plinth.session_verify(token) WHERE s BETWEEN :k AND :k + 20;
UPDATE plinth.sessions SET revoked_at = CASE WHEN revoked_at IS NULL THEN now() END, revoked_reason = CASE WHEN revoked_at IS NULL THEN 'by hand' END
	WHERE id = (SELECT id FROM mine WHERE s = :k);
SELECT plinth.session_flush();
SQL
	close $file;
	my ($out, $err) = ('', '');
	return IPC::Run::start(
		[ 'pgbench', '-n', '-c', 4, '-T', 3600, '-f', $script, '-h', $node->host, '-p', $node->port, $dbname ],
		'>', \$out, '2>', \$err);
}

sub load_runs
{
	my ($dbname) = @_;
	return wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = '$dbname' AND pid <> pg_backend_pid()") == 4 });
}

# ---- too many sessions ---------------------------------------------------------------
is(good('true'), 1000, 'right when full') for 1 .. 2;
is(sql('SELECT entries <= capacity, capacity < 1000, evictions > 0 FROM plinth.stat_sessions'), 't|t|t', 'which it was');
ok(adds_up(), 'it adds up');
is(sql("UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'x' WHERE id IN (SELECT id FROM mine WHERE s % 3 = 0)") // '', '', 'a third is revoked');
is(good('true'), 667, 'and nobody else');
sql('UPDATE plinth.sessions SET revoked_at = NULL, revoked_reason = NULL');
is(good('true'), 1000, 'and is not');

# ---- every hand -----------------------------------------------------------------------
my $one = 's = 7';
foreach my $change (
	"DELETE FROM plinth.sessions WHERE id = (SELECT id FROM mine WHERE $one)",
	"SET LOCAL session_replication_role = replica; DELETE FROM plinth.sessions WHERE id = (SELECT id FROM mine WHERE $one)",
	"UPDATE plinth.sessions SET expires_at = now() WHERE id = (SELECT id FROM mine WHERE $one)",
	"UPDATE plinth.sessions SET token_hash = plinth.random_bytes(32) WHERE id = (SELECT id FROM mine WHERE $one)",
	"UPDATE plinth.sessions SET last_active_at = now() - interval '2 h' WHERE id = (SELECT id FROM mine WHERE $one)",
	"DELETE FROM plinth.users WHERE username = 'user8'",
	"SET LOCAL session_replication_role = replica; DELETE FROM plinth.users WHERE username = 'user8'",
	"UPDATE plinth.users SET status = 'locked' WHERE username = 'user8'",
	"UPDATE plinth.users SET deleted_at = now() WHERE username = 'user8'",
	'TRUNCATE plinth.sessions CASCADE',
	'TRUNCATE plinth.users CASCADE')
{
	is(good($one), 1, "before: $change");
	my $end = "SELECT count(user_id) FROM mine, plinth.session_verify(token) WHERE $one";
	is(sql("BEGIN; $change; $end; ROLLBACK; $end"), "0\n1", 'seen by who did it, and undone');
	is(sql("BEGIN; SAVEPOINT a; $change; $end; ROLLBACK TO a; $end; COMMIT; $end"), "0\n1\n1", 'to a savepoint too');
	is(sql("BEGIN; SAVEPOINT a; $change; RELEASE a; COMMIT; $end"), '0', 'seen by all') if $change =~ /token_hash/;
	sql("UPDATE plinth.sessions SET token_hash = plinth._blake2b(plinth.base64url_decode(substr(token, 5))) FROM mine WHERE mine.id = sessions.id AND $one");
}
is(sql("BEGIN; UPDATE plinth.users SET role = 'editor' WHERE username = 'user8'; COMMIT; SELECT role FROM mine, plinth.session_verify(token) WHERE $one"), 'editor', 'a role');
is(sql("SELECT plinth.role_create('helper', ''); SELECT plinth.user_role_grant(id, 'helper') FROM plinth.users WHERE username = 'user8';"
	  . " BEGIN; SELECT plinth.context_begin(token) IS NULL FROM mine WHERE $one; SELECT plinth.has_role('helper'); COMMIT") =~ /\nt$/ ? 1 : 0, 1, 'a role that is granted');
psql_fails_like($node, 'postgres', "BEGIN; UPDATE plinth.sessions SET expires_at = now() WHERE id = (SELECT id FROM mine WHERE $one); PREPARE TRANSACTION 'p'",
	qr/cannot PREPARE/, 'what changed a session cannot be prepared');
ok(adds_up(), 'it adds up');

# ---- use ------------------------------------------------------------------------------
sql("UPDATE plinth.sessions SET last_active_at = now() - interval '50 min' WHERE id = (SELECT id FROM mine WHERE $one)");
sql("BEGIN READ ONLY; SELECT plinth.context_begin(token) FROM mine WHERE $one; ROLLBACK");
sql("UPDATE plinth.users SET tier = 'pro' WHERE username = 'user8'");
sql("UPDATE plinth.sessions SET idle_timeout = '30 min' WHERE id = (SELECT id FROM mine WHERE $one)");
is(good($one), 1, 'use that is in memory only counts, also when the rest must be read anew');
sql('SELECT plinth.session_flush()');
is(sql("SELECT last_active_at > now() - interval '10 min' FROM plinth.sessions JOIN mine USING (id) WHERE $one"), 't', 'and is written');

# ---- restarts and crashes ---------------------------------------------------------------
$node->restart;
is(sql('SELECT entries FROM plinth.stat_sessions'), 0, 'empty after a restart');
is(good($one), 1, 'and fills');
is(sql('SELECT entries FROM plinth.stat_sessions'), 1, 'as sessions are looked up');
foreach my $round (1 .. ($ENV{PLINTH_LONG} ? 20 : 3))
{
	my $load = load_start('postgres');
	ok(load_runs('postgres'), 'a load');
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1");
	kill 'KILL', $pid;
	$load->finish;
	ok(wait_until(sub { (PlinthTest::ask($node, 'postgres', 'SELECT count(*) > 0 FROM mine') // '') eq 't' }), 'a backend killed: the server is back');
	ok(adds_up(), 'it adds up');
	is(good('true'), sql('SELECT count(*) FROM plinth.sessions WHERE revoked_at IS NULL'), 'and is right');
}

# ---- dropped in use ----------------------------------------------------------------------
sql('CREATE DATABASE other');
sql("CREATE EXTENSION plinth; $sessions", 'other');
is(good('s <= 100', 'other'), 100, 'another database');
my $load = load_start('other');
ok(load_runs('other'), 'a load');
sql('DROP DATABASE other WITH (FORCE)');
$load->finish;
ok(adds_up(), 'dropped under load, it adds up');
$load = load_start('postgres');
ok(load_runs('postgres'), 'a load');
sql('DROP EXTENSION plinth CASCADE; CREATE EXTENSION plinth');
$load->kill_kill;
ok(PlinthTest::answers($node), 'the extension dropped and created under load');
is(sql("SELECT count(user_id) FROM mine, plinth.session_verify(token)"), 0, 'nobody is signed in by what was before');
ok(adds_up(), 'it adds up');

# ---- not more than so many ------------------------------------------------------------------
$node->append_conf('postgresql.conf', "plinth.sessions_per_user = 2\nplinth.argon2_memory = '8MB'\n");
$node->reload;
ok(wait_until(sub { sql('SHOW plinth.sessions_per_user') eq '2' }), 'a limit of sessions');
sql("SELECT plinth.sign_up('few\@app.test', 'correct horse')");
my @few = map { sql("SELECT token FROM plinth.sign_in('few\@app.test', 'correct horse')") } 1 .. 4;
is(sql("SELECT string_agg((user_id IS NOT NULL)::int::text, '' ORDER BY n) FROM unnest(ARRAY['" . join("','", @few) . "']) WITH ORDINALITY t (token, n), plinth.session_verify(token)"),
	'0011', 'the oldest end');
is(sql("SELECT count(*) FROM plinth.audit_entries WHERE action = 'plinth.session_revoke' AND metadata ->> 'reason' = 'too many sessions'"), 2, 'as the audit says');
is(sql("SELECT count(token) FROM (SELECT u.id FROM plinth.users u WHERE email = 'few\@app.test') u, plinth.session_impersonate(u.id, 'ticket')"), 1, 'an impersonator is none of them');
is(sql("SELECT count(*) FROM plinth.sessions JOIN plinth.users u ON u.id = user_id WHERE email = 'few\@app.test' AND revoked_at IS NULL"), 3, 'and ends nobody');
sql("DELETE FROM plinth.users WHERE email = 'few\@app.test'");

# ---- deletion ----------------------------------------------------------------------------
sql("DROP TABLE mine; $sessions");
sql("INSERT INTO plinth.refresh_tokens (session_id, salt, token_hash) SELECT id, plinth.random_bytes(32), plinth.random_bytes(32) FROM mine WHERE s <= 10;"
	  . " UPDATE plinth.sessions SET expires_at = now() - interval '31 days' WHERE id IN (SELECT id FROM mine WHERE s <= 5);"
	  . " UPDATE plinth.sessions SET revoked_at = now() - interval '31 days', revoked_reason = 'x' WHERE id IN (SELECT id FROM mine WHERE s = 6);"
	  . " UPDATE plinth.sessions SET revoked_at = now() - interval '29 days', revoked_reason = 'x' WHERE id IN (SELECT id FROM mine WHERE s = 7)");
$node->restart;
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.sessions') eq '994' }), 'what ended long ago is deleted');
is(sql('SELECT count(*) FROM plinth.refresh_tokens'), 4, 'with its refresh tokens');
$node->stop;
done_testing();
