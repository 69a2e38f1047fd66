-- Every line of docs/types.md: what a value becomes in MongoDB.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
RESET client_min_messages;
CREATE SCHEMA mongo_types;
SET search_path = mongo_types;
CREATE FUNCTION bson(item anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT plinth.from_bson(plinth.to_bson(item)) -> ''value''';
CREATE FUNCTION hex(item anyelement) RETURNS text LANGUAGE sql AS 'SELECT encode(plinth.to_bson(item), ''hex'')';
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE inner_row AS (n int, "x.y" text);
CREATE TYPE outer_row AS (a inner_row, b inner_row[], c numeric);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN positives AS positive[];

-- Booleans and integers: 08 bool, 10 Int32, 12 Int64, little endian.
SELECT hex(true), hex(1::int2), hex(-2::int4), hex(3::int8), hex(4294967295::oid);
SELECT bson(9223372036854775807) AS int8, bson('-32768'::int2) AS int2, bson(4294967295::oid) AS oid;

-- Floats: a Double, bit for bit.
SELECT hex(0.1::float8), hex('-0'::float8), bson(0.1::float4), bson('NaN'::float8), bson('-Infinity'::float4);

-- numeric: Decimal128 with its scale; over 34 digits its text.
SELECT bson(1.50::numeric) AS scale, bson('NaN'::numeric), bson('Infinity'::numeric), bson('-Infinity'::numeric), bson(0.000::numeric) AS zero;
SELECT bson(1234567890123456789012345678901234::numeric) AS digits34, bson(12345678901234567890123456789012345::numeric) AS digits35,
    bson(-0.1234567890123456789012345678901234::numeric) AS small34, bson(1e-6200::numeric) = to_jsonb((1e-6200::numeric)::text) AS below,
    bson(1e6000::numeric) AS large;

-- Times: milliseconds by floor division, before 1970 too; infinities sort at the ends.
SELECT bson('2024-02-29 12:34:56.789999+00'::timestamptz), bson('1969-12-31 23:59:59.9999+00'::timestamptz), bson('1970-01-01 00:00:00'::timestamp);
SELECT bson('infinity'::timestamptz), bson('-infinity'::timestamp), bson('infinity'::date), bson('-infinity'::date);
SELECT bson('4713-11-24 00:00:00 BC'::timestamp), bson('294276-12-31 23:59:59.999999'::timestamp), bson('5874897-12-31'::date), bson('1969-12-31'::date);
SELECT bson('12:34:56.789'::time), bson('12:34:56+02:30'::timetz), bson(interval '1 year 2 days -03:04:05.6');

-- Text and its like: strings.
SELECT bson('plain'::text), bson('padded'::char(8)), bson('var'::varchar(9)), bson('n'::name), bson('"'::"char"), bson(''::text);
SELECT bson('ok'::mood), bson('10.0.0.0/8'::cidr), bson('::1'::inet), bson('08:00:2b:01:02:03'::macaddr), bson(B'101'::bit(3));
SELECT bson(int4range(1, 5)), bson('{[1,2),[5,6)}'::int4multirange), bson(tstzrange('2020-01-01 00:00+00', NULL)), bson('(1,2)'::point), bson('a & b'::tsquery), bson('$.a'::jsonpath);
SELECT bson('pg_class'::regclass), bson('mongo_types.mood'::regtype), bson('int4in'::regproc), bson('0/16B3748'::pg_lsn);
SELECT bson('1.50'::money), bson('a:1 b:2'::tsvector), bson('1 2'::oidvector);

-- Binaries.
SELECT hex('00112233-4455-6677-8899-aabbccddeeff'::uuid), hex('\x00ff'::bytea), hex(''::bytea);

-- json and jsonb: names and nesting as they are, numbers by their value, no Extended JSON.
SELECT plinth.from_bson(plinth.to_bson('{"b": 1, "a": {"$date": 5}, "c.d": null, "": true}'::jsonb)), bson('[1, 1]'::json), plinth.from_bson(plinth.to_bson('{"b": [], "a": {}}'::json));
SELECT hex('[1, 2147483648, -2147483649, 1.0, 0.5, 9223372036854775807]'::jsonb);
SELECT bson('[9223372036854775808, 0.1, 1e400, 0.12345678901234567890123]'::jsonb), bson('"x"'::jsonb), bson('null'::jsonb);
\set VERBOSITY terse
SELECT bson('{"a": "\u0000"}'::json);
\set VERBOSITY default

-- Arrays of any depth, NULLs kept, lower bounds not told; domains as what they are over.
SELECT bson(ARRAY[1, NULL, 3]), bson(ARRAY[[1, 2], [3, NULL]]), bson('{}'::int[]), bson('[5:6]={7,8}'::int[]), bson('1 2'::int2vector), bson(ARRAY['a', NULL]);
SELECT bson(5::positive), bson('{5,6}'::positives), bson(ARRAY['00112233-4455-6677-8899-aabbccddeeff'::uuid]), bson(ARRAY['{"a":[1]}'::jsonb]);

-- Composites: sub-documents; a row by itself is the document.
SELECT plinth.from_bson(plinth.to_bson(ROW (ROW (1, 'x')::inner_row, ARRAY[ROW (2, NULL)::inner_row, NULL], 1.5)::outer_row));
SELECT plinth.from_bson(plinth.to_bson(ROW (1, 'x'::text, NULL::int)));
CREATE TABLE altered (a int, b text, c date);
INSERT INTO altered VALUES (1, 'b', '2020-01-01');
SELECT plinth.from_bson(plinth.to_bson(t)) FROM altered t;
ALTER TABLE altered DROP COLUMN b, ADD COLUMN d bool DEFAULT true;
SELECT plinth.from_bson(plinth.to_bson(t)) FROM altered t;

-- What is told does not depend on the session's settings.
SET DateStyle = 'German, DMY';
SET IntervalStyle = 'iso_8601';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
SELECT bson(tstzrange('2020-01-01 00:00+00', NULL)), bson(interval '1 day'), bson(daterange('2020-01-02', '2020-02-03')), bson('\xff'::bytea), bson(0.1::float8),
    bson('[0.1,0.2]'::numrange), bson('(0.1,0.3)'::point), bson('mongo_types.mood'::regtype);
SHOW DateStyle;
SHOW TimeZone;
RESET ALL;
SET search_path = mongo_types;

-- The limits of a document.
SELECT plinth.to_bson(repeat('x', 16777216));
SELECT length(plinth.to_bson(repeat('x', 16777193)));
SELECT plinth.to_bson(repeat('x', 16777200));
SELECT plinth.to_bson(array_fill(1, ARRAY[2000000]));
SELECT plinth.from_bson(plinth.to_bson((repeat('[', 97) || repeat(']', 97))::jsonb)) IS NOT NULL AS deep;
SELECT plinth.to_bson((repeat('[', 101) || repeat(']', 101))::jsonb);
SELECT plinth.to_bson(NULL::int) IS NULL AS strict;

-- Bytes from anyone: sound, or an error.
SELECT plinth.from_bson(''), 1;
SELECT plinth.from_bson('\x0500000000');
SELECT plinth.from_bson('\x0600000000');
SELECT plinth.from_bson('\x050000000000');
SELECT plinth.from_bson('\x0c0000001061000100000000');
SELECT plinth.from_bson('\x0c00000010610001000000');
SELECT plinth.from_bson('\x0c000000226100010000000000');
SELECT plinth.from_bson('\x0e00000002610002000000ff0000');
SELECT plinth.from_bson('\x0f0000000261000300000061006200');
SELECT plinth.from_bson('\x0f00000002610003000000610000');
SELECT plinth.from_bson('\x08000000ee610000');
SELECT plinth.from_bson('\x0800000006610000') AS undefined, plinth.from_bson('\x08000000ff610000') AS min, plinth.from_bson('\x080000007f610000') AS max;
SELECT plinth.from_bson('\x10000000116100020000000100000000') AS stamp, plinth.from_bson('\x0c0000000b61006200690000') AS regex;
SELECT plinth.from_bson('\x140000000761000102030405060708090a0b0c00') AS oid, plinth.from_bson('\x1a0000000c61000200000063000102030405060708090a0b0c00') AS pointer;
SELECT plinth.from_bson('\x10000000016100000000000000f87f00') AS nan, plinth.from_bson('\x10000000096100000000000000008000') AS date;
SELECT plinth.from_bson('\x0e0000000d610002000000780000') AS code, plinth.from_bson('\x0e0000000e610002000000780000') AS symbol;
SELECT plinth.from_bson('\x170000000f61000f000000020000007800050000000000') AS scoped;
SELECT plinth.from_bson('\x170000000f61000f000000020000007800060000000000');
SELECT plinth.from_bson('\x170000000f610010000000020000007800050000000000');
SELECT plinth.from_bson('\x0f000000106100010000001061000200000000');
SELECT plinth.from_bson('\x13000000106100010000001061000200000000') AS last_wins;
CREATE FUNCTION nested(levels int) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    document bytea := '\x0500000000';
    size int;
BEGIN
    FOR i IN 2 .. levels LOOP
        size := length(document) + 8;
        document := set_byte(set_byte(set_byte('\x00000000'::bytea, 0, size & 255), 1, size >> 8 & 255), 2, size >> 16) || '\x036100' || document || '\x00';
    END LOOP;
    RETURN document;
END $$;
SELECT length(plinth.from_bson(nested(100))::text) > 500 AS deep;
SELECT plinth.from_bson(nested(101));
SELECT plinth.from_bson(nested(20000));

-- Nothing that is cut or changed crashes the backend.
DO $$
DECLARE
    whole bytea := plinth.to_bson(ROW (1, 'text'::text, 1.5, now(), '{"a": [1, {"b": null}]}'::jsonb, ARRAY[1, 2], '\x0102'::bytea));
    sound int := 0;
BEGIN
    FOR i IN 0 .. length(whole) - 1 LOOP
        FOR value IN 0 .. 255 BY 15 LOOP
            BEGIN
                PERFORM plinth.from_bson(set_byte(whole, i, value));
                sound := sound + 1;
            EXCEPTION WHEN data_exception THEN NULL;
            END;
        END LOOP;
    END LOOP;
    ASSERT sound BETWEEN 1 AND length(whole) * 18;
END $$;

SET client_min_messages = warning;
DROP SCHEMA mongo_types CASCADE;
