# Caches against a model: clients set, get, fetch, invalidate, roll back, use
# savepoints and let values expire, all at random and at once, over a table
# that holds the truth.  Numbers there only grow, so that each value that is
# read can be held against the truth before and after: older than what was
# committed before the statement began, newer than what is committed after it,
# or another user's: each is a failure.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PlinthTest qw(node);
use Test::More;

my $rounds = $ENV{PLINTH_LONG} ? 8000 : 1500;
# Commits take a while, so that there is something between their two halves.
my $node = node('model', fsync => 'on', conf => <<'CONF');
plinth.trusted_authenticators = 'app'
plinth.cache_memory = '1MB'
commit_delay = 500
commit_siblings = 0
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN;
CREATE TABLE truth (cache text, usr uuid, key text, v bigint NOT NULL, PRIMARY KEY (cache, usr, key));
CREATE TABLE other (i int);
CREATE TABLE wrong (at timestamptz DEFAULT clock_timestamp(), what text);
CREATE TABLE tally (what text, n bigint);
CREATE TABLE playing ();
INSERT INTO truth SELECT c, '00000000-0000-0000-0000-000000000000', 'key' || i, 1
	FROM unnest('{plain,tiny,overflow,durable,watched}'::text[]) c, generate_series(0, 9) i;
INSERT INTO truth SELECT c, ('00000000-0000-7000-8000-00000000000' || u)::uuid, 'key' || i, 1
	FROM unnest('{own,own_durable}'::text[]) c, generate_series(0, 3) u, generate_series(0, 9) i;
GRANT USAGE ON SCHEMA plinth TO app;
GRANT SELECT, INSERT, UPDATE ON truth, other, wrong, tally TO app;

SELECT plinth.cache_create('plain', per_user => false, roles => '{app}');
SELECT plinth.cache_create('tiny', max_bytes => 1300, max_value_bytes => 1000, per_user => false, roles => '{app}');
SELECT plinth.cache_create('own', roles => '{app}');
SELECT plinth.cache_create('own_durable', durable => true, roles => '{app}');
SELECT plinth.cache_create('overflow', overflow => true, per_user => false, roles => '{app}');
SELECT plinth.cache_create('durable', durable => true, per_user => false, roles => '{app}');
SELECT plinth.cache_create('watched', per_user => false, roles => '{app}');
SELECT plinth.cache_watch('watched', 'truth', key_expression => $$CASE WHEN cache = 'watched' THEN key END$$);

-- What changes the truth says so to the cache, in one of all the ways there are.
CREATE PROCEDURE invalidate(c text, k text) LANGUAGE plpgsql AS $$
BEGIN
	IF c = 'watched' THEN
		RETURN;
	END IF;
	CASE floor(random() * CASE WHEN c LIKE 'own%' THEN 3 ELSE 4 END)
		WHEN 0 THEN PERFORM plinth.cache_delete(c, k);
		WHEN 1 THEN PERFORM plinth.cache_delete_prefix(c, left(k, 4));
		WHEN 2 THEN PERFORM plinth.cache_clear(c);
		ELSE PERFORM plinth.cache_invalidate_tag(c, 'tag of ' || k);
	END CASE;
END $$;

