# A client that imitates the extension's setting, token, claims or role cannot
# become another user: one test for each way to try.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => <<'CONF');
plinth.argon2_memory = '8MB'
plinth.argon2_ops = 1
CONF

# Mallory is an ordinary user; the login role is the one that an application's
# pool uses.  The notes are an application's table with a policy.
$node->safe_psql('postgres', <<'SQL');
GRANT CREATE ON SCHEMA public TO authenticator, authenticated;
CREATE TABLE notes (owner uuid NOT NULL, body text);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (owner = plinth.current_user_id());
GRANT SELECT, INSERT ON notes TO PUBLIC;
SQL
my %user = map { $_ => $node->safe_psql('postgres',
		"SELECT user_id FROM plinth.sign_up('$_\@test.test', '${_}s password')") } qw(alice mallory);
my (%token, %session);
foreach my $name (sort keys %user)
{
	($token{$name}, $session{$name}) = split /\|/, $node->safe_psql('postgres',
		"SELECT token, session_id FROM plinth.sign_in('$name\@test.test', '${name}s password')");
	$node->safe_psql('postgres', "INSERT INTO notes VALUES ('$user{$name}', 'of $name')");
}
my $begin_mallory = "SELECT plinth.context_begin('$token{mallory}');";
my $whoami = "SELECT coalesce((SELECT string_agg(body, ',') FROM notes), 'nothing'), coalesce(plinth.current_user_id()::text, 'nobody');";
my $is_mallory = "of mallory|$user{mallory}";
my $is_nobody = 'nothing|nobody';

# What mallory would put into the setting, if she could: alice's own value.
my $forged = $node->safe_psql('postgres',
	"BEGIN; SELECT plinth.context_begin('$token{alice}'); RESET ROLE; SHOW plinth.context; COMMIT");
