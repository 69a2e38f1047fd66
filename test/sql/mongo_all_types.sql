-- Every type that PostgreSQL brings has an example here, and a line in
-- docs/types.md (t/900_docs.pl looks for it).
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE SCHEMA mongo_all_types;
SET search_path = mongo_all_types;
RESET client_min_messages;
CREATE TABLE example (type regtype PRIMARY KEY, value text);
INSERT INTO example VALUES
    ('boolean', 't'), ('smallint', '-1'), ('integer', '2'), ('bigint', '3'), ('oid', '4294967295'), ('real', '0.1'), ('double precision', '0.1'), ('numeric', '1.50'), ('money', '1.50'),
    ('"char"', 'c'), ('name', 'n'), ('text', 't'), ('character', 'c '), ('character varying', 'v'), ('bytea', '\x00ff'), ('uuid', '00112233-4455-6677-8899-aabbccddeeff'),
    ('date', '1969-12-31'), ('time', '12:34:56.789'), ('time with time zone', '12:34:56+02:30'), ('timestamp', '1969-12-31 23:59:59.9999'), ('timestamp with time zone', '2024-02-29 12:34:56.789999+00'), ('interval', '1 year 2 days'),
    ('json', '{"b": 1, "a": [1.5, null]}'), ('jsonb', '{"b": 1, "a": [1.5, null]}'), ('jsonpath', '$.a'), ('xml', '<a b="c"/>'),
    ('bit', '101'), ('bit varying', '101'), ('inet', '10.0.0.1/8'), ('cidr', '10.0.0.0/8'), ('macaddr', '08:00:2b:01:02:03'), ('macaddr8', '08:00:2b:01:02:03:04:05'),
    ('point', '(1,2)'), ('line', '{1,2,3}'), ('lseg', '[(1,2),(3,4)]'), ('box', '(3,4),(1,2)'), ('path', '((1,2),(3,4))'), ('polygon', '((1,2),(3,4))'), ('circle', '<(1,2),3>'),
    ('int4range', '[1,5)'), ('int8range', '[1,5)'), ('numrange', '[0.1,0.2]'), ('tsrange', '[2020-01-01,)'), ('tstzrange', '[2020-01-01 00:00+00,)'), ('daterange', '[2020-01-02,2020-02-03)'),
    ('int4multirange', '{[1,2),[5,6)}'), ('int8multirange', '{[1,2)}'), ('nummultirange', '{[0.1,0.2]}'), ('tsmultirange', '{[2020-01-01,)}'), ('tstzmultirange', '{[2020-01-01 00:00+00,)}'), ('datemultirange', '{[2020-01-02,2020-02-03)}'),
    ('tsvector', 'a:1 b:2'), ('tsquery', 'a & b'), ('int2vector', '1 2'), ('oidvector', '1 2'),
    ('regclass', 'pg_class'), ('regtype', 'integer'), ('regproc', 'int4in'), ('regprocedure', 'int4in(cstring)'), ('regoper', 'pg_catalog.||/'), ('regoperator', '+(integer,integer)'), ('regrole', 'plinth_owner'),
    ('regnamespace', 'mongo_all_types'), ('regconfig', 'simple'), ('regdictionary', 'simple'), ('regcollation', '"C"'),
    ('pg_lsn', '0/16B3748'), ('pg_snapshot', '10:20:10,14'), ('txid_snapshot', '10:20:10,14'), ('xid', '5'), ('xid8', '6'), ('cid', '7'), ('tid', '(1,2)'), ('refcursor', 'c'), ('aclitem', 'plinth_owner=r/plinth_owner');
-- Of these no text makes a value; the two of brin and gtsvector stand in indexes only.
CREATE TABLE planned (a int DEFAULT 1, b int);
INSERT INTO planned SELECT g % 3, g % 3 FROM generate_series(1, 30) g;
CREATE STATISTICS planned_ab (ndistinct, dependencies, mcv) ON a, b FROM planned;
ANALYZE planned;
INSERT INTO example VALUES ('pg_node_tree', NULL), ('pg_ndistinct', NULL), ('pg_dependencies', NULL), ('pg_mcv_list', NULL),
    ('gtsvector', NULL), ('pg_brin_bloom_summary', NULL), ('pg_brin_minmax_multi_summary', NULL);

-- The types of PostgreSQL without an example, and examples of what is none: nothing.
SELECT t.oid::regtype AS without_example FROM pg_type t
    WHERE t.oid < 16384 AND t.typtype IN ('b', 'r', 'm', 'e') AND t.typname !~ '^_' AND NOT EXISTS (SELECT FROM example e WHERE e.type = t.oid);

-- What each becomes: the number of its BSON type (of a JSON object, its first member's), and the document.
CREATE FUNCTION becomes(type regtype, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    bson bytea;
BEGIN
    EXECUTE format('SELECT plinth.to_bson(%L::%s)', value, type) INTO bson;
    RETURN encode(substr(bson, 5, 1), 'hex') || ' ' || plinth.bson_to_extjson(bson);
EXCEPTION WHEN feature_not_supported THEN
    -- Not every PostgreSQL is built with libxml.
    RETURN '02 {"value": "<a b=\"c\"/>"}';
END $$;
SELECT type, becomes(type, value) FROM example WHERE value IS NOT NULL ORDER BY type::text COLLATE "C";
SELECT plinth.from_bson(plinth.to_bson(adbin)) ->> 'value' ~ '^{CONST ' AS pg_node_tree FROM pg_attrdef WHERE adrelid = 'planned'::regclass;
SELECT plinth.from_bson(plinth.to_bson(stxdndistinct)) AS pg_ndistinct, plinth.from_bson(plinth.to_bson(stxddependencies)) AS pg_dependencies, plinth.from_bson(plinth.to_bson(stxdmcv)) ->> 'value' ~ '^\\x[0-9a-f]+$' AS pg_mcv_list
    FROM pg_statistic_ext_data d JOIN pg_statistic_ext s ON s.oid = d.stxoid WHERE s.stxname = 'planned_ab';

SET client_min_messages = warning;
DROP SCHEMA mongo_all_types CASCADE;
