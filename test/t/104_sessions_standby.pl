# Sessions on a hot standby: exact as replayed, and from shared memory once it
# is promoted, in the middle of a run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until);
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = node('primary');
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE mine (s int PRIMARY KEY, token text, id uuid);
INSERT INTO plinth.users (username) VALUES ('ann');
INSERT INTO mine SELECT s, 'pls_' || plinth.base64url_encode(plinth.random_bytes(32)) FROM generate_series(1, 20) s;
INSERT INTO plinth.sessions (user_id, token_hash, expires_at, idle_timeout)
	SELECT u.id, plinth._blake2b(plinth.base64url_decode(substr(token, 5))), now() + interval '1 day', '1 hour' FROM mine, plinth.users u;
UPDATE mine SET id = s.id FROM plinth.sessions s WHERE s.token_hash = plinth._blake2b(plinth.base64url_decode(substr(token, 5)));
SQL
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub good
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT count(user_id) FROM mine, plinth.session_verify(token)');
}

is(good($primary), 20, 'good on the primary');
$primary->wait_for_catchup($standby, 'replay');
is(good($standby), 20, 'and on the standby') for 1 .. 2;
is($standby->safe_psql('postgres', 'SELECT entries FROM plinth.stat_sessions'), 0, 'which keeps nothing');
foreach my $change (
	[ 'SELECT plinth.session_revoke(id) FROM mine WHERE s = 1',                                   19 ],
	[ 'DELETE FROM plinth.sessions WHERE id = (SELECT id FROM mine WHERE s = 2)',                 18 ],
	[ "UPDATE plinth.users SET status = 'locked'",                                                0 ],
	[ "UPDATE plinth.users SET status = 'active'",                                                18 ])
{
	$primary->safe_psql('postgres', $change->[0]);
	$primary->wait_for_catchup($standby, 'replay');
	is(good($standby), $change->[1], "replayed: $change->[0]");
}

# One who asks all the while, in one connection, through the promotion.
my ($out, $err) = ('', '');
my $load = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-v', 'ON_ERROR_STOP=1', '-c', <<'SQL' ], '<', '/dev/null', '>', \$out, '2>', \$err);
DO $$
DECLARE
	answer int;
BEGIN
	LOOP
		SELECT count(user_id) INTO answer FROM mine, plinth.session_verify(token) WHERE s = 3;
		EXIT WHEN answer <> 1;
	END LOOP;
END
$$
SQL
ok(wait_until(sub { $standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' OR query LIKE '%plinth>' AND pid <> pg_backend_pid()") > 0 }), 'a client that asks');
$standby->promote;
is(good($standby), 18, 'promoted, it goes on');
cmp_ok($standby->safe_psql('postgres', 'SELECT entries FROM plinth.stat_sessions'), '>=', 18, 'and keeps them');
ok(wait_until(sub { my $a = $standby->safe_psql('postgres', 'SELECT hits FROM plinth.stat_sessions'); $a > 100 }), 'for the client too');
$standby->safe_psql('postgres', 'SELECT plinth.session_revoke(id) FROM mine WHERE s = 3');
$load->finish;
is($err, '', 'which hears of a revocation');
is(good($standby), 17, 'as everybody');
$standby->stop;
$primary->stop;
done_testing();
