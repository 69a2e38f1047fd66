# Users, sessions and audit entries beyond one server's quiet life: nothing
# secret in what the server writes, crash, standby, dump and restore, claims.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $password = 'correct-horse-battery-staple';
my $cheap = "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n";
my $statements = -e `pg_config --sharedir` =~ s/\n//r . '/extension/pg_stat_statements.control';
my $node = PlinthTest::node('main', conf => <<"CONF");
$cheap
shared_preload_libraries = 'plinth@{[ $statements ? ',pg_stat_statements' : '' ]}'
log_min_duration_statement = 0
log_min_error_statement = error
log_error_verbosity = verbose
log_parameter_max_length = 0
log_parameter_max_length_on_error = -1
log_lock_waits = on
deadlock_timeout = 50ms
CONF

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub verify { my ($n, $token) = @_; return $n->safe_psql('postgres', "SELECT user_id FROM plinth.session_verify('$token')"); }

# What is bound is logged before our functions run (docs/security.md), hence log_parameter_max_length = 0.

sub crash
{
	$node->kill9;
	ok(PlinthTest::start_again($node), 'killed and started');
	return;
}

# ---- no secret in log, pg_stat_activity, pg_stat_statements ------------------
sql('CREATE EXTENSION pg_stat_statements') if $statements;
my $user = sql("SELECT user_id FROM plinth.sign_up('ann\@test.test', '$password', 'ann')");
my $token = sql("SELECT token FROM plinth.sign_in('ann', '$password', label => 'first')");
like($token, qr/^pls_/, 'signed in');
is(verify($node, $token), $user, 'and the token is good');
my $other = "pls_" . ('B' x 42) . 'A';

foreach my $statement (
	"SELECT plinth.sign_up('bad', '$password')",
	"SELECT plinth.sign_up('b\@test.test', '$password', 'x')",
	"SELECT plinth.sign_in(NULL, '$password')",
	"SELECT plinth.sign_in('ann', '$password', repeat('x', 300))",
	"BEGIN READ ONLY; SELECT plinth.sign_in('ann', '$password')",
	"SELECT plinth.context_begin('$other')",
	"SELECT plinth.context_begin('$token'), 1 / (random() * 0)::int",
	"PREPARE s (text, text) AS SELECT plinth.sign_in('ann', \$1), plinth.context_begin(\$2); EXECUTE s ('$password', '$other')",
	"DO \$\$ BEGIN PERFORM plinth.sign_in('ann', '$password'); PERFORM 1 / 0; END \$\$")
{
	my ($rc) = $node->psql('postgres', $statement);
	isnt($rc, 0, substr($statement, 0, 40) =~ s/\s+/ /gr . '... fails');
}
sql("SELECT status FROM plinth.sign_in('ann', '$password-wrong')");
my $script = PostgreSQL::Test::Utils::tempdir() . '/bind.sql';
append_to_file($script, <<'SQL');
SELECT plinth.sign_in('ann', :pw);
SELECT plinth.session_verify(:tok);
SELECT plinth.context_begin(:bad);
SQL
foreach my $mode (qw(simple extended prepared))
{
	$node->command_checks_all(
		[ 'pgbench', '-n', '-t', '1', '-M', $mode, '-f', $script, '-D', "pw='$password'", '-D', "tok='$token'",
			'-D', "bad='$other'", 'postgres' ],
		2, [], [qr/session is not valid/], "pgbench -M $mode");
}

# While it runs: held at the user's row.
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM plinth.users WHERE username = 'ann' FOR UPDATE");
my $waiter = $node->background_psql('postgres');
$waiter->query_until(qr/^$/, "SELECT status FROM plinth.sign_in('ann', '$password');\n\\echo ready\n");
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'hidden'"),
	'pg_stat_activity shows that something is hidden');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query ~ 'staple'"), '0', 'and not what');
ok(PlinthTest::wait_until(sub { slurp_file($node->logfile) =~ /still waiting for/ }), 'waiting for locks is logged');
$holder->query_safe('COMMIT');
$holder->quit;
$waiter->quit;

my $log = slurp_file($node->logfile);
like($log, qr/session is not valid/, 'errors are logged');
like($log, qr/duration: /, 'durations are logged');
foreach my $secret ($password, substr($token, 4), substr($other, 4), '\$argon2')
{
	my @lines = grep { /$secret/ } split /\n/, $log;
	is("@lines", '', 'the log has no ' . substr($secret, 0, 8));
}
is(sql("SELECT count(*) FROM pg_stat_statements WHERE query ~ 'staple|pls_[A-Za-z]|argon2id'"), '0', 'nor has pg_stat_statements') if $statements;
is(sql("SELECT count(*) FROM plinth.audit_entries e WHERE e::text ~ 'staple|pls_[A-Za-z]|argon2id|ann\@test'"), '0', 'nor the audit');

