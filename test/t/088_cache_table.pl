# The tables of caches while transactions overlap, changes of very many rows,
# what a dropped cache leaves behind, and warming that does not succeed at once.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PlinthTest qw(node wait_until);
use Test::More;
use WorkerTest;

my $node = node('table');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Is there soon what a query returns?
sub comes
{
	my ($query, $value, $name) = @_;
	return ok(wait_until(sub { sql($query) eq $value }), $name) || diag($query, ' is ', sql($query));
}

# ---- warming: looked at in the end, since its worker waits between two tries ----

sql(q{SELECT plinth.cache_create('late', per_user => false, warm => 'SELECT k, to_jsonb(v) FROM public.late')});
ok(wait_until(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /WARNING: .*"public\.late" does not exist/ }), 'warming fails');
sql(q{CREATE TABLE late AS SELECT 'k' || n AS k, n AS v FROM generate_series(1, 10) n});

# Values that memory refuses, since their cache is changed meanwhile: again too.
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(7)');
sql(<<'SQL');
CREATE FUNCTION gated(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(7);
	RETURN $1;
END $$;
SELECT plinth.cache_create('refused', per_user => false, warm => 'SELECT k, to_jsonb(public.gated(v)) FROM public.late');
SQL
comes(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 1, 'warming is under way');
sql(q{SELECT plinth.cache_clear('refused')});
$gate->quit;
comes(q{SELECT plinth.cache_get('late', 'k10')}, 10, 'what failed is tried again');
comes(q{SELECT plinth.cache_get('refused', 'k10')}, 10, 'what was found too early is found again');

# From here on nobody purges but this test.
my $worker = WorkerTest::freeze($node, 'postgres', 'cache');

# ---- purging while transactions overlap ----

sql(q{SELECT plinth.cache_create('d', per_user => false, durable => true), plinth.cache_create('o', per_user => false, overflow => true)});
my %table = (d => 'cache_durable_entries', o => 'cache_entries');

sub purge { return sql("SELECT plinth._cache_purge(id) FROM plinth.caches WHERE name = '$_[0]'"); }

# Entries with and without a value, and invalidations.
sub rows
{
	my ($cache) = @_;
	return sql(<<"SQL");
SELECT (SELECT count(*) FROM plinth.$table{$cache} e WHERE e.cache_id = c.id AND e.value IS NOT NULL),
	(SELECT count(*) FROM plinth.$table{$cache} e WHERE e.cache_id = c.id AND e.value IS NULL),
	(SELECT count(*) FROM plinth.cache_invalidations i WHERE i.cache_id = c.id)
	FROM plinth.caches c WHERE name = '$cache'
SQL
}

# A session in a transaction that has an xid.
sub writer
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; SELECT pg_current_xact_id()');
	return $session;
}

foreach my $cache (qw(d o))
{
	sql("SELECT plinth.cache_set('$cache', 'stays', '1')");
	sql("SELECT plinth.cache_set('$cache', 'old', '1')");
	sql("SELECT plinth.cache_delete('$cache', 'old')");
	is(rows($cache), '2|0|1', "$cache: an entry, one that was deleted, and its deletion");
	my $open = writer();
	# There is always a young entry that is invalid, and always a transaction that is older.
	foreach my $round (1 .. 3)
	{
		my $next = writer();
		$open->query_safe('COMMIT');
		$open->quit;
		$open = $next;
		sql("SELECT plinth.cache_set('$cache', 'young', '$round')");
		sql("SELECT plinth.cache_fetch('$cache', 'computed', 'SELECT $round')");
		sql("SELECT plinth.cache_clear('$cache')") if $round == 1;
		sql("SELECT plinth.cache_delete('$cache', k) FROM unnest('{young,computed}'::text[]) k");
		sql("SELECT plinth.cache_set('$cache', 'stays', '$round')");
		purge($cache);
		is(sql("SELECT plinth.cache_get('$cache', 'stays')"), $round, "$cache: what is valid stays, $round");
		is(sql("SELECT plinth.cache_get('$cache', k) FROM unnest('{old,young,computed}'::text[]) k"), "\n\n",
			"$cache: what is not does not come back, $round");
		is((split /\|/, rows($cache))[0], 1, "$cache: nothing else has a value, $round") if $round > 1;
	}
	is(sql("SELECT count(*) FROM plinth.$table{$cache} WHERE key = 'old'"), 0, "$cache: the old entry is purged");
	is(sql("SELECT count(*) FROM plinth.cache_invalidations i JOIN plinth.caches c ON c.id = i.cache_id AND c.name = '$cache' WHERE i.key = 'old'"),
		0, "$cache: so is its deletion");
	$open->query_safe('COMMIT');
	$open->quit;
	purge($cache) for 1 .. 2;
	is(rows($cache), '1|0|0', "$cache: when nobody is at it all goes but what is valid");

	# Set by a transaction that is open while its cache is purged, under a snapshot older than that.
	my $older = writer();
	my $setter = writer();
	$setter->query_safe("SELECT plinth.cache_set('$cache', 'open', '1')");
	$older->query_safe('COMMIT');
	$older->quit;
	sql("SELECT plinth.cache_delete('$cache', 'stays')");
	purge($cache);
	$setter->query_safe('COMMIT');
	$setter->quit;
	is(sql("SELECT plinth.cache_get('$cache', 'open')"), 1, "$cache: a value set across a purge is kept");
}

