
# pg_upgrade of a server that was stopped in the middle of syncing: the new one
# starts quiet, and adopt makes both sides equal.
#
# PLINTH_UPGRADE names bin directories of PostgreSQLs that have plinth, oldest
# first, separated by colons; each is upgraded to the next.  (Minor releases
# matter: 15.20 writes a version into each column's options that 16.14 and 18.4,
# being older, cannot restore, so those upgrade only from one another.)

use strict;
use warnings;
use File::Basename;
use PlinthTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @versions = grep { -x "$_/pg_upgrade" } split /:/, $ENV{PLINTH_UPGRADE} || '';
plan skip_all => 'PLINTH_UPGRADE does not name two PostgreSQLs that have plinth' if @versions < 2;

sub version_of
{
	my ($bindir) = @_;
	my ($stdout) = run_command([ "$bindir/postgres", '--version' ]);
	return $stdout =~ /(\d+)\.\d+/ ? $1 : die "no version in $stdout";
}

sub cluster
{
	my ($name, $bindir) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => dirname($bindir));
	my @initdb = ('--no-locale', '--encoding', 'UTF8');
	push @initdb, '--no-data-checksums' if version_of($bindir) >= 18;
	$node->init(extra => \@initdb);
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'plinth'\nwal_level = logical\nmax_worker_processes = 32\nfsync = off\n");
	return $node;
}

my $mongo = PlinthTest::mongo_start();

sub there
{
	my ($database) = @_;
	return join ',', sort @{
		$mongo->eval("['%d:%s' % (d['_id'], d['body']) for d in client['$database']['notes'].find()]") };
}

sub here
{
	my ($node) = @_;
	return join ',', sort split /\n/, $node->safe_psql('postgres', "SELECT id || ':' || body FROM notes");
}

while (@versions > 1)
{
	my ($oldbin, $newbin) = (shift @versions, $versions[0]);
	my $version  = version_of($oldbin) . ' to ' . version_of($newbin);
	my $database = 'upgrade' . version_of($newbin);
	my $old      = cluster("old$database", $oldbin);
	$old->start;
	$old->safe_psql('postgres', 'CREATE EXTENSION plinth');
	PlinthTest::sync_server($old, 'docs', $mongo->uri, $database);
	$old->safe_psql(
		'postgres', q{
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT i, 'n' || i FROM generate_series(1, 3000) i;
SELECT plinth.sync_table('notes', 'docs');
SELECT plinth.sign_up('ann@example.com', 'correct horse battery', 'ann');
});
	is($old->safe_psql('postgres', "SELECT plinth.sync_wait('180s')"), 't', "$version: synced before");
	$old->safe_psql('postgres', "UPDATE notes SET body = body || ' changed'; DELETE FROM notes WHERE id <= 10");
	$old->stop('fast');

	my $new = cluster("new$database", $newbin);
	my $dir = PostgreSQL::Test::Utils::tempdir();
	chdir $dir or die $!;
	command_ok(
		[   "$newbin/pg_upgrade", '-b', $oldbin, '-B', $newbin,
			'-d', $old->data_dir, '-D', $new->data_dir, '-s', $new->host,
			'-p', $old->port, '-P', $new->port ],
		"$version: pg_upgrade");
	$new->start;

	is($new->safe_psql('postgres', 'SELECT count(*) FROM plinth.sync_mappings'), 1, "$version: the mapping came along");
	is($new->safe_psql('postgres', q{SELECT status FROM plinth.sign_in('ann@example.com', 'correct horse battery')}),
		'ok', "$version: so did users and passwords");
	ok( PlinthTest::wait_until(
			sub { $new->safe_psql('postgres', "SELECT state || coalesce(message, '') FROM plinth.stat_workers WHERE service = 'coordinator' AND pid > 0") ne '' }),
		"$version: workers run");
	is($new->safe_psql('postgres', "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'plinth_%'"),
		0, "$version: it starts quiet");
	my $before = there($database);
	$new->safe_psql('postgres', "UPDATE notes SET body = 'after the upgrade' WHERE id = 11");
	sleep 2;
	ok(there($database) eq $before, "$version: and writes nothing");
	$new->safe_psql('postgres', 'SELECT plinth.adopt()');
	is($new->safe_psql('postgres', "SELECT plinth.sync_wait('180s')"), 't', "$version: adopted");
	ok(there($database) eq here($new), "$version: both sides are equal")
	  or diag $new->safe_psql("postgres", "SELECT * FROM plinth.stat_sync; SELECT * FROM plinth.stat_workers");
	$new->stop('fast');
}

done_testing();
