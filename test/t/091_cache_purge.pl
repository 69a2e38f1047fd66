# Large caches are purged by parts, each in a transaction of its own: how much a
# transaction removes, what readers see meanwhile, a worker that is killed and a
# server that is promoted in the middle, and passes that others get in between.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node wait_until);
use Test::More;
use WorkerTest;

my $node = node('purge', conf => "plinth.worker_restart_delay = '100ms'\n");
my $nobody = '00000000-0000-0000-0000-000000000000';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Is there soon what a query returns?
sub comes
{
	my ($on, $query, $value, $name) = @_;
	return ok(wait_until(sub { (PlinthTest::ask($on, 'postgres', $query) // '') eq $value }), $name)
	  || diag($query, ' is ', PlinthTest::ask($on, 'postgres', $query));
}

sub id_of { return sql("SELECT id FROM plinth.caches WHERE name = '$_[0]'"); }

# A part of a purge: whether there is more of it.
sub part
{
	my ($cache, $size) = @_;
	return sql("SELECT p.again FROM plinth.caches c, plinth._cache_purge(c.id, $size) p WHERE c.name = '$cache'") eq 't';
}

# A whole pass.
sub purge
{
	my ($cache) = @_;
	1 while part($cache, 20_000);
	return;
}

sub entries { return sql("SELECT count(*) FROM plinth.cache_durable_entries e JOIN plinth.caches c ON c.id = e.cache_id AND c.name = '$_[0]'"); }
sub value { return sql("SELECT coalesce(plinth.cache_get_text('$_[0]', '$_[1]'), 'none')"); }

# Many entries at once, dead00001 and so on, from long ago.
sub fill
{
	my ($cache, $count) = @_;
	my $id = id_of($cache);
	sql(<<"SQL");
SET ROLE plinth_owner;
INSERT INTO plinth.cache_durable_entries (id, cache_id, user_id, key, kind, value, stale_at, expires_at, fill, xid, snapshot)
	SELECT nextval('plinth.cache_change_seq'), $id, '$nobody', 'dead' || lpad(n::text, 6, '0'), 2, 'x', 'infinity', 'infinity', n % 2 = 0, '3', pg_current_snapshot()
	FROM generate_series(1, $count) n;
SQL
	return;
}

# A session in a transaction that has an xid.
sub writer
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; SELECT pg_current_xact_id()');
	return $session;
}

sub ends
{
	my ($session) = @_;
	$session->query_safe('COMMIT');
	$session->quit;
	return;
}

sql("SELECT plinth.cache_create('d', per_user => false, durable => true, max_bytes => 1000000000)");
my $worker = WorkerTest::freeze($node, 'postgres', 'cache');

# ---- one part after the other ----

# What the last pass hides stays hidden, though the new one's snapshot has it.
sql("SELECT plinth.cache_set_text('d', k, '1') FROM unnest('{a1,a2,a3}'::text[]) k");
purge('d') for 1 .. 2;
my $deleter = writer();
my $setter = writer();
$deleter->query_safe(q{SELECT plinth.cache_delete('d', 'z')});
$setter->query_safe(q{SELECT plinth.cache_set_text('d', 'z', 'old')});
ends($deleter);
purge('d');
sql(q{SELECT plinth.cache_set_text('d', 'a1', '2')});
purge('d');
is(sql(q{SELECT count(*) FROM plinth.cache_invalidations}), 0, 'an invalidation was purged');
ends($setter);
is(value('d', 'z'), 'none', 'what was computed without it is hidden');
sql(q{SELECT plinth.cache_set_text('d', 'a2', '2')});
my $parts = 0;
my @seen;
do { $parts++; push @seen, value('d', 'z') } while (part('d', 1));
cmp_ok($parts, '>', 3, 'a pass of several parts');
is(join(' ', @seen), join(' ', ('none') x $parts), 'and stays hidden between any two of them');
is(value('d', 'z'), 'none', 'and after it');
is(value('d', 'a1') . value('d', 'a2') . value('d', 'a3'), '221', 'what is valid stays');

# An invalidation goes last: what it concerns may have come after the pass before.
purge('d') for 1 .. 2;
$deleter = writer();
$setter = writer();
$deleter->query_safe(q{SELECT plinth.cache_delete('d', 'z')});
$setter->query_safe(q{SELECT plinth.cache_set_text('d', 'z', 'old')});
ends($deleter);
purge('d');
ends($setter);
sql(q{SELECT plinth.cache_set_text('d', 'a2', '2')});
@seen = (value('d', 'z'));
push @seen, value('d', 'z') while part('d', 1);
cmp_ok(scalar @seen, '>', 3, 'a pass of several parts');
is(join(' ', @seen, value('d', 'z')), join(' ', ('none') x (@seen + 1)), 'what was invalidated shows at no time');
is(sql(q{SELECT count(*) FROM plinth.cache_invalidations}), 0, 'when its invalidation is purged');

# Committed in the middle, behind where the pass is.
purge('d') for 1 .. 2;
$deleter = writer();
$setter = writer();
$deleter->query_safe(q{SELECT plinth.cache_delete('d', 'a0')});
$setter->query_safe(q{SELECT plinth.cache_set_text('d', 'a0', 'old')});
ends($deleter);
purge('d');
sql(q{SELECT plinth.cache_set_text('d', 'a3', '2')});
ok(part('d', 1), 'a pass is under way');
ok(part('d', 1), 'and beyond the first key');
ends($setter);
is(value('d', 'a0'), 'none', 'what comes too late for it is hidden');
1 while part('d', 1);
is(value('d', 'a0'), 'none', 'nor does it show when the pass is over');
purge('d') for 1 .. 3;
is(value('d', 'a0'), 'none', 'nor later');

# A value that somebody computes while another is set, and the range of both is done.
my $filler = $node->background_psql('postgres');
$filler->query_safe(q{BEGIN; SELECT plinth.cache_fetch('d', 'a0', 'SELECT 1 FROM pg_current_xact_id()')});
sql(q{SELECT plinth.cache_set_text('d', 'a0', 'set', ttl => '1 ms')});
comes($node, q{SELECT plinth.cache_get_text('d', 'a0') IS NULL}, 't', 'what others set expires');
part('d', 1) for 1 .. 3;
ends($filler);
is(value('d', 'a0'), 'none', 'what was computed before it does not take its place');
purge('d') for 1 .. 3;
is(value('d', 'a0'), 'none', 'nor later');

# Cleared and altered in the middle.
sql(q{SELECT plinth.cache_set_text('d', 'b' || n, 'x') FROM generate_series(1, 20) n});
part('d', 3) for 1 .. 3;
sql(q{SELECT plinth.cache_clear('d')});
sql(q{SELECT plinth.cache_set_text('d', 'b' || n, 'y') FROM generate_series(18, 20) n});
my $there = q{SELECT string_agg(coalesce(plinth.cache_get_text('d', 'b' || n), '-'), '' ORDER BY n) FROM generate_series(1, 20) n};
my $cleared = ('-' x 17) . 'yyy';
@seen = ();
do { push @seen, sql($there) } while (part('d', 3));
is(scalar(grep { $_ ne $cleared } @seen), 0, 'cleared in the middle: nothing comes back');
purge('d') for 1 .. 3;
is(sql($there), $cleared, 'nor later');
is(entries('d'), 3, 'and all else is gone');

sql(q{SELECT plinth.cache_create('m', per_user => false, durable => true)});
sql(q{SELECT plinth.cache_set_text('m', 'k' || n % 10 || n, repeat('x', 1000)) FROM generate_series(100, 199) n});
purge('m') for 1 .. 2;
ok(!part('m', 1), 'nothing has changed, nothing to do');
sql(q{SELECT plinth.cache_set_text('m', 'k0100', repeat('x', 1000))});
ok(part('m', 20), 'a pass begins');
sql(q{SELECT plinth.cache_alter('m', max_bytes => 30500)});
purge('m');
is(sql(q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM generate_series(100, 199) n WHERE plinth.cache_get_text('m', 'k' || n % 10 || n) IS NOT NULL}),
	join(' ', 100, 171 .. 199), 'too much for it: the oldest go');
is(entries('m'), 30, 'from the table too');

# Dropped in the middle.
sql(q{SELECT plinth.cache_set_text('m', 'k' || n, 'x') FROM generate_series(1, 20) n});
ok(part('m', 5), 'a pass is under way');
my $id = id_of('m');
sql(q{SELECT plinth.cache_drop('m')});
1 while sql("SELECT again FROM plinth._cache_purge($id, 5)") eq 't';
is(sql("SELECT (SELECT count(*) FROM plinth.cache_durable_entries WHERE cache_id = $id) + (SELECT count(*) FROM plinth.cache_horizons WHERE cache_id = $id)"),
	0, 'dropped in the middle, nothing is left');

# ---- 200,000 entries, and the worker ----

# What every transaction removes; the sixth of a pass waits for a lock of ours.
sql(<<'SQL');
CREATE TABLE removals (seq bigserial, xid xid8 DEFAULT pg_current_xact_id(), n bigint, pass xid8);
CREATE FUNCTION removal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	INSERT INTO public.removals (n, pass) SELECT count(*), max(h.pass_xid::text)::xid8 FROM old_rows o JOIN plinth.cache_horizons h USING (cache_id) HAVING count(*) > 0;
	IF (SELECT count(*) = 6 FROM public.removals) THEN
		PERFORM pg_advisory_xact_lock(7);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER removal AFTER DELETE ON plinth.cache_durable_entries REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION removal();
CREATE TABLE wrong (what text);
CREATE SEQUENCE reads;
CREATE TABLE playing ();
-- Reads what is invalid, and what is valid and changes, until nobody plays any more.
CREATE PROCEDURE read() LANGUAGE plpgsql AS $$
DECLARE
	k text;
	got text;
	n bigint := 0;
BEGIN
	WHILE to_regclass('playing') IS NOT NULL LOOP
		k := 'dead' || lpad((1 + floor(random() * 200000))::text, 6, '0');
		got := plinth.cache_get_text('d', k);
		IF got IS NOT NULL THEN
			INSERT INTO wrong VALUES (format('%s is %s', k, got));
		END IF;
		k := 'dead' || lpad((1 + floor(random() * 20))::text, 2, '0') || 'live';
		PERFORM plinth.cache_set_text('d', k, n::text), plinth.cache_delete('d', k || '2');
		COMMIT;
		got := plinth.cache_get_text('d', k || '2');
		IF got IS NOT NULL THEN
			INSERT INTO wrong VALUES (format('%s2 is %s', k, got));
		END IF;
		COMMIT;
		got := plinth.cache_get_text('d', k);
		IF got IS DISTINCT FROM n::text THEN
			INSERT INTO wrong VALUES (format('%s is %s, not %s', k, got, n));
		END IF;
		PERFORM plinth.cache_set_text('d', k || '2', n::text);
		COMMIT;
		n := nextval('reads');
	END LOOP;
END $$;
SQL

sub reader
{
	my %session = (in => '', out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', 'CALL read()' ],
		'<', \$session{in}, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

fill('d', 200_000);
sql(q{SELECT plinth.cache_set_text('d', 'dead100000 stays', '1'), plinth.cache_set_text('d', 'stays', '1')});
is(entries('d'), 200_005, 'many entries');
is(sql(q{BEGIN; SELECT count(*) FROM plinth._cache_orphans(); SELECT seq_scan, idx_tup_fetch < 100 FROM pg_stat_xact_user_tables WHERE relname = 'cache_durable_entries'; COMMIT}),
	"0\n0|t", 'the list of caches is made without reading them');
sql(q{SELECT plinth.cache_delete_prefix('d', 'dead0'), plinth.cache_delete_prefix('d', 'dead2')});
sql(q{SET ROLE plinth_owner; UPDATE plinth.cache_durable_entries SET expires_at = now() WHERE key LIKE 'dead1_____'});
sql('TRUNCATE removals');
my $gate = $node->background_psql('postgres', on_error_stop => 0);
$gate->query_safe('SELECT pg_advisory_lock(7)');
my $reader = reader();
kill 'CONT', $worker;
my $waits = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 7};
comes($node, $waits, 1, 'the worker is in the middle of a pass');
is(sql('SELECT count(*) FROM removals'), 5, 'some of its transactions have committed');
my $pass = q{SELECT pass_xid, pass_snapshot FROM plinth.cache_horizons h JOIN plinth.caches c ON c.id = h.cache_id AND c.name = 'd' WHERE at_key IS NOT NULL};
my $before = sql($pass);
kill 'KILL', $worker;
ok(PlinthTest::begun_anew($node, $worker), 'killed, the server is back');
$_->{run}->finish foreach $gate, $reader;
$reader = reader();
comes($node, q{SELECT count(*) FROM plinth.cache_durable_entries WHERE key ~ '^dead\d{6}$'}, 0, 'the next one removes the rest');
my $reads = sql('SELECT last_value FROM reads');
comes($node, "SELECT last_value > $reads + 10 FROM reads", 't', 'readers read');
sql('DROP TABLE playing');
ok($reader->{run}->finish, 'readers come to their end') or diag($reader->{err});
is(sql('SELECT * FROM wrong LIMIT 5'), '', 'nobody ever read what was invalid');
my ($first) = split /\|/, $before;
is(sql("SELECT sum(n) >= 200000 FROM removals WHERE pass = '$first'"), 't', 'it was the same pass, to its end');
cmp_ok(sql('SELECT count(DISTINCT xid) FROM removals'), '>=', 20, 'by many transactions');
cmp_ok(sql('SELECT max(n) FROM (SELECT sum(n) AS n FROM removals GROUP BY xid) x'), '<=', 10100, 'none of which removed many');
is(sql(q{SELECT plinth.cache_get_text('d', 'dead100000 stays') || plinth.cache_get_text('d', 'stays')}), '11', 'what is valid stays');

# ---- promoted in the middle ----

$worker = WorkerTest::freeze($node, 'postgres', 'cache');
fill('d', 30_000);
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('purge_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
sql(q{SELECT plinth.cache_delete_prefix('d', 'dead0')});
part('d', 10_000);
part('d', 10_000);
$node->wait_for_catchup($standby);
my $some = q{SELECT count(plinth.cache_get_text('d', 'dead' || lpad((n * 100)::text, 6, '0'))) FROM generate_series(1, 300) n};
is($standby->safe_psql('postgres', $some), 0, 'a standby in the middle of a pass shows nothing invalid');
$before = sql($pass);
isnt($before, '', 'it is in the middle');
$node->stop('immediate');
$standby->promote;
is($standby->safe_psql('postgres', $some), 0, 'nor does it when it is promoted');
comes($standby, q{SELECT count(*) FROM plinth.cache_durable_entries WHERE key ~ '^dead\d{6}$'}, 0, 'its worker removes the rest');
is($standby->safe_psql('postgres', q{SELECT plinth.cache_get_text('d', 'stays')}), '1', 'what is valid stays');
comes($standby, "SELECT xid >= '" . (split /\|/, $before)[0] . "' FROM plinth.cache_horizons h JOIN plinth.caches c ON c.id = h.cache_id AND c.name = 'd'", 't', 'and the pass ends');
$standby->stop;
done_testing();