CREATE FUNCTION value(usr_ uuid, v bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$SELECT jsonb_build_object('u', usr_, 'v', v)$$;

CREATE FUNCTION fetched(c text, usr_ uuid, k text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT plinth.cache_fetch(c, k, 'SELECT value(usr, v) FROM truth WHERE cache = $1 AND usr = $2 AND key = $3',
		ARRAY[c, usr_::text, k], tags => ARRAY['tag of ' || k])
$$;

-- A transaction that changes the truth, and may read what it did.
CREATE PROCEDURE change(c text, usr_ uuid, k text, by int, INOUT complaint text) LANGUAGE plpgsql AS $$
DECLARE
	now_ bigint;
	got jsonb;
	ticket_ bigint := plinth.cache_ticket(c);
BEGIN
	IF random() < 0.3 THEN
		BEGIN
			UPDATE truth SET v = v + 1000000000 WHERE (cache, usr, key) = (c, usr_, k) RETURNING v INTO now_;
			CALL invalidate(c, k);
			IF random() < 0.5 THEN
				PERFORM plinth.cache_set(c, k, value(usr_, now_), tags => ARRAY['tag of ' || k]);
			ELSE
				PERFORM fetched(c, usr_, k);
			END IF;
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END IF;
	UPDATE truth SET v = v + by WHERE (cache, usr, key) = (c, usr_, k) RETURNING v INTO now_;
	CALL invalidate(c, k);
	IF plinth.cache_set(c, k, value(usr_, now_ - by), tags => ARRAY['tag of ' || k], ticket => ticket_) THEN
		complaint := 'what it had read before it changed it was kept';
	END IF;
	got := plinth.cache_get(c, k);
	IF got IS NOT NULL THEN
		complaint := format('invalidated by itself, and still there: %s', got);
	END IF;
	IF random() < 0.3 THEN
		got := fetched(c, usr_, k);
		IF (got ->> 'v')::bigint IS DISTINCT FROM now_ THEN
			complaint := format('is %s to itself, and computed as %s', now_, got);
		END IF;
	ELSIF random() < 0.7 THEN
		PERFORM plinth.cache_set(c, k, value(usr_, now_), tags => ARRAY['tag of ' || k]);
		got := plinth.cache_get(c, k);
		-- What stands in a table others may have invalidated since the statement that set it.
		IF (got ->> 'v')::bigint IS DISTINCT FROM now_ AND (got IS NOT NULL OR c NOT IN ('overflow', 'durable', 'own_durable')) THEN
			complaint := format('set to %s by itself, and is %s', now_, got);
		END IF;
	END IF;
END $$;

-- Until nobody plays any more.
CREATE PROCEDURE purge(INOUT removed bigint DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
	WHILE to_regclass('playing') IS NOT NULL LOOP
		-- By parts of a few entries, so that passes are under way most of the time.
		removed := removed + (SELECT sum(p.removed) FROM plinth.caches c, plinth._cache_purge(c.id, 1 + floor(random() * 8)::int) p);
		COMMIT;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;

CREATE PROCEDURE play(rounds int, me uuid) LANGUAGE plpgsql AS $$
DECLARE
	caches text[] := '{plain,plain,plain,tiny,own,own,own,watched,watched,watched,overflow,durable,own_durable}';
	c text;
	usr_ uuid;
	k text;
	what float;
	v1 bigint;
	v2 bigint;
	got jsonb;
	ticket_ bigint;
	complaint text;
	hits bigint := 0;
	kept bigint := 0;
	refused bigint := 0;
	changes bigint := 0;
BEGIN
	FOR i IN 1 .. rounds LOOP
		c := caches[1 + floor(random() * cardinality(caches))];
		usr_ := CASE WHEN c LIKE 'own%' THEN me ELSE '00000000-0000-0000-0000-000000000000' END;
		k := 'key' || floor(random() * 10);
		what := random();
		got := NULL;
		complaint := NULL;
		IF what < 0.45 THEN
			SELECT v INTO v1 FROM truth WHERE (cache, usr, key) = (c, usr_, k);
			IF what < 0.3 THEN
				got := plinth.cache_get(c, k);
			ELSE
				got := fetched(c, usr_, k);
			END IF;
			SELECT v INTO v2 FROM truth WHERE (cache, usr, key) = (c, usr_, k);
		ELSIF what < 0.6 THEN
			-- A slow filler.
			ticket_ := plinth.cache_ticket(c);
			SELECT v INTO v1 FROM truth WHERE (cache, usr, key) = (c, usr_, k);
			IF what < 0.48 THEN
				PERFORM pg_sleep(random() * 0.003);
			END IF;
			IF what > 0.58 THEN
				INSERT INTO other VALUES (1);
			END IF;
			IF plinth.cache_set(c, k, value(usr_, v1), tags => ARRAY['tag of ' || k], ticket => ticket_,
					ttl => CASE WHEN what < 0.5 THEN interval '2 ms' END) THEN
				kept := kept + 1;
			ELSE
				refused := refused + 1;
			END IF;
		ELSIF what < 0.7 THEN
			-- One that does all in one statement.
			PERFORM plinth.cache_set(c, k, value(usr, v), tags => ARRAY['tag of ' || k],
				ticket => CASE WHEN what < 0.65 THEN plinth.cache_ticket(c) END)
				FROM truth WHERE (cache, usr, key) = (c, usr_, k);
		ELSIF what < 0.76 THEN
			CALL change(c, usr_, k, 1000000000, complaint);
			IF complaint IS NULL THEN
				ROLLBACK;
			END IF;
		ELSE
			CALL change(c, usr_, k, 1, complaint);
			changes := changes + 1;
		END IF;
		COMMIT;
		IF got IS NOT NULL THEN
			hits := hits + 1;
			IF (got ->> 'v')::bigint < v1 OR (got ->> 'v')::bigint > v2 OR (got ->> 'u')::uuid <> usr_ THEN
				complaint := format('read %s, which was from %s to %s', got, v1, v2);
			END IF;
		END IF;
		IF complaint IS NOT NULL THEN
			INSERT INTO wrong (what) VALUES (format('%s %s of %s: %s', c, k, usr_, complaint));
			COMMIT;
		END IF;
	END LOOP;
	INSERT INTO tally VALUES ('hits', hits), ('kept', kept), ('refused', refused), ('changes', changes);
END $$;
SQL

my @clients = map {
	my $user = sprintf '00000000-0000-7000-8000-%012d', $_ % 4;
	my %client = (in => '', out => '', err => '');
	$client{run} = IPC::Run::start(
		[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . ' user=app',
			'-c', "SET request.jwt.claims = '{\"sub\": \"$user\"}'", '-c', "CALL play($rounds, '$user')" ],
		'<', \$client{in}, '>', \$client{out}, '2>', \$client{err});
	\%client
} 1 .. 8;
# Purging, all the time, as its worker does now and then.
my %purger = (in => '', out => '', err => '');
$purger{run} = IPC::Run::start(
	[ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', 'CALL purge()' ],
	'<', \$purger{in}, '>', \$purger{out}, '2>', \$purger{err});
foreach my $i (0 .. $#clients)
{
	ok($clients[$i]{run}->finish, "client $i comes to its end") or diag($clients[$i]{err});
}

$node->safe_psql('postgres', 'DROP TABLE playing');
ok($purger{run}->finish, 'who purges comes to his end') or diag($purger{err});
cmp_ok($purger{out}, '>', 0, 'and removed entries');

is($node->safe_psql('postgres', 'SELECT what FROM wrong ORDER BY at LIMIT 10'), '', 'every value that was read is as the truth was');
my %tally = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT what, sum(n) FROM tally GROUP BY 1');
cmp_ok($tally{$_}, '>', 0, "$tally{$_} $_") foreach qw(hits kept refused changes);

my $account = sub { $node->safe_psql('postgres', 'SELECT used, entries, in_flux FROM plinth._cache_check()') };
like($account->(), qr/\|0$/, 'nothing is in flux when all have ended');
$node->safe_psql('postgres', 'SELECT plinth.cache_drop(name) FROM plinth.caches');
is($account->(), '0|0|0', 'no block is in use when all caches are dropped');
done_testing();
