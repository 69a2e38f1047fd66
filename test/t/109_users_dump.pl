# Users, identities, keys, adoption and requests through pg_dump and restore;
# and what a role without rights can do with all of it.
use strict;
use warnings;

use PlinthTest qw(psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\nplinth.session_flush_interval = '200ms'\n");

sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }

sql(q{
	CREATE TABLE members (id serial PRIMARY KEY, email text, name text);
	INSERT INTO members (email) VALUES ('adopted1@dump.test'), ('adopted2@dump.test');
	SELECT plinth.users_adopt('members', 'id', '{"email": "email", "full_name": "name"}');
	SELECT plinth.user_create('ann@dump.test', 'ann', password => 'correct horse', tier => 'pro');
	SELECT plinth.user_ban(id, 'infinity', 'spam') FROM plinth.user_create('ben@dump.test');
	SELECT plinth.user_delete(id) FROM plinth.user_create('cee@dump.test');
	SELECT plinth.identity_link(id, 'clerk', 'user_1', '{"a": 1}') FROM plinth.users WHERE username = 'ann';
	SELECT plinth.rate_limit_create('keys', 1000, '1 hour');
	INSERT INTO plinth.verification_requests (user_id, kind) SELECT id, 'advocate' FROM plinth.users WHERE username = 'ann';
});
sql("SELECT plinth.jwt_issuer_set('https://clerk.test', '{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"1\", \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}', provider => 'clerk', create_users => true)");
my $ann = sql(q{SELECT id FROM plinth.users WHERE username = 'ann'});
my $key = sql("SELECT key FROM plinth.api_key_create('ci', '{posts:read}', limit_policy => 'keys', user_id => '$ann')");

# ---- when a key was used, by the worker ----------------------------------------------
sql("BEGIN READ ONLY; SELECT plinth.context_begin('$key'); COMMIT");
ok(wait_until(sub { sql('SELECT count(*) FROM plinth.api_keys WHERE last_used_at > created_at') == 1 }), 'a use in READ ONLY is written');

# ---- dumped and restored --------------------------------------------------------------
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restores');
my @tables = (
	'users', 'passwords', 'identities', 'user_key_sources', 'api_keys', 'verification_requests', 'jwt_issuers');
foreach my $table (@tables)
{
	my $rows = "SELECT t::text FROM plinth.$table t ORDER BY 1";
	isnt(sql($rows), '', "$table: there is something");
	is(sql($rows, 'restored'), sql($rows), "$table: restored as it was");
}
is(sql("BEGIN; SELECT plinth.context_begin('$key') = '$ann', plinth.current_aal(); COMMIT", 'restored'), 't|1', 'the key opens the restored database');
is(sql(q{SELECT status FROM plinth.sign_in('ann', 'correct horse')}, 'restored'), 'ok', 'the password too');
sql(q{INSERT INTO members (email) VALUES ('adopted3@dump.test'); UPDATE members SET name = 'One' WHERE id = 1; DELETE FROM members WHERE id = 2}, 'restored');
is(sql(q{SELECT user_key, full_name, deleted_at IS NOT NULL FROM plinth.users WHERE email LIKE 'adopted%' ORDER BY email}, 'restored'),
	"1|One|f\n2||t\n3||f", 'the adopted table goes on');
sql("SELECT plinth.user_key_source()", 'restored');
is(sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'plinth_user_key%'", 'restored'), 0, 'until it is let go');
is(sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'plinth_user_key%'"), 2, 'only there');

# ---- a role without rights, and a client's ----------------------------------------------
sql(q{CREATE ROLE stranger LOGIN; CREATE ROLE client LOGIN NOINHERIT IN ROLE anon, authenticated; GRANT USAGE ON SCHEMA plinth TO stranger, client});
my @verbs = (
	'user_create()', "user_update('$ann', role => 'admin')", "user_verify('$ann')", "user_lock('$ann')", "user_unlock('$ann')", "user_ban('$ann')",
	"user_unban('$ann')", "user_delete('$ann')", "user_restore('$ann')", "user_get('$ann')", 'users_search()', "users_import('[]')",
	"user_import('x\@dump.test')", "identity_link('$ann', 'clerk', 'x')", "identity_unlink('$ann', 'clerk', 'user_1')", "identity_user('clerk', 'user_1')",
	"identity_sync('clerk', 'user_1')", "api_key_create('x', user_id => '$ann')", "api_keys_list('$ann')", "api_key_revoke('$ann')", "verification_approve('$ann')",
	"verification_reject('$ann', 'x')", 'verifications_search()', 'me()', "user_update_me('x')", 'user_delete_me()', "verification_request('x')",
	'verifications_list()', "identity_unlink_me('clerk', 'user_1')", "user_key_source()", "users_adopt('members', 'id', '{}')", 'api_key_flush()');
sub outcome
{
	my ($role, $verb) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET ROLE $role;\nSELECT plinth.$verb", extra_params => [ '-q' ]);
	return $ret == 0 && $err eq '' ? "ok: $out" : $err =~ /ERROR:  (\w+)/ ? $1 : $err;
}
is(join(' ', grep { outcome('stranger', $_) ne '42501' } @verbs), '', 'a role without rights gets 42501');
is(join(' ', grep { outcome('anon', $_) ne '42501' } @verbs), '', 'anon too');
is(join(' ', map { "$_ " . outcome('authenticated', $_) } grep { outcome('authenticated', $_) !~ /^(PT401|42501)$/ } @verbs), '', 'authenticated without a context gets PT401 or 42501');
foreach my $table (@tables)
{
	psql_fails_like($node, 'postgres', "SET ROLE stranger; SELECT * FROM plinth.$table", qr/permission denied/, "$table is not for strangers");
}
is(sql('SET ROLE authenticated; SELECT (SELECT count(*) FROM plinth.users), (SELECT count(*) FROM plinth.identities), (SELECT count(id) FROM plinth.api_keys), (SELECT count(*) FROM plinth.verification_requests)'),
	'0|0|0|0', 'nor has a client without a context a row');
psql_fails_like($node, 'postgres', 'SET ROLE authenticated; SELECT * FROM plinth.api_keys', qr/permission denied/, 'the hash of a key is nobody\'s');

# ---- the extension goes, and the application stays ---------------------------------------
sql('DROP EXTENSION plinth CASCADE');
is(sql("INSERT INTO members (email) VALUES ('later\@dump.test') RETURNING id"), 3, 'the adopted table works without the extension');
done_testing();
