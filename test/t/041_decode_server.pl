# A server that is not set up for logical decoding: said by sync_table, with
# the hint that mends it, and by the decoder when it is too late for that.
use strict;
use warnings;

use PlinthTest qw(wait_until);
use Test::More;

my $node = PlinthTest::node('server', conf => "wal_level = replica\nmax_replication_slots = 1\nmax_wal_senders = 1");
my $other_node_setting = PlinthTest::knows_setting('output_plugin_libraries');
$node->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)');
PlinthTest::sync_server($node, 'away', 'mongodb://127.0.0.1:1/', 'nowhere');

my $begin = time();
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub refused
{
	my ($pattern, $name) = @_;
	PlinthTest::psql_fails_like($node, 'postgres', "SELECT plinth.sync_table('t', 'away')", $pattern, $name);
	return;
}
sub decoder { return sql("SELECT state || ': ' || coalesce(message, '') FROM plinth.stat_workers WHERE service = 'decoder'"); }

refused(qr/requires "wal_level" to be "logical".*HINT:.*wal_level = logical/s, 'wal_level');

# As after a restore into such a server.
sql("INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)"
	  . " VALUES ('u', 'u', current_user::regrole, 'away', 'u', '{id}')");
ok(wait_until(sub { decoder() =~ /^misconfigured: .*wal_level/ }), 'the decoder says it too');
my $lines = () = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /WARNING:  plinth's decoder .*wal_level/g;
cmp_ok($lines, '>=', 1, 'in the log');
cmp_ok($lines, '<=', 1 + (time() - $begin) / 60, 'once a minute');
sql("DELETE FROM plinth.sync_mappings");
ok(wait_until(sub { decoder() eq '' }), 'and ends when nobody wants it');

$node->append_conf('postgresql.conf', 'wal_level = logical');
$node->restart;
sql("SELECT pg_create_physical_replication_slot('mine')");
refused(qr/all 1 replication slots are in use.*HINT:.*max_replication_slots/s, 'no free slot');
sql("INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)"
	  . " VALUES ('u', 'u', current_user::regrole, 'away', 'u', '{id}')");
ok(wait_until(sub { decoder() =~ /^misconfigured: all 1 replication slots/ }), 'the decoder says it too');
sql("SELECT pg_drop_replication_slot('mine')");
ok(wait_until(sub { decoder() =~ /^(streaming|waiting)/ }), 'and goes on by itself when one is free');
sql("DELETE FROM plinth.sync_mappings");
ok(wait_until(sub { sql('SELECT count(*) FROM pg_replication_slots') == 0 }), 'its slot goes with the last mapping');

SKIP:
{
	skip 'output_plugin_libraries is not in this PostgreSQL', 3 unless $other_node_setting;
	$node->append_conf('postgresql.conf', "output_plugin_libraries = 'pgoutput, plinth_not'");
	$node->reload;
	ok(wait_until(sub { sql('SHOW output_plugin_libraries') =~ /plinth_not/ }), 'reloaded');
	refused(qr/"output_plugin_libraries" does not list plinth.*HINT:.*Add plinth/s, 'output_plugin_libraries');
}

$node->stop;
done_testing();
