# Leases: never more holders than allowed, and what ends them: the end of a
# process in any way, full memory, a dropped database; each server its own.
use strict;
use warnings;

use PlinthTest qw(psql_ok psql_fails_like wait_until);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PlinthTest::node('main', conf => "plinth.limits_memory = '256kB'\n");
my $held = "SELECT coalesce(sum(held), 0) FROM plinth.stat_leases";
my $free = sub { wait_until(sub { $node->safe_psql('postgres', $held) eq '0' }) };

# ---- never more than three ------------------------------------------------------
# Whoever holds a lease also takes one of three advisory locks; a fourth holder would find none.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE outcome (result text);
CREATE FUNCTION work(use_binding text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    id uuid := plinth.lease_acquire('crowd', 'k', 3, '1 hour', use_binding);
BEGIN
    IF id IS NULL THEN
        RETURN 'none left';
    END IF;
    FOR i IN 1 .. 3 LOOP
        IF pg_try_advisory_lock(1, i) THEN
            PERFORM pg_sleep(0.001);
            PERFORM pg_advisory_unlock(1, i);
            PERFORM plinth.lease_release(id);
            RETURN 'held';
        END IF;
    END LOOP;
    RETURN 'too many';
END
$$;
SQL
foreach my $binding (qw(session commit transaction none))
{
	my $script = PostgreSQL::Test::Utils::tempdir() . "/$binding.sql";
	append_to_file($script, "INSERT INTO outcome VALUES (work('$binding'));\n");
	$node->command_ok([ 'pgbench', '-n', '-c', '16', '-j', '2', '-t', '100', '-f', $script, 'postgres' ], "16 clients, $binding");
}
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT result, ', ' ORDER BY result) FROM outcome"), 'held, none left', 'never more than three held it');
ok($free->(), 'all came back');

# ---- the end of a process ----------------------------------------------------------
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe("SELECT plinth.lease_acquire('job', 'k', 1)");
is($node->safe_psql('postgres', "SELECT plinth.lease_acquire('job', 'k', 1) IS NULL"), 't', 'held by another connection');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
is($node->safe_psql('postgres', "SELECT plinth.lease_acquire('job', 'k', 1) IS NOT NULL"), 't', 'free as soon as that is terminated');
eval { $session->quit };

$session = $node->background_psql('postgres');
$session->query_safe("BEGIN; SELECT plinth.lease_acquire('job', 'k', 1, NULL, 'transaction'), plinth.lease_acquire('job', 'l', 1, '1 hour', 'none')");
$pid = $session->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
is($node->safe_psql('postgres', 'SELECT name, key FROM plinth.stat_leases'), 'job|l', 'terminated in a transaction: what is bound to nothing stays');
eval { $session->quit };

$session = $node->background_psql('postgres');
$pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe("SELECT plinth.lease_acquire('job', 'm', 1)");
is($node->safe_psql('postgres', $held), '2', 'two are held');
my $before = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
kill 'KILL', $pid;
eval { $session->quit };
ok(wait_until(sub { (PlinthTest::ask($node, 'postgres', $held) // '') eq '0' }), 'kill -9: all are free after the crash restart');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $before, 'of the same postmaster');

# ---- memory ---------------------------------------------------------------------------
# 1/16 of 256 kB holds some dozens; what is full says so.
my $fill = "DO \$\$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM plinth.lease_acquire('fill', i::text, 1, %s, 'none'); END LOOP; END \$\$";
my $full = qr/no memory is left for leases.*HINT:  Raise "plinth.limits_memory"/s;
psql_fails_like($node, 'postgres', sprintf($fill, "'1 hour'"), $full, 'full memory is an error');
my $some = $node->safe_psql('postgres', $held);
cmp_ok($some, '>=', 4, "with $some leases");
psql_fails_like($node, 'postgres', sprintf($fill, "'1 hour'"), $full, 'and stays one');
is($node->safe_psql('postgres', "SELECT count(*) FROM plinth.stat_leases WHERE held <> 1"), '0', 'which changed nothing');
psql_ok($node, 'postgres', 'DROP EXTENSION plinth; CREATE EXTENSION plinth', 'the extension created anew');
is($node->safe_psql('postgres', $held), '0', 'knows none of the old leases');
psql_ok($node, 'postgres', "DO \$\$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM plinth.lease_acquire('again', i::text, 1, '1 us', 'none'); PERFORM pg_sleep(0.0001); END LOOP; END \$\$",
	'but has their memory, and that of leases whose time is over');
is($node->safe_psql('postgres', "SELECT plinth.lease_release(plinth.lease_acquire('many', 'k', 1000000)) FROM generate_series(1, 1000) OFFSET 999"), 't', 'nothing is lost by taking and giving back');

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION plinth');
is($node->safe_psql('second', "SELECT plinth.lease_acquire('one', 'k', 1, '1 hour', 'none') IS NOT NULL"), 't', 'a database has its own');
$node->psql('second', sprintf($fill, "'1 hour'"));
my $probe = <<'SQL';
CREATE FUNCTION probe() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        PERFORM plinth.lease_release(plinth.lease_acquire('probe', i::text, 1, '1 hour', 'none'));
    END LOOP;
    RETURN 'room for all';
EXCEPTION WHEN configuration_limit_exceeded THEN
    RETURN 'full';
END
$$;
SQL
$node->safe_psql('postgres', $probe);
is($node->safe_psql('postgres', 'SELECT probe()'), 'full', 'but the memory is of all');
$node->safe_psql('postgres', 'DROP DATABASE second');
is($node->safe_psql('postgres', 'SELECT probe()'), 'room for all', 'which a dropped database gives back');

# ---- a standby ---------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', $held), '0', 'a standby has leases of its own');
is($standby->safe_psql('postgres', "BEGIN; SELECT plinth.lease_acquire('job', 'k', 1, NULL, 'transaction') IS NOT NULL; SELECT plinth.lease_acquire('job', 'k', 1) IS NULL; ROLLBACK; $held"),
	"t\nt\n0", 'that work like those of a primary');
$standby->stop;
$node->stop;
done_testing();