# ---- what purging must not uncover ----

foreach my $cache (qw(d o))
{
	# Invalidated by a transaction that is older than the one that sets, and commits after the latter's snapshot.
	my $set = sub {
		my ($key) = @_;
		my $deleter = writer();
		my $setter = writer();
		$deleter->query_safe("SELECT plinth.cache_delete('$cache', '$key')");
		$setter->query_safe("SELECT plinth.cache_set('$cache', '$key', '1')");
		$deleter->query_safe('COMMIT');
		$deleter->quit;
		return $setter;
	};
	my $none = sub {
		my ($session, $key, $name) = @_;
		$session->query_safe('COMMIT');
		$session->quit;
		is(sql("SELECT coalesce(plinth.cache_get('$cache', '$key')::text, 'none')"), 'none', "$cache: $name");
		purge($cache) for 1 .. 3;
		is(sql("SELECT coalesce(plinth.cache_get('$cache', '$key')::text, 'none')"), 'none', "$cache: nor later");
		return;
	};
	foreach my $purges (0 .. 3)
	{
		purge($cache) for 1 .. 2;
		my $setter = $set->("crossed $purges");
		purge($cache) for 1 .. $purges;
		$none->($setter, "crossed $purges", "what was invalidated meanwhile is not there after $purges purges");
	}
	# Computed before others set it, and what they set has expired.
	my $filler = $node->background_psql('postgres');
	$filler->query_safe("BEGIN; SELECT plinth.cache_fetch('$cache', 'set', 'SELECT 1 FROM pg_current_xact_id()')");
	sql("SELECT plinth.cache_set('$cache', 'set', '2', ttl => '1 ms')");
	comes("SELECT plinth.cache_get('$cache', 'set') IS NULL", 't', "$cache: what others set expires");
	purge($cache);
	$none->($filler, 'set', 'what was computed before it does not take its place');
}

# ---- dropped, with many entries ----

sub orphans { return sql("SELECT count(*) FROM plinth.cache_durable_entries WHERE cache_id = $_[0]"); }
my $id = sql(q{SELECT id FROM plinth.caches WHERE name = 'd'});
sql(<<"SQL");
SET ROLE plinth_owner;
INSERT INTO plinth.cache_durable_entries (id, cache_id, user_id, key, kind, value, stale_at, expires_at, fill, snapshot)
	SELECT nextval('plinth.cache_change_seq'), $id, '00000000-0000-0000-0000-000000000000', n::text, 2, 'x', 'infinity', 'infinity', false, pg_current_snapshot()
	FROM generate_series(1, 50000) n;
SQL
is(sql("SELECT plinth.cache_get_text('d', '50000')"), 'x', 'a cache with many entries');
sql(q{SELECT plinth.cache_drop('d')});
my $left = orphans($id);
cmp_ok(sql("SELECT removed FROM plinth._cache_purge($id)"), '<=', 40000, 'is dropped, and purged by a part');
cmp_ok(orphans($id), '<', $left, 'less is left');
cmp_ok(orphans($id), '>', 0, 'but not nothing');

# ---- changes of very many rows ----

sql(<<'SQL');
CREATE TABLE many AS SELECT n AS id, 0 AS v FROM generate_series(1, 50000) n;
SELECT plinth.cache_create('own'), plinth.cache_create('all', per_user => false), plinth.cache_create('tag', per_user => false);
SELECT plinth.cache_watch('own', 'many', key_expression => $$'k' || id$$), plinth.cache_watch('all', 'many', key_expression => $$'k' || id$$),
	plinth.cache_watch('tag', 'many', tag_expression => $$'t' || id$$), plinth.cache_watch('o', 'many', key_expression => $$'k' || id$$);
SELECT bool_and(plinth.cache_set(c, 'k' || n, '1')) FROM unnest('{all,o}'::text[]) c, generate_series(1, 50) n;
SELECT bool_and(plinth.cache_set('tag', 'k' || n, '1', tags => ARRAY['t' || n])) FROM generate_series(1, 50) n;
SQL
my $held = q{SELECT count(*) FROM unnest('{all,tag,o}'::text[]) c, generate_series(1, 50) n WHERE plinth.cache_get(c, 'k' || n) IS NOT NULL};
is(sql($held), 150, 'values of watched rows');
sql('UPDATE many SET v = 1 WHERE id <= 20');
is(sql($held), 90, 'some rows invalidate what is theirs');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; UPDATE many SET v = 2 WHERE id > 20');
cmp_ok($session->query_safe(q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = 'plinth pending caches'}),
	'<', 4_000_000, 'very many take little memory');
cmp_ok($session->query_safe(q{SELECT count(*) FROM plinth.cache_invalidations}), '<', 2000, 'and little room');
is($session->query_safe($held), 0, 'whoever changed them finds nothing');
is(sql($held), 90, 'others all, so far');
$session->query_safe('COMMIT');
$session->quit;
is(sql($held), 0, 'and then nothing either');
sql(q{SELECT plinth.cache_set('all', 'k1', '1')});
is(sql(q{SELECT plinth.cache_get('all', 'k1')}), 1, 'the next transaction begins anew');

kill 'CONT', $worker;
comes("SELECT count(*) FROM plinth.cache_durable_entries WHERE cache_id = $id", 0, 'the worker purges the rest');
done_testing();
