# api_install: again and again, beside functions of others, by who is no
# superuser, dumped and restored, and taken away.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main');
sub sql { my ($sql, $database) = @_; return $node->safe_psql($database || 'postgres', $sql); }
my $functions = q(SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.provolatile, p.prosecdef, p.proacl,
	md5(p.prosrc), md5(obj_description(p.oid, 'pg_proc')), p.proowner::regrole FROM pg_proc p WHERE p.pronamespace = 'api'::regnamespace ORDER BY 1);

sql('CREATE SCHEMA api');
my $count = sql("SELECT plinth.api_install('api')");
my $installed = sql($functions);
is($count, sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'api'::regnamespace"), 'as many functions as it says');
is(sql("SELECT plinth.api_install('api')"), $count, 'installing again');
is(sql($functions), $installed, 'changes nothing');

# ---- rules that each of them follows ------------------------------------------------
my %none = (
	'SECURITY DEFINER' => 'p.prosecdef',
	'for PUBLIC' => "EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)",
	'without search_path' => "NOT coalesce(p.proconfig, '{}') \@> ARRAY['search_path=pg_catalog, pg_temp']",
	'without a summary' => "coalesce(split_part(obj_description(p.oid, 'pg_proc'), E'\\n', 1), '') !~ '^[A-Z].*\\.\$'",
	'not for authenticated' => "NOT has_function_privilege('authenticated', p.oid, 'EXECUTE')",
	'a member of the extension' => "EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')",
	'that DROP EXTENSION would leave' => "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'x')",
	'overloaded' => 'EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = p.pronamespace AND o.proname = p.proname AND o.oid <> p.oid)',
	'VARIADIC' => 'p.provariadic <> 0',
	'a bare record' => "p.prorettype = 'record'::regtype AND p.proargmodes IS NULL",
	'with nameless arguments' => "p.pronargs > 0 AND (p.proargnames IS NULL OR '' = ANY (p.proargnames))");
is(sql("SELECT string_agg(p.proname, ' ') FROM pg_proc p WHERE p.pronamespace = 'api'::regnamespace AND ($none{$_})"), '', "none is $_") foreach sort keys %none;
is(sql("SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p WHERE p.pronamespace = 'api'::regnamespace AND p.provolatile <> 'v'"),
	'api_keys_list jwks me my_identities my_sessions users_search verifications_list verifications_search', 'readers are STABLE');

# Each body names what there is: called with NULLs, none fails for what does not exist.
foreach my $call (split /\n/, sql("SELECT format('api.%I(%s)', proname, (SELECT string_agg(format('NULL::%s', t::regtype), ', ' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY u (t, n)))
	FROM pg_proc WHERE pronamespace = 'api'::regnamespace"))
{
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nBEGIN; SET LOCAL ROLE authenticated; SELECT * FROM $call");
	unlike($err, qr/ERROR:  (?!PT)/, $call);
}

# ---- options ---------------------------------------------------------------------------
is(sql("SELECT plinth.api_install('api', '{sign_in}')"), sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'api'::regnamespace"), 'fewer');
is(sql("SELECT to_regproc('api.me') IS NULL"), 't', 'what is not wanted goes');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api', '{everything}')", qr/areas must be of account, admin/, 'an unknown area');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api', NULL)", qr/areas must be of/, 'NULL');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api', same_site => 'None')", qr/same_site must be Lax or Strict/, 'another same_site');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('nowhere')", qr/schema "nowhere" does not exist/, 'no such schema');
is(sql(qq(CREATE SCHEMA "My Api"; SELECT plinth.api_install('My Api', same_site => 'Strict') = $count)), 't', 'a schema whose name needs quotes');
like(sql(q(SELECT prosrc FROM pg_proc WHERE pronamespace = '"My Api"'::regnamespace AND proname = 'sign_in')), qr/, 'Strict'\)/, 'same_site is in the body');
is(sql("SELECT plinth.api_uninstall('My Api')"), $count, 'uninstalled');
sql('DROP SCHEMA "My Api"');
sql("SELECT plinth.api_install('api')");
is(sql($functions), $installed, 'all again');

# ---- rights that were given since stay ---------------------------------------------------
sql('CREATE ROLE service; GRANT EXECUTE ON FUNCTION api.jwks() TO service');
sql("SELECT plinth.api_install('api')");
is(sql("SELECT has_function_privilege('service', 'api.jwks()', 'EXECUTE')"), 't', 'a right given by hand stays');
sql('REVOKE EXECUTE ON FUNCTION api.jwks() FROM service');

# ---- an older version -----------------------------------------------------------------------
sql(<<'SQL');
DROP FUNCTION api.me();
CREATE FUNCTION api.me(old_argument int) RETURNS int LANGUAGE sql AS 'SELECT 1';
UPDATE plinth.api_functions SET arguments = 'old_argument int', result = 'int', body = 'SELECT 1' WHERE schema_name = 'api' AND name = 'me';
CREATE FUNCTION api.gone() RETURNS int LANGUAGE sql AS 'SELECT 2';
INSERT INTO plinth.api_functions VALUES ('api', 'gone', '', 'int', 'SELECT 2', '0.0.1'), ('api', 'dropped', '', 'int', 'SELECT 3', '0.0.1');
SQL
is(sql("SELECT plinth.api_install('api')"), $count, 'an older version');
is(sql($functions), $installed, 'is replaced, and what it had more is gone');
is(sql("SELECT count(*) FROM plinth.api_functions"), $count, 'from the list too');

# ---- functions of others ----------------------------------------------------------------------
sql("CREATE FUNCTION api.sign_in(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'");
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api')", qr/schema "api" has functions that are not of api_install, or were changed: sign_in/, 'an overload of somebody else');
sql('DROP FUNCTION api.sign_in(text); CREATE OR REPLACE FUNCTION api.jwks() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN 1; END $$');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api')", qr/or were changed: jwks/, 'one that was changed');
is(sql("SELECT api.jwks()"), '1', 'is as it was');
is(sql("SELECT plinth.api_uninstall('api')"), $count - 1, 'and stays when the others go');
is(sql("SELECT proname FROM pg_proc WHERE pronamespace = 'api'::regnamespace"), 'jwks', 'alone');
is(sql("SELECT plinth.api_uninstall('api')"), '0', 'nothing more to do');
psql_fails_like($node, 'postgres', "SELECT plinth.api_install('api')", qr/not of api_install, or were changed: jwks/, "it is somebody else's now");
sql('DROP FUNCTION api.jwks()');

# ---- by whom ---------------------------------------------------------------------------------
sql("CREATE ROLE app LOGIN; GRANT plinth_admin TO app; GRANT CREATE, USAGE ON SCHEMA api TO app; CREATE ROLE other LOGIN");
psql_fails_like($node, 'postgres', "SET ROLE other; SELECT plinth.api_install('api')", qr/permission denied for function api_install|permission denied for schema plinth/, 'not by anybody');
is($node->safe_psql('postgres', "SELECT plinth.api_install('api')", extra_params => [ '-U', 'app' ]), $count, 'by an administrator who may create in the schema');
is(sql("SELECT DISTINCT proowner::regrole FROM pg_proc WHERE pronamespace = 'api'::regnamespace"), 'app', 'whose they are');
sql('REVOKE CREATE ON SCHEMA api FROM app');
sql("SELECT plinth.api_uninstall('api')");
psql_fails_like($node, 'postgres', "SET ROLE app; SELECT plinth.api_install('api')", qr/permission denied for schema api/, 'not without that right');
is(sql("SELECT plinth.api_install('api')"), $count, 'by a superuser');
is(sql('SELECT count(*) FROM plinth.api_functions'), $count, 'a failure leaves nothing');

# ---- through a dump ----------------------------------------------------------------------------
my $before = sql($functions) . sql('SELECT * FROM plinth.api_functions ORDER BY name');
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'dumped');
sql('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], 'restored');
is(sql($functions, 'restored') . sql('SELECT * FROM plinth.api_functions ORDER BY name', 'restored'), $before, 'as it was');
is(sql("SELECT plinth.api_install('api')", 'restored'), $count, 'and ours');
sql('DROP EXTENSION plinth', 'restored');
is(sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'api'::regnamespace", 'restored'), '0', 'they go with the extension');
is(sql("CREATE EXTENSION plinth; SELECT plinth.api_install('api')", 'restored'), $count, 'and come with it');

$node->stop('fast');
done_testing();
