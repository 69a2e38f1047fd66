# The caches' critical sections by name: a process is stopped inside each by a
# debugger, others wait for what it holds, and it is killed -9.  Then a database
# and the extension dropped under load, changes that replication writes, and a
# server that has forgotten to load plinth.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until);
use Test::More;
use WorkerTest;

my $node = node('faults', conf => "plinth.cache_memory = '1MB'\nplinth.worker_restart_delay = '100ms'\n");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# Starts SQL in a session of its own, which may fail.
sub start_sql
{
	my ($dbname, @sql) = @_;
	my %session = (in => '', out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($dbname), map { ('-c', $_) } @sql ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Sets what a query names (cache, key), until all of it is there: a cache may refuse a value while somebody else commits.
sub keep
{
	my ($names) = @_;
	return wait_until(sub {
		sql("SELECT plinth.cache_set(cache, key, '1') FROM ($names) n (cache, key)");
		sql("SELECT bool_and(plinth.cache_get(cache, key) IS NOT NULL) FROM ($names) n (cache, key)") eq 't' });
}

# Is everything as if nothing had happened?
sub sound
{
	my ($name) = @_;
	my $there = q{SELECT count(plinth.cache_get(c, 'probe')) FROM unnest('{c,d}'::text[]) c};
	is(sql('SELECT in_flux FROM plinth._cache_check()'), 0, "$name: memory adds up");
	ok(keep("VALUES ('c', 'probe'), ('d', 'probe')"), "$name: caches keep what is set");
	is(sql("SELECT plinth.cache_delete(c, 'probe') FROM unnest('{c,d}'::text[]) c; $there"), "\n\n0", "$name: and forget what is deleted");
	return;
}

my $setup = q{SELECT plinth.cache_create('c', per_user => false), plinth.cache_create('d', per_user => false, durable => true)};
sql($setup);

# ---- killed in a critical section ----

# A debugger of a session that runs on until it calls a function; undef where none may look into a process.
sub debugger
{
	my ($session, $function) = @_;
	my %gdb = (in => '', out => '');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$gdb{run} = IPC::Run::start([ 'gdb', '-nx', '-q', '-iex', 'set debuginfod enabled off', '-iex', 'set auto-solib-add off', '-p', $pid ],
		'<', \$gdb{in}, '>&', \$gdb{out}, IPC::Run::timeout(60));
	$gdb{in} = "set pagination off\nset confirm off\nsharedlibrary plinth\nbreak $function\necho prepared\\n\ncontinue\n";
	$gdb{run}->pump until $gdb{out} =~ /prepared\n/;
	return $gdb{out} =~ /Breakpoint 1 at/ ? (\%gdb, $pid) : ();
}

# Ends a session and its debugger, by kill -9, and waits for the server.
sub kill_both
{
	my ($session, $gdb, $pid) = @_;
	kill 'KILL', $pid;
	$gdb->{in} = "kill\nquit\n";
	$gdb->{run}->finish;
	ok(PlinthTest::begun_anew($node, $pid), 'the server is back');
	$session->{run}->finish;
	return;
}

# What is prepared, the statement, where it is stopped, and whether others wait for what it holds.
my $full = q{SELECT count(plinth.cache_set_text('c', 'old' || n, repeat('x', 1000), tags => '{t}')) FROM generate_series(1, 2000) n};
my $large = q{SELECT plinth.cache_set_text('c', 'large', repeat('x', 5000))};
my @sections = (
	[ 'a value is put', 'SELECT 1', q{SELECT plinth.cache_set('c', 'k', '1')}, 'plinth_sieve_insert' ],
	[ 'a value is evicted', $full, $large, 'plinth_sieve_victim' ],
	[ 'dead values are swept', "$full; SELECT plinth.cache_invalidate_tag('c', 't')", $large, 'plinth_sieve_remove' ],
	[ 'a value is read', q{SELECT plinth.cache_set('c', 'k', '1')}, q{SELECT plinth.cache_get('c', 'k')}, 'plinth_cache_entry_value' ],
	[ 'a prefix is removed', q{SELECT plinth.cache_set('c', 'k', '1')}, q{SELECT plinth.cache_delete_prefix('c', '')}, 'plinth_cache_entries_remove' ],
	[ 'slots are marked', 'SELECT 1', q{SELECT plinth.cache_clear('c')}, 'plinth_cache_slot_move' ],
	[ 'a commit is published', 'SELECT 1', q{SELECT plinth.cache_clear('c')}, 'plinth_cache_place_note' ]);

SKIP:
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my ($gdb, $pid) = `gdb --version 2>/dev/null` ? debugger($session, 'plinth_sieve_insert') : ();
	skip 'no gdb that may look into a process', 1 unless $gdb;
	kill_both($session, $gdb, $pid);
	foreach my $section (@sections)
	{
		my ($name, $before, $statement, $function) = @$section;
		sql($before);
		$session = $node->background_psql('postgres', on_error_stop => 0);
		$session->query_safe(q{SELECT plinth.cache_get('c', 'x')});
		($gdb, $pid) = debugger($session, $function);
		$session->query_until(qr/started/, "\\echo started\n$statement;\n");
		$gdb->{run}->pump until $gdb->{out} =~ /Breakpoint 1, /;
		my $other = start_sql('postgres', q{SELECT plinth.cache_set('c', 'k', '2'), plinth.cache_clear('c')});
		ok(wait_until(sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%cache_clear%' AND wait_event_type = 'LWLock'}) == 1 }),
			"$name, and another waits");
		kill_both($session, $gdb, $pid);
		$other->{run}->finish;
		sound("killed while $name");
	}
}

# ---- the worker, killed while it works ----

my $gate = $node->background_psql('postgres', on_error_stop => 0);
$gate->query_safe('SELECT pg_advisory_lock(7)');
sql(<<'SQL');
CREATE FUNCTION gated(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(7);
	RETURN $1;
END $$;
SELECT plinth.cache_create('warm', per_user => false, warm => 'SELECT n::text, to_jsonb(public.gated(n)) FROM generate_series(1, 10) n');
SQL

# Kills the worker when it waits for a lock of ours.
sub kill_worker
{
	my ($name) = @_;
	my $pid;
	ok(wait_until(sub { $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'plinth cache%' AND wait_event_type = 'Lock'}) }), "the worker $name");
	kill 'KILL', $pid;
	ok(PlinthTest::begun_anew($node, $pid), 'killed, the server is back');
	$gate->{run}->finish;
	sound("killed while it $name");
	return;
}
kill_worker('warms');
ok(wait_until(sub { sql(q{SELECT plinth.cache_get('warm', '10')}) eq '10' }), 'the next one warms');
keep(q{SELECT 'd', 'k' || n FROM generate_series(1, 10) n});
$gate = $node->background_psql('postgres', on_error_stop => 0);
$gate->query_safe('BEGIN; LOCK plinth.cache_durable_entries IN SHARE MODE');
sql(q{SELECT plinth.cache_delete('d', 'none')});
kill_worker('purges');
is(sql(q{SELECT count(*) FROM generate_series(1, 10) n WHERE plinth.cache_get('d', 'k' || n) = '1'}), 10, 'what is valid is there');
sql(q{SELECT plinth.cache_delete_prefix('d', 'k')});
ok(wait_until(sub { sql('SELECT plinth._cache_purge(id) FROM plinth.caches'); sql(q{SELECT (SELECT count(*) FROM plinth.cache_durable_entries) + (SELECT count(*) FROM plinth.cache_invalidations)}) == 0 }), 'all of it can be purged');

# ---- dropped under load ----

my $load = <<'SQL';
CREATE TABLE playing ();
CREATE TABLE things (id int PRIMARY KEY, v int);
INSERT INTO things SELECT n, 0 FROM generate_series(1, 50) n;
CREATE PROCEDURE play() LANGUAGE plpgsql AS $$
DECLARE
	k int;
BEGIN
	WHILE to_regclass('playing') IS NOT NULL LOOP
		k := 1 + floor(random() * 50);
		BEGIN
			CASE floor(random() * 5)
				WHEN 0 THEN PERFORM plinth.cache_fetch('c', 'k' || k, 'SELECT v FROM things WHERE id = $1', ARRAY[k::text]);
				WHEN 1 THEN PERFORM plinth.cache_set('d', 'k' || k, to_jsonb(k));
				WHEN 2 THEN PERFORM plinth.cache_get('d', 'k' || k);
				WHEN 3 THEN UPDATE things SET v = v + 1 WHERE id = k;
				ELSE PERFORM plinth.cache_delete_prefix('c', 'k');
			END CASE;
		EXCEPTION WHEN OTHERS THEN
			PERFORM pg_sleep(0.001);
		END;
		COMMIT;
	END LOOP;
END $$;
SQL
my $watch = q{SELECT plinth.cache_watch('c', 'things', $$'k' || id$$)};
my $held = sql('SELECT used, entries FROM plinth._cache_check()');
$node->safe_psql('postgres', 'CREATE DATABASE doomed');
sql("CREATE EXTENSION plinth; $load; $setup; $watch", 'doomed');
my @clients = map { start_sql('doomed', 'CALL play()') } 1 .. 4;
ok(wait_until(sub { sql('SELECT count(*) > 10 FROM plinth.cache_durable_entries', 'doomed') eq 't' }), 'another database is at work');
foreach my $round (1 .. 3)
{
	ok(wait_until(sub { ($node->psql('doomed', 'DROP EXTENSION plinth CASCADE'))[0] == 0 }), "the extension is dropped under load, $round");
	sql("CREATE EXTENSION plinth; $setup; $watch", 'doomed');
	ok(wait_until(sub { sql(q{SELECT hits > 0 FROM plinth.cache_stats('d')}, 'doomed') eq 't' }), 'and the new one works');
}
is(sql(q{SELECT count(*) FROM things WHERE plinth.cache_get('c', 'k' || id) < to_jsonb(v)}, 'doomed'), 0, 'no value is old');
sql('DROP DATABASE doomed WITH (FORCE)');
$_->{run}->finish foreach @clients;
ok(wait_until(sub { sql('SELECT used, entries FROM plinth._cache_check()') eq $held }), 'dropped, the database gives back its memory');
sound('dropped under load');

# ---- what replication writes ----

my $publisher = node('publisher', extension => 0,
	conf => PlinthTest::knows_setting('output_plugin_libraries') ? "output_plugin_libraries = 'plinth, pgoutput'\n" : '');
$publisher->safe_psql('postgres', 'CREATE TABLE things (id int PRIMARY KEY, v int); INSERT INTO things VALUES (1, 1), (2, 1); CREATE PUBLICATION p FOR TABLE things');
sql("CREATE TABLE things (id int PRIMARY KEY, v int); $watch");
keep(q{SELECT 'c', 'k' || n FROM generate_series(1, 3) n});
my $present = q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM generate_series(1, 3) n WHERE plinth.cache_get('c', 'k' || n) IS NOT NULL};
sql('CREATE SUBSCRIPTION s CONNECTION ' . PlinthTest::quote_literal($publisher->connstr('postgres')) . ' PUBLICATION p');
ok(wait_until(sub { sql('SELECT count(*) FROM things') == 2 }), 'a table is copied');
is(sql($present), '3', 'which invalidates its keys');
keep(q{SELECT 'c', 'k' || n FROM generate_series(1, 3) n});
$publisher->safe_psql('postgres', 'UPDATE things SET v = 2 WHERE id = 1');
ok(wait_until(sub { sql('SELECT v FROM things WHERE id = 1') == 2 }), 'a change is applied');
ok(wait_until(sub { sql($present) eq '2 3' }), 'and invalidates its key only');
$publisher->safe_psql('postgres', 'TRUNCATE things');
ok(wait_until(sub { sql('SELECT count(*) FROM things') == 0 }), 'a TRUNCATE is applied');
ok(wait_until(sub { sql($present) eq '' }), 'and invalidates all');
sql('DROP SUBSCRIPTION s');
$publisher->stop;

# ---- without shared_preload_libraries ----

sql('INSERT INTO things VALUES (1, 1)');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
foreach my $statement (q{SELECT plinth.cache_get('c', 'k')}, q{SELECT plinth.cache_set('d', 'k', '1')}, q{SELECT plinth.cache_fetch('c', 'k', 'SELECT 1')},
	q{SELECT plinth.cache_clear('c')}, q{SELECT plinth.cache_create('e')}, 'UPDATE things SET v = 3')
{
	PlinthTest::psql_fails_like($node, 'postgres', $statement, qr/plinth must be loaded via "shared_preload_libraries".*HINT:/s, "not loaded: $statement");
}
is(sql('SELECT v FROM things'), 1, 'nothing is written that could not invalidate');
$node->stop;
done_testing();
