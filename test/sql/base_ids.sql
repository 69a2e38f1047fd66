-- Identifiers and base64url in SQL; their exact forms are tested in test/unit.
SELECT substr(u::text, 15, 1) AS version, substr(u::text, 20, 1) IN ('8', '9', 'a', 'b') AS variant,
    abs(('x' || replace(left(u::text, 13), '-', ''))::bit(48)::bigint / 1000 - extract(epoch FROM clock_timestamp())) < 60 AS of_now
FROM plinth.uuid_v7() u;
SELECT count(DISTINCT u) AS distinct, bool_and(u > before) AS ascending
FROM (SELECT u, lag(u) OVER (ORDER BY i) AS before FROM (SELECT i, plinth.uuid_v7() AS u FROM generate_series(1, 20000) i OFFSET 0) s) t;

SELECT plinth.ulid('rpl') ~ '^rpl_[0-9A-HJKMNP-TV-Z]{26}$' AS prefixed, plinth.ulid() ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$' AS bare,
    plinth.ulid('a_2') ~ '^a_2_' AS underscore, plinth.ulid('sixteen_letters_') ~ '^sixteen_letters__' AS longest,
    plinth.ulid(NULL) IS NULL AS of_null, plinth.ulid('x') <> plinth.ulid('x') AS differ;
SELECT plinth.ulid('Rpl');
SELECT plinth.ulid('seventeen_letters');
SELECT plinth.ulid('a-b');
SELECT plinth.ulid('ä');

SELECT plinth.objectid() ~ '^[0-9a-f]{24}$' AS form,
    abs(('x' || left(plinth.objectid(), 8))::bit(32)::bigint - extract(epoch FROM clock_timestamp())) < 60 AS of_now;
-- The same process, counting.
SELECT substr(a, 9, 10) = substr(b, 9, 10) AS same_process,
    (('x00' || right(b, 6))::bit(32)::int - ('x00' || right(a, 6))::bit(32)::int + 16777216) % 16777216 AS step
FROM (SELECT plinth.objectid() AS a, plinth.objectid() AS b) s;

SELECT plinth.base64url_encode('\xfbff'), plinth.base64url_encode(''), plinth.base64url_encode(NULL),
    plinth.base64url_decode('-_8'), plinth.base64url_decode('');
SELECT bool_and(plinth.base64url_decode(plinth.base64url_encode(b)) = b) AS round_trip,
    bool_and(plinth.base64url_encode(b) = rtrim(translate(encode(b, 'base64'), E'+/\n', '-_'), '=')) AS as_base64
FROM (SELECT decode(repeat(md5(i::text), i), 'hex') AS b FROM generate_series(0, 100) i) s;
SELECT plinth.base64url_decode('Zg==');
SELECT plinth.base64url_decode('Zh');

-- They are column defaults for roles that have nothing else of the schema.
CREATE ROLE regress_plinth_ids;
CREATE TABLE base_ids_t (a uuid DEFAULT plinth.uuid_v7(), b text DEFAULT plinth.ulid('t'), c text DEFAULT plinth.objectid());
GRANT INSERT ON base_ids_t TO regress_plinth_ids;
SET ROLE regress_plinth_ids;
INSERT INTO base_ids_t DEFAULT VALUES;
RESET ROLE;
DROP TABLE base_ids_t;
DROP ROLE regress_plinth_ids;