$forged = (split /\n/, $forged)[-1];
like($forged, qr/\Q$user{alice}\E/, 'a superuser can read the setting');
my $literal = "'" . ($forged =~ s/'/''/gr) . "'";

# Runs as the client; the last line of the output, and errors.
sub client
{
	my ($sql, %opts) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0,
		connstr => $node->connstr('postgres') . ' user=' . ($opts{user} || 'authenticator') . " $opts{connection}");
	return ((split /\n/, $out)[-1] // '', $err);
}
sub is_client
{
	my ($sql, $expected, $error, $name, %opts) = @_;
	my ($out, $err) = client($sql, connection => '', %opts);
	is($out, $expected, $name);
	if (defined $error) { like($err, $error, "$name: refused"); }
	else { is($err, '', "$name: without an error"); }
	return;
}

my $denied = qr/permission denied to set parameter "plinth.context"/;
my $guarded = qr/(setting|parameter) "plinth.context" cannot be (set|reset)/;
my $other = qr/another request context was begun in this transaction/;

is_client("BEGIN; $begin_mallory $whoami COMMIT;", $is_mallory, undef, 'mallory is herself');
is_client($whoami, $is_nobody, undef, 'and nobody without a context');

# ---- the setting ------------------------------------------------------------
is_client("SET plinth.context = $literal; $whoami", $is_nobody, $denied, 'SET');
is_client("BEGIN; SET LOCAL plinth.context = $literal; ROLLBACK; $whoami", $is_nobody, $denied, 'SET LOCAL');
is_client("SELECT set_config('plinth.context', $literal, false); $whoami", $is_nobody, $denied, 'set_config');
is_client("UPDATE pg_settings SET setting = $literal WHERE name = 'plinth.context'; $whoami", $is_nobody, undef, 'pg_settings');
is_client("SHOW plinth.context; $whoami", $is_nobody, qr/permission denied|must be superuser/, 'SHOW');
is_client("SELECT count(*) FROM pg_settings WHERE name = 'plinth.context';", '0', undef, 'reading pg_settings');
is_client("ALTER ROLE authenticator SET plinth.context = $literal; $whoami", $is_nobody, $denied, 'ALTER ROLE SET');
is_client("ALTER ROLE authenticator IN DATABASE postgres SET plinth.context = $literal; $whoami", $is_nobody, $denied, 'ALTER ROLE IN DATABASE SET');
is_client("CREATE FUNCTION f() RETURNS text LANGUAGE sql SET plinth.context = $literal RETURN plinth.current_user_id()::text; $whoami",
	$is_nobody, $denied, 'a function with SET');
is_client("BEGIN; $begin_mallory RESET ALL; $whoami", $is_mallory, undef, 'RESET ALL in a context');
is_client("BEGIN; $begin_mallory SAVEPOINT a; RESET plinth.context; ROLLBACK TO a; $whoami", $is_mallory, $denied, 'RESET in a context');
is_client("BEGIN; $begin_mallory COMMIT; DISCARD ALL; $whoami", $is_nobody, undef, 'DISCARD ALL after one');
foreach my $connection ("options='-c plinth.context=$user{alice}'", "options='--plinth.context=$user{alice}'", "options='-c plinth.context='")
{
	my ($out, $err) = client($whoami, connection => $connection);
	isnt($out, "of alice|$user{alice}", "$connection: not alice");
	like($err, $denied, "$connection: refused");
}

# The same with the right to set the parameter, and as a superuser.
$node->safe_psql('postgres', 'GRANT SET, ALTER SYSTEM ON PARAMETER plinth.context TO authenticator');
foreach my $user ('authenticator', 'postgres')
{
	my $seen = $user eq 'authenticator' ? $is_nobody : 'of alice,of mallory|nobody';
	my $seen_by_mallory = $user eq 'authenticator' ? $is_mallory : "of alice,of mallory|$user{mallory}";
	my $reading = $user eq 'authenticator' ? qr/must be superuser or have privileges of pg_read_all_settings|permission denied to examine/ : $guarded;
	my @as = (user => $user);
	is_client("SET plinth.context = $literal; $whoami", $seen, $guarded, "SET as $user", @as);
	is_client("SELECT set_config('plinth.context', $literal, true); $whoami", $seen, $guarded, "set_config as $user", @as);
	# It is nothing already, which 15 lets pass.
	is((client("SELECT set_config('plinth.context', NULL, false); $whoami", connection => '', @as))[0], $seen, "set_config to nothing as $user");
	is_client("ALTER ROLE $user SET plinth.context = $literal; $whoami", $seen, $guarded, "ALTER ROLE SET as $user", @as);
	is_client("ALTER ROLE $user IN DATABASE postgres SET plinth.context = $literal; $whoami", $seen, $guarded, "ALTER ROLE IN DATABASE SET as $user", @as);
	is_client("ALTER SYSTEM SET plinth.context = $literal; $whoami", $seen, qr/cannot be changed/, "ALTER SYSTEM as $user", @as);
	is_client("CREATE FUNCTION f() RETURNS text LANGUAGE sql SET plinth.context = $literal RETURN 1; $whoami",
		$seen, $guarded, "a function with SET as $user", @as);
	is_client("CREATE FUNCTION f() RETURNS text LANGUAGE sql SET plinth.context = '' RETURN 1; $whoami",
		$seen, $guarded, "a function with SET to nothing as $user", @as);
	is_client("BEGIN; $begin_mallory RESET ROLE; SAVEPOINT a; CREATE FUNCTION f() RETURNS text LANGUAGE sql SET plinth.context FROM CURRENT RETURN 1; ROLLBACK TO a; $whoami",
		$seen_by_mallory, $reading, "a function with SET FROM CURRENT as $user", @as);
	foreach my $reset ('RESET plinth.context', 'SET plinth.context TO DEFAULT', "SET LOCAL plinth.context = ''",
		"SELECT set_config('plinth.context', NULL, true)", "SELECT set_config('plinth.context', $literal, true)")
	{
		is_client("BEGIN; $begin_mallory RESET ROLE; SAVEPOINT a; $reset; ROLLBACK TO a; $whoami", $seen_by_mallory, $guarded,
			"in a context, as $user: " . ($reset =~ s/, '.*'/, .../r), @as);
	}
	my ($out, $err) = client($whoami, connection => "options='-c plinth.context=$user{alice}'", @as);
	like($err, $guarded, "PGOPTIONS as $user: refused");
	isnt($out, "of alice|$user{alice}", "PGOPTIONS as $user: not alice");
}
$node->safe_psql('postgres', 'REVOKE ALL ON PARAMETER plinth.context FROM authenticator');

# In the configuration file it has no effect.
$node->append_conf('postgresql.conf', "plinth.context = $literal");
$node->reload;
is_client($whoami, $is_nobody, undef, 'configuration file, reloaded');
$node->restart;
is_client($whoami, $is_nobody, undef, 'configuration file, restarted');
is_client("BEGIN; $begin_mallory $whoami COMMIT;", $is_mallory, undef, 'contexts still work');
$node->adjust_conf('postgresql.conf', 'plinth.context', undef);
$node->restart;

# What a role's or a database's settings held before plinth was loaded.
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
$node->safe_psql('postgres', "ALTER ROLE authenticator SET plinth.context = $literal");
$node->safe_psql('postgres', "ALTER ROLE authenticator IN DATABASE postgres SET plinth.context = $literal");
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'plinth'");
$node->restart;
my ($out, $err) = client($whoami, connection => '');
is($out, $is_nobody, 'a setting of the role from before plinth was loaded');
my $parallel = <<'SQL';
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;
SQL
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE many AS SELECT i FROM generate_series(1, 1000) i;
GRANT SELECT ON many TO PUBLIC;
ALTER TABLE many SET (parallel_workers = 2);
ANALYZE many;
CREATE FUNCTION worker_user(i int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000 AS
$$ BEGIN RETURN coalesce(plinth.current_user_id()::text, 'nobody'); END $$;
SQL
my $explained = $node->safe_psql('postgres', "$parallel SET ROLE authenticator; EXPLAIN (ANALYZE, VERBOSE) SELECT count(*) FROM many WHERE worker_user(i) <> 'nobody'");
like($explained, qr/Workers Launched: 2/, 'a query that runs in parallel workers');
my $count_users = "SELECT count(*) FROM many WHERE worker_user(i) <> 'nobody';";
my $count_mallory = "SELECT count(*) FROM many WHERE worker_user(i) = '$user{mallory}';";
($out, $err) = client("$parallel $count_users", connection => '');
is($out, 0, 'nor in its parallel workers');
$node->safe_psql('postgres', 'ALTER ROLE authenticator RESET ALL');
$node->safe_psql('postgres', 'ALTER ROLE authenticator IN DATABASE postgres RESET ALL');
is_client("$parallel BEGIN; $begin_mallory $count_mallory", 1000, undef, 'parallel workers are mallory with her');
is_client("$parallel BEGIN; $begin_mallory COMMIT; $count_users", 0, undef, 'and nobody after her');

# ---- another identity in the same transaction -------------------------------
my $begin_alice = "SELECT plinth.context_begin('$token{alice}');";
is_client("BEGIN; $begin_mallory SAVEPOINT a; $begin_alice ROLLBACK TO a; $whoami", $is_mallory, $other, 'a second token');
is_client("BEGIN; SAVEPOINT a; $begin_mallory ROLLBACK TO a; $begin_alice ROLLBACK TO a; $whoami", $is_nobody, $other,
	'a second token after the first was rolled back');
is_client(<<"SQL", $is_mallory, undef, 'a second token in an exception block');
BEGIN; $begin_mallory
DO \$\$ BEGIN PERFORM plinth.context_begin('$token{alice}'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$;
$whoami
SQL
is_client("BEGIN; $begin_alice COMMIT; $whoami", $is_nobody, undef, 'the next transaction of the same connection');
is_client("BEGIN; $begin_alice ROLLBACK; BEGIN; $begin_mallory $whoami", $is_mallory, undef, 'the next request of the same connection');
is_client("BEGIN; $begin_alice DECLARE c CURSOR WITH HOLD FOR $whoami COMMIT; BEGIN; $begin_mallory $whoami", $is_mallory, undef,
	'a cursor that was held');

# ---- tokens -------------------------------------------------------------------
my $invalid = qr/session is not valid/;
my $hash = $node->safe_psql('postgres', "SELECT encode(token_hash, 'hex'), plinth.base64url_encode(token_hash) FROM plinth.sessions WHERE id = '$session{alice}'");
my ($hex, $base64url) = split /\|/, $hash;
my %guess = (
	'her id' => $user{alice}, 'her session\'s id' => $session{alice}, 'the stored hash' => $hex, 'the stored hash as a token' => "pls_$base64url",
	'nothing' => '', 'a token cut short' => substr($token{alice}, 0, -1), 'a token with more' => "$token{alice}A", 'another case' => lc $token{alice},
	'a token with another last character' => substr($token{alice}, 0, -1) . (substr($token{alice}, -1) eq 'A' ? 'E' : 'A'),
	'a wildcard' => 'pls_%', 'SQL' => "pls_' OR true --", 'spaces' => " $token{alice} ");
foreach my $what (sort keys %guess)
{
	my $quoted = $guess{$what} =~ s/'/''/gr;
	is_client("SELECT plinth.context_begin('$quoted'); $whoami", $is_nobody, $invalid, "$what for a token");
}
is_client("SELECT plinth.context_begin(NULL); $whoami", $is_nobody, $invalid, 'NULL for a token');

# ---- claims and headers -------------------------------------------------------
foreach my $claims (qq({"sub": "$user{alice}", "role": "authenticated"}), qq({"sub": "$user{alice}", "sid": "$session{alice}", "role": "plinth_admin"}))
{
	is_client("SELECT set_config('request.jwt.claims', '$claims', false); $whoami", $is_nobody, undef, "claims $claims");
	is_client("BEGIN; $begin_mallory SELECT set_config('request.jwt.claims', '$claims', true); $whoami", $is_mallory, undef, "claims $claims in a context");
}
is_client("SELECT set_config('request.jwt.claim.sub', '$user{alice}', false); $whoami", $is_nobody, undef, 'a claim of its own');
is_client(qq(SELECT set_config('request.headers', '{"authorization": "Bearer $session{alice}", "x-user-id": "$user{alice}"}', false); $whoami),
	$is_nobody, undef, 'headers');

# ---- roles --------------------------------------------------------------------
is_client("BEGIN; $begin_mallory RESET ROLE; $whoami", $is_mallory, undef, 'RESET ROLE keeps the user');
is_client("BEGIN; $begin_mallory SET ROLE anon; $whoami", $is_mallory, undef, 'SET ROLE anon keeps the user');
is_client("SET ROLE authenticated; $whoami", $is_nobody, undef, 'a role alone is nobody');
is_client("SET ROLE plinth_owner; $whoami", $is_nobody, qr/permission denied to set role "plinth_owner"/, 'SET ROLE plinth_owner');
is_client("SET ROLE plinth_admin; $whoami", $is_nobody, qr/permission denied to set role "plinth_admin"/, 'SET ROLE plinth_admin');
is_client("SET SESSION AUTHORIZATION plinth_owner; $whoami", $is_nobody, qr/permission denied to set session authorization/, 'SET SESSION AUTHORIZATION');
is_client("SET row_security = off; $whoami", '', qr/would be affected by row-level security/, 'row_security = off');

# ---- names that stand before ours ------------------------------------------------
is_client(<<"SQL", $is_mallory, undef, 'functions of the same name elsewhere');
CREATE FUNCTION pg_temp.current_user_id() RETURNS uuid LANGUAGE sql RETURN '$user{alice}'::uuid;
CREATE FUNCTION public.current_user_id() RETURNS uuid LANGUAGE sql RETURN '$user{alice}'::uuid;
SET search_path = pg_temp, public, plinth;
BEGIN; $begin_mallory $whoami
SQL
is_client("CREATE FUNCTION plinth.current_user_id(int) RETURNS uuid LANGUAGE sql RETURN '$user{alice}'::uuid; $whoami", $is_nobody,
	qr/permission denied for schema plinth/, 'functions in our schema');
is_client("CREATE OR REPLACE FUNCTION plinth.current_user_id() RETURNS uuid LANGUAGE sql RETURN '$user{alice}'::uuid; $whoami", $is_nobody,
	qr/permission denied for schema plinth|must be owner/, 'our functions replaced');
is_client("CREATE FUNCTION fix() RETURNS void LANGUAGE c AS '\$libdir/plinth', 'plinth_base_context_fix'; $whoami", $is_nobody,
	qr/permission denied for language c/, 'our library called directly');
is_client("CREATE TEMP TABLE sessions (LIKE plinth.sessions); SET search_path = pg_temp, plinth, public; SELECT plinth.context_begin('pls_x'); $whoami",
	$is_nobody, qr/permission denied for table sessions|session is not valid/, 'tables of the same name');

# ---- our tables -------------------------------------------------------------------
my %statement = (
	'reading all users' => 'SELECT 1 / count(*)::int FROM plinth.users WHERE id <> plinth.current_user_id()',
	'reading passwords' => 'SELECT * FROM plinth.passwords',
	'reading hashes of tokens' => 'SELECT token_hash FROM plinth.sessions',
	'writing sessions' => "INSERT INTO plinth.sessions (user_id, token_hash, expires_at) VALUES ('$user{alice}', '\\x00', 'infinity')",
	'moving sessions' => "UPDATE plinth.sessions SET user_id = '$user{alice}'",
	'writing passwords' => "UPDATE plinth.passwords SET phc = (SELECT phc FROM plinth.passwords WHERE user_id = '$user{mallory}')",
	'changing the e-mail of a user' => "UPDATE plinth.users SET email = 'mallory2\@test.test' WHERE id = '$user{alice}'",
	'giving oneself a role' => "UPDATE plinth.users SET role = 'admin'",
	'a trigger on our table' => 'CREATE TRIGGER t BEFORE UPDATE ON plinth.users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'a policy on our table' => 'CREATE POLICY all_of_them ON plinth.users USING (true)');
foreach my $what (sort keys %statement)
{
	is_client("BEGIN; $begin_mallory SAVEPOINT a; $statement{$what}; ROLLBACK TO a; $whoami", $is_mallory,
		qr/permission denied|must be owner|division by zero/, $what);
}
is_client("BEGIN; $begin_mallory UPDATE plinth.users SET full_name = 'hacked' WHERE id = '$user{alice}'; $whoami", $is_mallory, undef,
	'updating another user');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.users WHERE full_name = 'hacked'"), '0', 'changes nothing');

# ---- the end of a transaction in other ways -----------------------------------------
is_client(<<"SQL", $is_nobody, undef, 'COMMIT in a procedure');
DO \$\$ BEGIN PERFORM set_config('client_min_messages', 'error', false); PERFORM plinth.context_begin('$token{alice}'); COMMIT; END \$\$;
$whoami
SQL
($out, $err) = client("BEGIN; $begin_mallory PREPARE TRANSACTION 'p'; $whoami", connection => '');
is($out, $is_nobody, 'PREPARE TRANSACTION');
$node->psql('postgres', "ROLLBACK PREPARED 'p'");

# A backend that is killed takes its context with it.
my $killed = $node->background_psql('postgres', on_error_die => 0);
my $pid = $killed->query('SELECT pg_backend_pid()');
$killed->query("BEGIN; $begin_alice");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
is_client($whoami, $is_nobody, undef, 'after a backend in a context was terminated');
eval { $killed->quit };

done_testing();