# ---- kill -9 -----------------------------------------------------------------
$token = sql("SELECT token FROM plinth.sign_in('ann', '$password')");
my $entries = sql('SELECT count(*) FROM plinth.audit_entries');
crash();
is(verify($node, $token), $user, 'a session outlives kill -9');
is(sql('SELECT count(*) FROM plinth.audit_entries'), $entries, 'so do audit entries');
sql("UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'test' WHERE id = (SELECT session_id FROM plinth.session_verify('$token'))");
is(verify($node, $token), '', 'revoked by hand');
crash();
is(verify($node, $token), '', 'so does that it is revoked');

# ---- a hot standby -------------------------------------------------------------
$token = sql("SELECT token FROM plinth.sign_in('ann', '$password')");
$node->backup('b1');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b1', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is(verify($standby, $token), $user, 'standby: the session is good');
is($standby->safe_psql('postgres', "BEGIN; SELECT plinth.context_begin('$token'); SELECT current_user, email FROM plinth.users; COMMIT"),
	"$user\nauthenticated|ann\@test.test", 'standby: a context begins, and policies follow it');
foreach my $statement ("plinth.sign_in('ann', '$password')", "plinth.sign_up('c\@test.test', '$password')",
	"plinth.audit_record('a')", "plinth.session_revoke_all('$user')")
{
	my ($rc, $out, $err) = $standby->psql('postgres', "SELECT $statement");
	like($err, qr/cannot execute .* in a read-only transaction/, 'standby: no ' . substr($statement, 0, 18));
}
is(sql("SELECT plinth.session_revoke_all('$user') > 0"), 't', 'all revoked');
$node->wait_for_catchup($standby);
is(verify($standby, $token), '', 'standby: and there too, once replayed');
$token = sql("SELECT token FROM plinth.sign_in('ann', '$password')");
$node->wait_for_catchup($standby);
$standby->promote;
is(verify($standby, $token), $user, 'promoted: the session is good');
like($standby->safe_psql('postgres', "SELECT token FROM plinth.sign_in('ann', '$password')"), qr/^pls_/, 'promoted: signing in works');
$standby->stop;

# ---- dump and restore ------------------------------------------------------------
sql('CREATE DATABASE app');
$node->safe_psql('app', <<"SQL");
CREATE EXTENSION plinth;
SELECT plinth.sign_up('ann\@test.test', '$password', 'ann', 'Ann', '{"a": 1}');
SELECT plinth.sign_up('ben\@test.test', '$password');
SELECT plinth.sign_in('ann', '$password');
SELECT plinth.audit_record('app.entry', 'thing:1', 'denied', '{"b": 2}');
CREATE TABLE threads (id int PRIMARY KEY, author_id uuid NOT NULL REFERENCES plinth.users (id));
INSERT INTO threads SELECT 1, id FROM plinth.users WHERE username = 'ann';
SQL
my $state = <<'SQL';
SELECT 'user', md5(string_agg(u::text, '|' ORDER BY id)) FROM plinth.users u;
SELECT 'password', md5(string_agg(p::text, '|' ORDER BY user_id)) FROM plinth.passwords p;
SELECT 'audit', md5(string_agg(e::text, '|' ORDER BY id)) FROM plinth.audit_entries e;
SELECT 'thread', t.id, u.username FROM threads t JOIN plinth.users u ON u.id = t.author_id;
SELECT relname, relkind, relrowsecurity, relowner::regrole, relacl FROM pg_class WHERE relnamespace = 'plinth'::regnamespace AND relname ~ '^(audit|users|passwords|sessions)' ORDER BY 1;
SELECT conrelid::regclass, conname, contype, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid::regclass::text ~ '^plinth.(audit|users|passwords|sessions)' ORDER BY 1, 2;
SELECT tgrelid::regclass, tgname, tgenabled, tgparentid <> 0, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid::regclass::text ~ '^plinth.(audit|users)' AND NOT tgisinternal ORDER BY 1, 2;
SELECT polrelid::regclass, polname, pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY 1, 2;
SELECT c.relname, d.deptype FROM pg_class c LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' WHERE c.relname ~ '^audit_entries' AND c.relkind IN ('r', 'p') ORDER BY 1;
SQL
my $before = $node->safe_psql('app', $state);
like($before, qr/\naudit_entries_\d{4}_\d\d\|\n/, 'a partition is no member of the extension');
my $dir = PostgreSQL::Test::Utils::tempdir();
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/app.dump", 'app' ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-f', "$dir/app.sql", 'app' ], 'pg_dump as text');
unlike(slurp_file("$dir/app.sql"), qr/COPY plinth\.sessions/, 'sessions are not dumped');

