# Roles and permissions through a dump, on a standby, past its promotion, and
# when they come by logical replication.
use strict;
use warnings;

use PlinthTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $plugins = PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth, pgoutput'\n" : '';
my $primary = PlinthTest::node('primary', conf => "plinth.argon2_memory = '8MB'\nplinth.argon2_ops = 1\n$plugins");

my $make = <<'SQL';
SELECT plinth.role_create('reader', 'reads', permissions => '{post:read}'), plinth.role_create('writer', inherits => '{reader}', permissions => '{post:write}');
SELECT plinth.sign_up('ann@test.test', 'a long password', 'ann');
SELECT plinth.user_role_grant(id, 'writer', '2100-01-01', 'why'), plinth.user_permission_grant(id, 'draft:*', reason => 'why') FROM plinth.users;
SQL
$primary->safe_psql('postgres', $make);
my $token = $primary->safe_psql('postgres', "SELECT token FROM plinth.sign_in('ann', 'a long password')");

sub may
{
	my ($node, $permission) = @_;
	return $node->safe_psql('postgres',
		"BEGIN READ ONLY; SELECT plinth.context_begin('$token'); SELECT plinth.has_permission('$permission'), plinth.has_role('reader'); COMMIT") =~ s/.*\n//r;
}

# ---- dumped and restored -------------------------------------------------------------
my $rows = join(' UNION ALL ', map { "SELECT '$_ ' || t::text FROM plinth.$_ t" }
	  qw(roles role_inherits permissions role_permissions user_roles user_permissions)) . ' ORDER BY 1';
my $dump = $primary->basedir . '/roles.dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $primary->connstr('postgres') ], 'pg_dump');
$primary->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $primary->connstr('restored'), $dump ], 'pg_restore');
is($primary->safe_psql('restored', $rows), $primary->safe_psql('postgres', $rows), 'what was dumped is restored');

# ---- on a standby ------------------------------------------------------------------
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
is(may($standby, 'post:read'), 't|t', 'a standby knows what is permitted');

# One backend, which has it in its memory.
my $session = $standby->background_psql('postgres');
my $ask = "BEGIN READ ONLY; SELECT plinth.context_begin('$token') IS NULL; SELECT plinth.has_permission('post:read'); COMMIT;";
is($session->query($ask), "f\nt", 'and keeps it in a backend');
$primary->safe_psql('postgres', "SELECT plinth.role_revoke('reader', '{post:read}')");
$primary->wait_for_catchup($standby, 'replay');
is($session->query($ask), "f\nf", 'until a change is replayed');

$standby->promote;
ok(PlinthTest::wait_until(sub { $standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f' }), 'promoted');
is($session->query($ask), "f\nf", 'the same backend after the promotion');
$standby->safe_psql('postgres', "SELECT plinth.role_grant('reader', '{post:read}')");
is($session->query($ask), "f\nt", 'which then hears of changes');
is($session->query($ask), "f\nt", 'and keeps them');
$session->quit;
$standby->stop;

# ---- by logical replication -----------------------------------------------------------
$primary->safe_psql('postgres', 'CREATE DATABASE subscriber');
$primary->safe_psql('subscriber', "CREATE EXTENSION plinth; $make");
my $sub_token = $primary->safe_psql('subscriber', "SELECT token FROM plinth.sign_in('ann', 'a long password')");
$primary->safe_psql('postgres', <<'SQL');
SELECT plinth.role_grant('reader', '{post:read}');
CREATE PUBLICATION roles FOR TABLE plinth.role_permissions;
SELECT pg_create_logical_replication_slot('roles', 'pgoutput');
SQL
$primary->safe_psql('subscriber', "CREATE SUBSCRIPTION roles CONNECTION " . PlinthTest::quote_literal($primary->connstr('postgres'))
	. " PUBLICATION roles WITH (create_slot = false, slot_name = 'roles', copy_data = false)");
$session = $primary->background_psql('subscriber');
$ask =~ s/\Q$token\E/$sub_token/;
is($session->query($ask), "f\nt", 'a backend of the subscriber');
$primary->safe_psql('postgres', "SELECT plinth.role_revoke('reader', '{post:read}')");
ok(PlinthTest::wait_until(sub { $session->query($ask) eq "f\nf" }), 'hears of what is applied');
$session->quit;
$primary->safe_psql('subscriber', 'DROP SUBSCRIPTION roles');

$primary->stop;
done_testing();
