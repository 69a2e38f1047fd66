# Every attempt leaves an entry, whatever becomes of its transaction; and none
# leaves two.  What a statement that was prepared before, or cannot be analyzed,
# shows of a secret.
use strict;
use warnings;

use AuditTest;
use PlinthTest qw(node psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $listed = PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth'" : '';
my $node = node('attempts', root_key => 1, conf => <<"CONF");
$listed
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
log_min_duration_statement = 0
log_parameter_max_length_on_error = -1
CONF

sub sql { return $node->safe_psql('postgres', $_[0]); }

# The entries of an action since the last look, oldest first.
my $since = sql('SELECT plinth.uuid_v7()');
sub entries
{
	my ($action, $count) = @_;
	my $of = "FROM plinth.audit_entries WHERE id > '$since' AND action = 'plinth.$action'";
	wait_until(sub { sql("SELECT count(*) $of") >= $count });
	AuditTest::caught_up($node);
	my $out = sql("SELECT result, metadata ->> 'reason', metadata -> 'rolled_back', source_lsn IS NOT NULL $of ORDER BY id");
	$since = sql('SELECT plinth.uuid_v7()');
	return $out;
}

my $ann = sql("SELECT user_id FROM plinth.sign_up('ann\@attempts.test', 'correct horse', 'ann')");
sql("SELECT plinth.rate_limit_alter('plinth.lockout_$_', enabled => false)") foreach 1 .. 3;
sql("SELECT plinth.rate_limit_alter('plinth.$_', enabled => false)") foreach qw(sign_in_address sign_in_account);

# ---- without events -----------------------------------------------------------------
sql("BEGIN; SELECT plinth.sign_in('ann', 'wrong'); ROLLBACK; SELECT plinth.sign_in('ann', 'wrong')");
is(sql("SELECT count(*) FROM plinth.audit_entries WHERE action = 'plinth.sign_in'"), '1', 'without events, what was rolled back is not there');
ok(AuditTest::enable($node), 'events');
$since = sql('SELECT plinth.uuid_v7()');

# ---- with them ------------------------------------------------------------------------
my $row   = 'failure|invalid_credentials||f';
my $event = 'failure|invalid_credentials|true|t';
sql("SELECT plinth.sign_in('ann', 'wrong')");
is(entries('sign_in', 1), $row, 'an attempt that commits is a row');
sql("BEGIN; SELECT plinth.sign_in('ann', 'wrong'); ROLLBACK");
is(entries('sign_in', 1), $event, 'one that is rolled back is an event');
is(sql("SELECT resource = 'user:$ann', db_role = 'postgres', actor_user_id IS NULL FROM plinth.audit_entries ORDER BY id DESC LIMIT 1"), 't|t|t', 'as the row was');
sql("BEGIN; SELECT plinth.sign_in('ann', 'correct horse'); ROLLBACK");
is(entries('sign_in', 1), 'success||true|t', 'the right password too');
is(sql('SELECT count(*) FROM plinth.sessions'), '0', 'though there is no session');
psql_fails_like($node, 'postgres', "SELECT plinth.sign_in('ann', 'wrong'), 1 / (random() * 0)::int", qr/division by zero/, 'an error after it');
is(entries('sign_in', 1), $event, 'is the same');
sql(<<'SQL');
BEGIN;
SAVEPOINT a;
SELECT plinth.sign_in('ann', 'wrong');
SAVEPOINT b;
SELECT plinth.sign_in('ann', 'wrong');
RELEASE b;
ROLLBACK TO a;
SELECT plinth.sign_in('nobody', 'wrong');
COMMIT;
SQL
is(entries('sign_in', 3), "$event\n$event\n$row", 'savepoints');
sql("DO \$\$ BEGIN PERFORM plinth.sign_in('ann', 'wrong'); RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END \$\$");
is(entries('sign_in', 1), $event, 'an exception that is caught');
psql_fails_like($node, 'postgres', "BEGIN; SELECT plinth.sign_in('ann', 'wrong'); PREPARE TRANSACTION 'p'", qr/cannot PREPARE/, 'no PREPARE TRANSACTION');
is(entries('sign_in', 1), $event, 'which rolls back');

# Whoever holds the transaction open, and goes.
my $guesser = $node->background_psql('postgres');
my $pid = $guesser->query_safe('SELECT pg_backend_pid()');
$guesser->query_safe("BEGIN; SELECT plinth.sign_in('ann', 'wrong')");
sql("SELECT pg_terminate_backend($pid)");
is(entries('sign_in', 1), $event, 'a connection that is ended');
eval { $guesser->quit };

# Very many in one transaction: memory is bounded, and all are there.
sql("BEGIN; SELECT count(plinth.sign_in('ann', repeat('x', 2000))) FROM generate_series(1, 3); ROLLBACK");
is(entries('sign_in', 3), join("\n", ($event) x 3), 'three');
sql("BEGIN; SELECT count(plinth.email_verify('plo_' || i)) FROM generate_series(1, 1500) i; ROLLBACK");
my $all = entries('email_verify', 1500);
is(scalar(split /\n/, $all), 1500, '1500 are all there');
is(scalar(grep { $_ eq 'failure|invalid_token||t' } split /\n/, $all), 500, 'those beyond a thousand at once');
sql("BEGIN; SELECT count(plinth.email_verify('plo_' || i)) FROM generate_series(1, 1500) i; COMMIT");
is(scalar(grep { /\|f$/ } split /\n/, entries('email_verify', 1500)), 1000, 'committed: a thousand rows, and the rest');

# A loop that rolls each back keeps none of them.
my $kept = "(SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext')";
my $grown = sql(<<"SQL");
DO \$\$
DECLARE
	before bigint;
BEGIN
	FOR i IN 1 .. 1500 LOOP
		IF i = 100 THEN
			before := $kept;
		END IF;
		BEGIN
			PERFORM plinth.email_verify('plo_x');
			RAISE 'no';
		EXCEPTION WHEN raise_exception THEN
		END;
	END LOOP;
	PERFORM pg_catalog.set_config('attempts.grown', ($kept - before)::text, false);
END
\$\$;
SELECT current_setting('attempts.grown');
SQL
cmp_ok($grown, '<', 200_000, 'of 1500 that were rolled back one by one, memory holds nothing');
is(scalar(grep { $_ eq 'failure|invalid_token|true|t' } split /\n/, entries('email_verify', 1500)), 1500, 'and each is there');

# ---- other attempts ----------------------------------------------------------------------
my ($token) = sql("SELECT token FROM plinth.sign_in('ann', 'correct horse')");
foreach my $try (
	[ 'password_change', "SELECT status FROM plinth.password_change('wrong', 'another horse')", 'invalid_credentials' ],
	[ 'session_confirm', "SELECT plinth.session_confirm('wrong')", 'invalid_credentials' ],
	[ 'password_reset', "SELECT plinth.password_reset('plo_x', 'another horse')", 'invalid_token' ],
	[ 'magic_link_sign_in', "SELECT status FROM plinth.magic_link_sign_in('plo_x')", 'invalid_credentials' ],
	[ 'email_code_sign_in', "SELECT status FROM plinth.email_code_sign_in('ann\@attempts.test', '000000')", 'invalid_credentials' ],
	[ 'sign_up', "SELECT status FROM plinth.sign_up('ann\@attempts.test', 'correct horse')", 'email_taken' ])
{
	sql("BEGIN; SELECT plinth.context_begin('$token') IS NULL; RESET ROLE; $try->[1]; ROLLBACK");
	like(entries($try->[0], 1), qr/^(failure|denied)\|$try->[2]\|true\|t$/, $try->[0]);
}

# ---- an EXECUTE, and what cannot be analyzed ------------------------------------------------
my $session = $node->background_psql('postgres', on_error_stop => 0, on_error_die => 0);
$pid = $session->query('SELECT pg_backend_pid()');
sub shown { return sql("SELECT query FROM pg_stat_activity WHERE pid = $pid"); }
$session->query('PREPARE s (text, text) AS SELECT plinth.sign_in($1, $2)');
$session->query('PREPARE harmless (text, text) AS SELECT $1 || $2');
foreach my $statement (
	"EXECUTE s ('ann', 'Secr3t', 'too many')", "EXPLAIN EXECUTE s ('Secr3t')", "CREATE TEMP TABLE t AS EXECUTE s ('Secr3t')", "execute\"s\"('Secr3t')",
	"EXPLAIN CREATE TABLE t AS EXECUTE s ('Secr3t')",
	"SELECT plinth.sign_in('ann', 'Secr3t', 1, 2, 3, 4, 5)", "SELECT plinth.sign_in('ann', 'Secr3t' 1)", "DO \$\$ BEGIN EXECUTE 'EXECUTE s (''Secr3t'')'; END \$\$",
	"EXPLAIN SELECT plinth.sign_in('ann', 'Secr3t')", "PREPARE other AS SELECT plinth.sign_in('ann', 'Secr3t')")
{
	$session->query($statement);
	is(shown(), '<hidden by plinth>', "pg_stat_activity: $statement");
}
$session->query("EXECUTE harmless ('Visible', 'too', 'many')");
like(shown(), qr/Visible/, 'another prepared statement is shown');
$session->query("BEGIN;\n");
$session->query("SAVEPOINT a;\n");
$session->query("SELECT plinth.sign_in('ann', 'Secr3t', 1, 2, 3, 4, 5)");
is(shown(), '<hidden by plinth>', 'in a savepoint');
$session->query('ROLLBACK');
eval { $session->quit };
# Before it runs.
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(141)');
my $waiter = $node->background_psql('postgres', on_error_stop => 0, on_error_die => 0);
$pid = $waiter->query('SELECT pg_backend_pid()');
$waiter->query_until(qr/started/, "\\echo started\nSELECT pg_advisory_lock_shared(141), plinth.secret_verify('Secr3t', 'x');\n");
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'advisory'") eq '1' }), 'a statement waits before its function runs');
is(shown(), '<hidden by plinth>', 'and is not shown');
# What was prepared by the protocol shows its text anew when it is bound and executed.
my $script = $node->basedir . '/prepared.sql';
append_to_file($script, "SELECT pg_advisory_lock_shared(141), plinth.secret_verify('Secr3t', 'x');\n");
my $said = '';
my $client = IPC::Run::start([ 'pgbench', '-n', '-t', '1', '-M', 'prepared', '-f', $script, $node->connstr('postgres') . ' application_name=prepared' ], '>&', \$said);
my $of = "FROM pg_stat_activity WHERE application_name = 'prepared' AND wait_event = 'advisory'";
ok(wait_until(sub { sql("SELECT count(*) $of") eq '1' }), 'a prepared one waits as well');
is(sql("SELECT query $of"), '<hidden by plinth>', 'and is not shown either');
$holder->query_safe('SELECT pg_advisory_unlock(141)');
eval { $_->finish } foreach $client;
eval { $_->quit } foreach $holder, $waiter;
# A parallel worker has a text of its own.
sql('CREATE TABLE many AS SELECT generate_series(1, 10000) AS i');
my $leader = $node->background_psql('postgres', on_error_stop => 0, on_error_die => 0);
$pid = $leader->query('SELECT pg_backend_pid()');
$leader->query('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET jit = off');
$leader->query_until(qr/started/, <<'SQL');
\echo started
SELECT CASE WHEN i = -1 THEN plinth.secret_hash('Secr3t') END, count(*) FROM many WHERE pg_sleep(0.05) IS NULL GROUP BY 1;
SQL
ok(wait_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = $pid AND query = '<hidden by plinth>'") ne '0' }), 'a parallel worker does not show it');
sql("SELECT pg_cancel_backend($pid)");
eval { $leader->quit };
# A function's own statement that fails, and what the function was called with.
sql(<<'SQL');
CREATE FUNCTION wrapped(secret text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE format('SELECT plinth.secret_hash(%L, 1, 2)', secret); RETURN ''; END $$
SQL
$node->psql('postgres', $_) foreach "DO \$\$ BEGIN EXECUTE 'SELECT plinth.secret_hash(''Secr3t'', 1, 2)'; END \$\$", "SELECT wrapped('Secr3t')";
my $log = slurp_file($node->logfile);
like($log, qr/STATEMENT:  EXECUTE harmless \('Visible'/, 'nor hidden in the log');
unlike($log, qr/Secr3t/, 'nothing secret in the log');

$node->stop;
done_testing();