# Into another database of this cluster, and into a cluster that has no role of ours.
sql('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', "$dir/app.dump" ], 'pg_restore');
my $fresh = PlinthTest::node('fresh', extension => 0, conf => $cheap);
$fresh->safe_psql('postgres', 'CREATE DATABASE restored');
$fresh->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', "$dir/app.sql" ], 'restored elsewhere by psql');
foreach my $place ([ $node, 'same cluster' ], [ $fresh, 'another cluster' ])
{
	my ($n, $where) = @$place;
	is($n->safe_psql('restored', $state), $before, "$where: users, passwords, audit and their rules are as they were");
	is($n->safe_psql('restored', 'SELECT count(*) FROM plinth.sessions'), '0', "$where: nobody is signed in");
	is($n->safe_psql('restored', "SELECT status FROM plinth.sign_in('ANN', '$password')"), 'ok', "$where: signing in works");
	is($n->safe_psql('restored', "SELECT status FROM plinth.sign_up('BEN\@test.test', '$password')"), 'email_taken', "$where: uniqueness holds");
	is($n->safe_psql('restored', "SELECT count(DISTINCT tableoid) FROM plinth.audit_entries"), '1', "$where: entries go on in the same partition");
	foreach my $change ('DELETE FROM plinth.audit_entries', 'TRUNCATE plinth.audit_entries', "UPDATE plinth.audit_entries SET action = 'x'",
		"DO \$\$ BEGIN EXECUTE format('TRUNCATE %s', (SELECT min(tableoid::regclass::text) FROM plinth.audit_entries)); END \$\$")
	{
		my ($rc, $out, $err) = $n->psql('restored', $change);
		like($err, qr/can be neither changed nor removed/, "$where: " . substr($change, 0, 20));
	}
}
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/again.dump", 'restored' ], 'dumped again');
sql('CREATE DATABASE again');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'again', "$dir/again.dump" ], 'and restored again');
$fresh->stop;

# ---- DROP EXTENSION leaves nothing, and it can be made anew --------------------
$node->safe_psql('again', 'DROP TABLE threads; DROP EXTENSION plinth');
is($node->safe_psql('again', "SELECT count(*) FROM pg_class WHERE relnamespace = 'plinth'::regnamespace"), '0', 'DROP EXTENSION takes the partitions too');
is($node->safe_psql('again', "CREATE EXTENSION plinth; SELECT status FROM plinth.sign_up('ann\@test.test', '$password')"), 'ok', 'and CREATE EXTENSION begins anew');

# ---- claims of a trusted authenticator ------------------------------------------
sql('CREATE ROLE gateway LOGIN; CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA plinth TO gateway, stranger');
$node->append_conf('postgresql.conf', "plinth.trusted_authenticators = 'someone, gateway'");
$node->reload;
PlinthTest::wait_until(sub { sql('SHOW plinth.trusted_authenticators') =~ /gateway/ });
my $session = '01a1fd39-0810-735f-aa5e-27ed0a1feafb';

sub who
{
	my ($role, $claims, %opts) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', ($opts{before} || '') . "SET request.jwt.claims = '$claims';"
		  . "SELECT plinth.current_user_id(), plinth.current_session_id(), plinth.current_aal(), plinth.has_role('editor'), plinth.has_role('x')" .
		  ($opts{after} || ''), extra_params => [ '-U', $role ]);
	return $rc == 0 ? $out =~ s/.*\n//r : $err;
}
is(who('gateway', qq({"sub": "$user", "sid": "$session", "aal": "aal2", "roles": ["x,editor", "zed", "editor"]})), "$user|$session|2|t|f", 'claims are believed');
is(who('gateway', qq({"sub": "$user", "session_id": "$session", "aal": 3, "role": "editor"})), "$user|$session|3|f|f", 'session_id and a number; role is no role of ours');
is(who('gateway', qq({"sub": "$user", "aal": 4, "roles": "editor"})), "$user||1|f|f", 'what is no level and no list');
is(who('gateway', qq({"sub": "user_2abc"})), '||0|f|f', 'a subject that is no id of ours');
is(who('gateway', qq({"sub": ["$user"]})), '||0|f|f', 'a subject that is no string');
is(who('gateway', qq({"sid": "$session"})), '||0|f|f', 'no subject');
is(who('gateway', '[]'), '||0|f|f', 'no object');
is(who('gateway', ''), '||0|f|f', 'no claims');
like(who('gateway', '{'), qr/invalid input syntax for type json/, 'malformed claims are an error');
is(who('stranger', qq({"sub": "$user"})), '||0|f|f', 'not from others');
is(who('postgres', qq({"sub": "$user"})), '||0|f|f', 'not from a superuser who is not named');
is(who('postgres', qq({"sub": "$user"}), before => 'SET ROLE gateway;'), '||0|f|f', 'nor after SET ROLE');
$token = sql("SELECT token FROM plinth.sign_in('ann', '$password')");
sql('GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO gateway');
is($node->safe_psql('postgres', "BEGIN; SELECT set_config('request.jwt.claims', '{\"sub\": \"$session\"}', true) IS NULL;"
	  . "SELECT plinth.current_user_id(); SELECT plinth.context_begin('$token'); SELECT plinth.current_user_id(); COMMIT",
	extra_params => [ '-U', 'gateway' ]), "f\n$session\n$user\n$user", 'a context that was begun counts more');
is($node->safe_psql('postgres', "SELECT set_config('request.jwt.claims', '{\"sub\": \"$session\"}', false) IS NULL;"
	  . "SELECT plinth.current_user_id(); SELECT set_config('request.jwt.claims', '{\"sub\": \"$user\"}', false) IS NULL; SELECT plinth.current_user_id();",
	extra_params => [ '-U', 'gateway' ]), "f\n$session\nf\n$user", 'other claims, another user');

$node->stop;
done_testing();
