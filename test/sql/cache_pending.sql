-- What a transaction sees of its own changes to a cache, against a table that
-- is changed alike: random operations in random nests of savepoints.
\pset format unaligned
SELECT plinth.cache_create('pending', per_user => false);
CREATE TEMP TABLE model (key text PRIMARY KEY, value int, tag text);
CREATE TEMP TABLE keys AS SELECT x || y AS key FROM unnest('{a,b,c}'::text[]) x, unnest('{1,2,3}'::text[]) y;
CREATE TEMP TABLE seen (what text, n int DEFAULT 1);

CREATE FUNCTION pg_temp.differences() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT count(*) FROM keys k LEFT JOIN model m USING (key)
	WHERE plinth.cache_get('pending', k.key) IS DISTINCT FROM to_jsonb(m.value)
$$;

CREATE PROCEDURE pg_temp.play(depth int, INOUT wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
	k text;
	t text;
	v int;
BEGIN
	FOR i IN 1 .. 1 + (random() * 6)::int LOOP
		k := chr(97 + floor(random() * 3)::int) || 1 + floor(random() * 3)::int;
		t := 't' || floor(random() * 2);
		v := floor(random() * 1000000);
		CASE floor(random() * 12)
			WHEN 0, 1, 2 THEN
				PERFORM plinth.cache_set('pending', k, to_jsonb(v), tags => ARRAY[t]);
				INSERT INTO model VALUES (k, v, t) ON CONFLICT (key) DO UPDATE SET value = v, tag = t;
			WHEN 3 THEN
				PERFORM plinth.cache_delete('pending', k);
				DELETE FROM model WHERE key = k;
			WHEN 4 THEN
				PERFORM plinth.cache_delete_prefix('pending', left(k, 1));
				DELETE FROM model WHERE key LIKE left(k, 1) || '%';
			WHEN 5 THEN
				PERFORM plinth.cache_invalidate_tag('pending', t);
				DELETE FROM model WHERE tag = t;
			WHEN 6 THEN
				IF random() < 0.2 THEN
					PERFORM plinth.cache_clear('pending');
					DELETE FROM model;
				END IF;
			ELSE
				IF depth < 6 THEN
					BEGIN
						CALL pg_temp.play(depth + 1, wrong);
						IF random() < 0.5 THEN
							RAISE SQLSTATE 'XX999' USING MESSAGE = wrong;
						END IF;
					EXCEPTION WHEN SQLSTATE 'XX999' THEN
						wrong := SQLERRM;
						INSERT INTO seen VALUES ('rolled back');
					END;
				END IF;
		END CASE;
		wrong := wrong + pg_temp.differences();
	END LOOP;
END $$;

SELECT setseed(0.5);
DO $$
DECLARE
	wrong bigint := 0;
	stale bigint := 0;
BEGIN
	FOR i IN 1 .. 15 LOOP
		PERFORM plinth.cache_clear('pending');
		DELETE FROM model;
		FOR j IN 1 .. 5 LOOP
			CALL pg_temp.play(1, wrong);
		END LOOP;
		IF random() < 0.3 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		-- What was not published is absent; what is there is right.
		stale := stale + (SELECT count(*) FROM keys k LEFT JOIN model m USING (key)
			WHERE plinth.cache_get('pending', k.key) <> coalesce(to_jsonb(m.value), 'null'));
		INSERT INTO seen SELECT 'published', count(plinth.cache_get('pending', key)) FROM keys;
	END LOOP;
	RAISE NOTICE '% wrong while pending, % when committed', wrong, stale;
END $$;
SELECT what, sum(n) > 10 AS often FROM seen GROUP BY what ORDER BY what;

-- Many values in one transaction.
BEGIN;
SELECT count(*) FILTER (WHERE plinth.cache_set('pending', 'many' || i, to_jsonb(i)) IS NOT NULL) FROM generate_series(1, 10000) i;
SELECT count(*) FROM generate_series(1, 10000) i WHERE plinth.cache_get('pending', 'many' || i) = to_jsonb(i);
COMMIT;
SELECT count(*) FROM generate_series(1, 10000) i WHERE plinth.cache_get('pending', 'many' || i) <> to_jsonb(i);

-- A subtransaction that fails as a whole leaves nothing, whatever it did.
BEGIN;
SAVEPOINT a;
SELECT plinth.cache_set('pending', 'x', '1') IS NOT NULL;
SAVEPOINT b;
SELECT plinth.cache_set('pending', 'x', '2') IS NOT NULL;
RELEASE b;
SELECT plinth.cache_set('pending', 'x', '3') IS NOT NULL;
ROLLBACK TO a;
SELECT plinth.cache_get('pending', 'x');
COMMIT;
SELECT plinth.cache_get('pending', 'x');

-- What was computed from a change that is rolled back is not kept by its ticket afterwards.
CREATE TABLE cache_source AS SELECT 1 AS id, 'kept' AS body;
SELECT plinth.cache_watch('pending', 'cache_source', key_expression => 'id::text');
BEGIN;
UPDATE cache_source SET body = 'rolled back';
SELECT plinth.cache_ticket('pending') AS ticket \gset
SELECT to_jsonb(body) AS body FROM cache_source \gset
ROLLBACK;
SELECT plinth.cache_set('pending', '1', :'body', ticket => :ticket), plinth.cache_get('pending', '1');
BEGIN;
SAVEPOINT a;
UPDATE cache_source SET body = 'rolled back';
SELECT plinth.cache_ticket('pending') AS ticket \gset
ROLLBACK TO a;
SELECT plinth.cache_set('pending', '1', :'body', ticket => :ticket), plinth.cache_get('pending', '1');
COMMIT;
SELECT plinth.cache_get('pending', '1');
-- A new time to live reaches what the transaction itself has set, in memory and in the table.
SELECT plinth.cache_create('pending_table', per_user => false, durable => true);
BEGIN;
SELECT c, plinth.cache_set(c, 'touched', '1', ttl => '1 min') FROM unnest('{pending,pending_table}'::text[]) c;
SELECT c, plinth.cache_touch(c, 'touched', '1 day') FROM unnest('{pending,pending_table}'::text[]) c;
COMMIT;
SELECT c, l.found, l.expires_at > now() + '1 hour' AS later FROM unnest('{pending,pending_table}'::text[]) c, plinth.cache_lookup(c, 'touched') l;
SELECT plinth.cache_drop('pending_table');
-- Many subtransactions are reserved at once, and nothing stays in flux.
DO $$ BEGIN FOR i IN 1 .. 300 LOOP BEGIN PERFORM plinth.cache_set('pending', 's' || i, '1'); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$;
SELECT in_flux, (SELECT count(*) FROM generate_series(1, 300) i WHERE plinth.cache_get('pending', 's' || i) = '1') AS kept FROM plinth._cache_check();
-- Children of a table would not be seen.
CREATE TABLE cache_parent (id int);
CREATE TABLE cache_child () INHERITS (cache_parent);
SELECT plinth.cache_watch('pending', 'cache_parent');
DROP TABLE cache_child, cache_parent, cache_source;
SELECT plinth.cache_drop('pending');
