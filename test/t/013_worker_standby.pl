# A coordinator runs on a hot standby, lets replay pass, and goes on after
# promotion.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PlinthTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use WorkerTest;

my $primary = PlinthTest::node('primary');
$primary->safe_psql('postgres', 'CREATE DATABASE gone');
$primary->safe_psql('gone', 'CREATE EXTENSION plinth');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $pid = WorkerTest::wait_for_worker($standby, 'postgres', 'coordinator');
ok($pid, 'a coordinator on the standby');
ok(PlinthTest::wait_until(sub { WorkerTest::state_of($standby, 'postgres', 'coordinator') eq 'standby' }), 'which says where it is');
ok(WorkerTest::wait_for_worker($standby, 'gone', 'coordinator'), 'in each database');

$primary->safe_psql('postgres', 'DROP DATABASE gone');
PlinthTest::within_ok(10, 'replay of DROP DATABASE does not wait for it', sub { $primary->wait_for_catchup($standby, 'replay') });
ok(PlinthTest::wait_until(
		sub {
			$standby->safe_psql('postgres',
				"SELECT count(*) FROM plinth.stat_workers WHERE service = 'coordinator'") eq '1';
		}),
	'stat_workers has forgotten it');

my $oid  = $primary->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = 'postgres'");
my $ours = WorkerTest::pid($standby, 'postgres', 'coordinator');
$standby->promote;
ok(PlinthTest::wait_until(
		sub { WorkerTest::state_of($standby, 'postgres', 'coordinator') eq 'running' }),
	'promoted, it runs');
is(WorkerTest::pid($standby, 'postgres', 'coordinator'), $ours, 'as the same process');

# What was dropped on the primary just before is seen by looking again.
$standby->safe_psql('postgres', 'DROP EXTENSION plinth CASCADE');
ok(PlinthTest::wait_until(
		sub {
			$standby->safe_psql('postgres',
				"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'plinth coordinator'") eq '0';
		}),
	'and ends with the extension');

done_testing();
