-- The classes of the public BSON corpus: what is valid goes to Extended JSON
-- and back byte for byte, what is not is refused, and so is JSON that is no
-- Extended JSON.  Each case's bytes were put together by hand from the
-- specification, and not by what is tested.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE SCHEMA mongo_extjson;
SET search_path = mongo_extjson;
RESET client_min_messages;
CREATE TABLE valid (class text, name text, document bytea, canonical text);
CREATE TABLE invalid (class text, name text, document bytea);
CREATE FUNCTION outcome(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    why text;
BEGIN
    EXECUTE sql INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
    RETURN SQLSTATE || coalesce(' ' || nullif(why, ''), '');
END $$;
INSERT INTO valid VALUES
    ('double', '1.0', '\x10000000016400000000000000f03f00', '{"d": {"$numberDouble": "1.0"}}'),
    ('double', '-1.0', '\x10000000016400000000000000f0bf00', '{"d": {"$numberDouble": "-1.0"}}'),
    ('double', '1.0001220703125', '\x10000000016400000000008000f03f00', '{"d": {"$numberDouble": "1.0001220703125"}}'),
    ('double', '-1.0001220703125', '\x10000000016400000000008000f0bf00', '{"d": {"$numberDouble": "-1.0001220703125"}}'),
    ('double', '1.2345678921232e+18', '\x100000000164002a1bf5f41022b14300', '{"d": {"$numberDouble": "1.2345678921232e+18"}}'),
    ('double', '0.0', '\x10000000016400000000000000000000', '{"d": {"$numberDouble": "0.0"}}'),
    ('double', '-0.0', '\x10000000016400000000000000008000', '{"d": {"$numberDouble": "-0.0"}}'),
    ('double', 'NaN', '\x10000000016400000000000000f87f00', '{"d": {"$numberDouble": "NaN"}}'),
    ('double', 'Infinity', '\x10000000016400000000000000f07f00', '{"d": {"$numberDouble": "Infinity"}}'),
    ('double', '-Infinity', '\x10000000016400000000000000f0ff00', '{"d": {"$numberDouble": "-Infinity"}}'),
    ('double', '0.1', '\x100000000164009a9999999999b93f00', '{"d": {"$numberDouble": "0.1"}}'),
    ('double', '5e-324', '\x10000000016400010000000000000000', '{"d": {"$numberDouble": "5e-324"}}'),
    ('double', '1.7976931348623157e+308', '\x10000000016400ffffffffffffef7f00', '{"d": {"$numberDouble": "1.7976931348623157e+308"}}'),
    ('double', '2.2250738585072014e-308', '\x10000000016400000000000000100000', '{"d": {"$numberDouble": "2.2250738585072014e-308"}}'),
    ('double', '0.30000000000000004', '\x10000000016400343333333333d33f00', '{"d": {"$numberDouble": "0.30000000000000004"}}'),
    ('double', '9.007199254740992e+15', '\x10000000016400000000000000404300', '{"d": {"$numberDouble": "9.007199254740992e+15"}}'),
    ('string', 'empty', '\x0d000000026100010000000000', '{"a": ""}'),
    ('string', 'one character', '\x0e00000002610002000000620000', '{"a": "b"}'),
    ('string', 'several', '\x190000000261000d0000006162616261626162616261620000', '{"a": "abababababab"}'),
    ('string', 'two-byte UTF-8', '\x190000000261000d000000c3a9c3a9c3a9c3a9c3a9c3a90000', '{"a": "éééééé"}'),
    ('string', 'three-byte UTF-8', '\x190000000261000d000000e29886e29886e29886e298860000', '{"a": "☆☆☆☆"}'),
    ('string', 'four-byte UTF-8', '\x1100000002610005000000f09f98800000', '{"a": "😀"}'),
    ('string', 'embedded NULs', '\x190000000261000d0000006162006261620062616261620000', '{"a": "ab\u0000bab\u0000babab"}'),
    ('string', 'only a NUL', '\x0e00000002610002000000000000', '{"a": "\u0000"}'),
    ('string', 'NULs at both ends', '\x1100000002610005000000000078000000', '{"a": "\u0000\u0000x\u0000"}'),
    ('string', 'control characters, with NUL', '\x3100000002610025000000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f225c2f7f0000', '{"a": "\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\"\\/"}'),
    ('string', 'control characters, without', '\x2c000000026100200000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0000', '{"a": "\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f"}'),
    ('string', 'an escape spelt out', '\x15000000026100090000005c753030303001000000', '{"a": "\\u0000\u0001\u0000"}'),
    ('document', 'empty', '\x0d000000037800050000000000', '{"x": {}}'),
    ('document', 'empty name', '\x150000000378000d00000002000200000062000000', '{"x": {"": "b"}}'),
    ('document', 'nested', '\x160000000378000e0000000261000200000062000000', '{"x": {"a": "b"}}'),
    ('document', 'names with dollars and dots', '\x340000000378002c0000000224610002000000620002612e6200020000006300022400020000006400022e000200000065000000', '{"x": {"$a": "b", "a.b": "c", "$": "d", ".": "e"}}'),
    ('document', 'names twice', '\x13000000106100010000001061000200000000', '{"a": {"$numberInt": "1"}, "a": {"$numberInt": "2"}}'),
    ('document', 'order of names', '\x100000000a62000a61000a5f69640000', '{"b": null, "a": null, "_id": null}'),
    ('array', 'empty', '\x0d000000046100050000000000', '{"a": []}'),
    ('array', 'one element', '\x140000000461000c0000001030000a0000000000', '{"a": [{"$numberInt": "10"}]}'),
    ('array', 'more than nine', '\x2f000000046100270000000a30000a31000a32000a33000a34000a35000a36000a37000a38000a39000a3130000000', '{"a": [null, null, null, null, null, null, null, null, null, null, null]}'),
    ('array', 'nested and mixed', '\x2c000000046100240000000430000d0000000430000500000000000831000103320005000000000a33000000', '{"a": [[[]], true, {}, null]}'),
    ('binary', '00, empty', '\x0d000000057800000000000000', '{"x": {"$binary": {"base64": "", "subType": "00"}}}'),
    ('binary', '00', '\x0f0000000578000200000000ffff00', '{"x": {"$binary": {"base64": "//8=", "subType": "00"}}}'),
    ('binary', '01', '\x0f0000000578000200000001ffff00', '{"x": {"$binary": {"base64": "//8=", "subType": "01"}}}'),
    ('binary', '02, with its length inside', '\x13000000057800060000000202000000ffff00', '{"x": {"$binary": {"base64": "//8=", "subType": "02"}}}'),
    ('binary', '02, empty', '\x1100000005780004000000020000000000', '{"x": {"$binary": {"base64": "", "subType": "02"}}}'),
    ('binary', '03, an old UUID', '\x1d000000057800100000000373ffd26444b34c6990e8e7d1dfc035d400', '{"x": {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "03"}}}'),
    ('binary', '04, a UUID', '\x1d000000057800100000000473ffd26444b34c6990e8e7d1dfc035d400', '{"x": {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "04"}}}'),
    ('binary', '05, MD5', '\x1d000000057800100000000573ffd26444b34c6990e8e7d1dfc035d400', '{"x": {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "05"}}}'),
    ('binary', '06, encrypted', '\x0e00000005780001000000060100', '{"x": {"$binary": {"base64": "AQ==", "subType": "06"}}}'),
    ('binary', '07, compressed column', '\x1d000000057800100000000773ffd26444b34c6990e8e7d1dfc035d400', '{"x": {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "07"}}}'),
    ('binary', '08, sensitive', '\x270000000578001a000000086162636465666768696a6b6c6d6e6f707172737475767778797a00', '{"x": {"$binary": {"base64": "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo=", "subType": "08"}}}'),
    ('binary', '09, vector', '\x1300000005780006000000092700feff424200', '{"x": {"$binary": {"base64": "JwD+/0JC", "subType": "09"}}}'),
    ('binary', '80, of a user', '\x0f0000000578000200000080ffff00', '{"x": {"$binary": {"base64": "//8=", "subType": "80"}}}'),
    ('binary', 'ff, the last', '\x1000000005780003000000ff00010200', '{"x": {"$binary": {"base64": "AAEC", "subType": "ff"}}}'),
    ('binary', 'a type and a binary of another type in one', '\x1f000000037800170000000224747970650007000000737472696e67000000', '{"x": {"$type": "string"}}'),
    ('binary', '$type of a query', '\x180000000378001000000010247479706500020000000000', '{"x": {"$type": {"$numberInt": "2"}}}'),
    ('undefined', 'undefined', '\x0800000006610000', '{"a": {"$undefined": true}}'),
    ('objectid', 'zeros', '\x1400000007610000000000000000000000000000', '{"a": {"$oid": "000000000000000000000000"}}'),
    ('objectid', 'ones', '\x14000000076100ffffffffffffffffffffffff00', '{"a": {"$oid": "ffffffffffffffffffffffff"}}'),
    ('objectid', 'random', '\x1400000007610056e1fc72e0c917e9c471416100', '{"a": {"$oid": "56e1fc72e0c917e9c4714161"}}'),
    ('boolean', 'true', '\x090000000862000100', '{"b": true}'),
    ('boolean', 'false', '\x090000000862000000', '{"b": false}'),
    ('date', 'epoch', '\x10000000096100000000000000000000', '{"a": {"$date": {"$numberLong": "0"}}}'),
    ('date', 'positive', '\x10000000096100c5d8d6cc3b01000000', '{"a": {"$date": {"$numberLong": "1356351330501"}}}'),
    ('date', 'negative', '\x10000000096100c33ce7b9bdffffff00', '{"a": {"$date": {"$numberLong": "-284643869501"}}}'),
    ('date', 'year 10000', '\x1000000009610000dc1fd277e6000000', '{"a": {"$date": {"$numberLong": "253402300800000"}}}'),
    ('date', 'the last of 9999', '\x10000000096100ffdb1fd277e6000000', '{"a": {"$date": {"$numberLong": "253402300799999"}}}'),
    ('date', 'least', '\x10000000096100000000000000008000', '{"a": {"$date": {"$numberLong": "-9223372036854775808"}}}'),
    ('date', 'greatest', '\x10000000096100ffffffffffffff7f00', '{"a": {"$date": {"$numberLong": "9223372036854775807"}}}'),
    ('null', 'null', '\x080000000a610000', '{"a": null}'),
    ('regex', 'empty', '\x0a0000000b6100000000', '{"a": {"$regularExpression": {"pattern": "", "options": ""}}}'),
    ('regex', 'without options', '\x0d0000000b6100616263000000', '{"a": {"$regularExpression": {"pattern": "abc", "options": ""}}}'),
    ('regex', 'with options', '\x0f0000000b610061626300696d0000', '{"a": {"$regularExpression": {"pattern": "abc", "options": "im"}}}'),
    ('regex', 'all options', '\x110000000b61006100696c6d7375780000', '{"a": {"$regularExpression": {"pattern": "a", "options": "ilmsux"}}}'),
    ('regex', 'with a slash', '\x110000000b610061622f636400696d0000', '{"a": {"$regularExpression": {"pattern": "ab/cd", "options": "im"}}}'),
    ('regex', 'not ASCII', '\x0c0000000b6100c3a9000000', '{"a": {"$regularExpression": {"pattern": "é", "options": ""}}}'),
    ('regex', 'quotes and backslashes', '\x0d0000000b61005c2261000000', '{"a": {"$regularExpression": {"pattern": "\\\"a", "options": ""}}}'),
    ('regex', 'as the value of $regex', '\x1a000000036100120000000b2472656765780070006978000000', '{"a": {"$regex": {"$regularExpression": {"pattern": "p", "options": "ix"}}}}'),
    ('regex', '$regex and $options as strings', '\x2c00000003610024000000022472656765780002000000700002246f7074696f6e7300030000006978000000', '{"a": {"$regex": "p", "$options": "ix"}}'),
    ('regex', '$regex as a regex, with $options', '\x29000000036100210000000b2472656765780070000002246f7074696f6e7300030000006978000000', '{"a": {"$regex": {"$regularExpression": {"pattern": "p", "options": ""}}, "$options": "ix"}}'),
    ('dbpointer', 'DBPointer', '\x1a0000000c610002000000620056e1fc72e0c917e9c471416100', '{"a": {"$dbPointer": {"$ref": "b", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}}}'),
    ('dbpointer', 'not ASCII', '\x1b0000000c610003000000c3a90056e1fc72e0c917e9c471416100', '{"a": {"$dbPointer": {"$ref": "é", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}}}'),
    ('dbpointer', 'a NUL in the name', '\x1c0000000c61000400000062006300ffffffffffffffffffffffff00', '{"a": {"$dbPointer": {"$ref": "b\u0000c", "$id": {"$oid": "ffffffffffffffffffffffff"}}}}'),
    ('symbol', 'empty', '\x0d0000000e6100010000000000', '{"a": {"$symbol": ""}}'),
    ('symbol', 'one character', '\x0e0000000e610002000000620000', '{"a": {"$symbol": "b"}}'),
    ('symbol', 'several', '\x110000000e610005000000616261620000', '{"a": {"$symbol": "abab"}}'),
    ('symbol', 'two-byte UTF-8', '\x110000000e610005000000c3a9c3a90000', '{"a": {"$symbol": "éé"}}'),
    ('symbol', 'three-byte UTF-8', '\x100000000e610004000000e298860000', '{"a": {"$symbol": "☆"}}'),
    ('symbol', 'embedded NULs', '\x140000000e610008000000616200626162000000', '{"a": {"$symbol": "ab\u0000bab\u0000"}}'),
    ('code', 'empty', '\x0d0000000d6100010000000000', '{"a": {"$code": ""}}'),
    ('code', 'one character', '\x0e0000000d610002000000620000', '{"a": {"$code": "b"}}'),
    ('code', 'several', '\x110000000d610005000000616261620000', '{"a": {"$code": "abab"}}'),
    ('code', 'two-byte UTF-8', '\x110000000d610005000000c3a9c3a90000', '{"a": {"$code": "éé"}}'),
    ('code', 'three-byte UTF-8', '\x100000000d610004000000e298860000', '{"a": {"$code": "☆"}}'),
    ('code', 'embedded NULs', '\x140000000d610008000000616200626162000000', '{"a": {"$code": "ab\u0000bab\u0000"}}'),
    ('code with scope', 'empty code, empty scope', '\x160000000f61000e0000000100000000050000000000', '{"a": {"$code": "", "$scope": {}}}'),
    ('code with scope', 'code, empty scope', '\x1a0000000f610012000000050000006162636400050000000000', '{"a": {"$code": "abcd", "$scope": {}}}'),
    ('code with scope', 'empty code, a scope', '\x1d0000000f61001500000001000000000c000000107800010000000000', '{"a": {"$code": "", "$scope": {"x": {"$numberInt": "1"}}}}'),
    ('code with scope', 'code, a scope', '\x210000000f6100190000000500000061626364000c000000107800010000000000', '{"a": {"$code": "abcd", "$scope": {"x": {"$numberInt": "1"}}}}'),
    ('code with scope', 'UTF-8 and a NUL, empty scope', '\x1a0000000f61001200000005000000c3a9640000050000000000', '{"a": {"$code": "éd\u0000", "$scope": {}}}'),
    ('code with scope', 'code in the scope', '\x320000000f61002a000000020000006600200000000f6700180000000200000067000e0000000d6800020000006800000000', '{"a": {"$code": "f", "$scope": {"g": {"$code": "g", "$scope": {"h": {"$code": "h"}}}}}}'),
    ('int32', '-2147483648', '\x0c0000001069000000008000', '{"i": {"$numberInt": "-2147483648"}}'),
    ('int32', '2147483647', '\x0c000000106900ffffff7f00', '{"i": {"$numberInt": "2147483647"}}'),
    ('int32', '-1', '\x0c000000106900ffffffff00', '{"i": {"$numberInt": "-1"}}'),
    ('int32', '0', '\x0c0000001069000000000000', '{"i": {"$numberInt": "0"}}'),
    ('int32', '1', '\x0c0000001069000100000000', '{"i": {"$numberInt": "1"}}'),
    ('int64', '-9223372036854775808', '\x10000000126100000000000000008000', '{"a": {"$numberLong": "-9223372036854775808"}}'),
    ('int64', '9223372036854775807', '\x10000000126100ffffffffffffff7f00', '{"a": {"$numberLong": "9223372036854775807"}}'),
    ('int64', '-1', '\x10000000126100ffffffffffffffff00', '{"a": {"$numberLong": "-1"}}'),
    ('int64', '0', '\x10000000126100000000000000000000', '{"a": {"$numberLong": "0"}}'),
    ('int64', '1', '\x10000000126100010000000000000000', '{"a": {"$numberLong": "1"}}'),
    ('timestamp', 'plain', '\x100000001161002a00000015cd5b0700', '{"a": {"$timestamp": {"t": 123456789, "i": 42}}}'),
    ('timestamp', 'both at the greatest', '\x10000000116100ffffffffffffffff00', '{"a": {"$timestamp": {"t": 4294967295, "i": 4294967295}}}'),
    ('timestamp', 'over 31 bits', '\x1000000011610000286bee00286bee00', '{"a": {"$timestamp": {"t": 4000000000, "i": 4000000000}}}'),
    ('timestamp', 'zero', '\x10000000116100000000000000000000', '{"a": {"$timestamp": {"t": 0, "i": 0}}}'),
    ('minkey', 'MinKey', '\x08000000ff610000', '{"a": {"$minKey": 1}}'),
    ('maxkey', 'MaxKey', '\x080000007f610000', '{"a": {"$maxKey": 1}}'),
    ('decimal128', 'NaN', '\x180000001364000000000000000000000000000000007c00', '{"d": {"$numberDecimal": "NaN"}}'),
    ('decimal128', 'Infinity', '\x180000001364000000000000000000000000000000007800', '{"d": {"$numberDecimal": "Infinity"}}'),
    ('decimal128', '-Infinity', '\x18000000136400000000000000000000000000000000f800', '{"d": {"$numberDecimal": "-Infinity"}}'),
    ('decimal128', '0', '\x180000001364000000000000000000000000000000403000', '{"d": {"$numberDecimal": "0"}}'),
    ('decimal128', '-0', '\x18000000136400000000000000000000000000000040b000', '{"d": {"$numberDecimal": "-0"}}'),
    ('decimal128', '0.0', '\x1800000013640000000000000000000000000000003e3000', '{"d": {"$numberDecimal": "0.0"}}'),
    ('decimal128', '-0.0', '\x1800000013640000000000000000000000000000003eb000', '{"d": {"$numberDecimal": "-0.0"}}'),
    ('decimal128', '0.000000', '\x180000001364000000000000000000000000000000343000', '{"d": {"$numberDecimal": "0.000000"}}'),
    ('decimal128', '0E-7', '\x180000001364000000000000000000000000000000323000', '{"d": {"$numberDecimal": "0E-7"}}'),
    ('decimal128', '0E+300', '\x180000001364000000000000000000000000000000983200', '{"d": {"$numberDecimal": "0E+300"}}'),
    ('decimal128', '0E-600', '\x180000001364000000000000000000000000000000902b00', '{"d": {"$numberDecimal": "0E-600"}}'),
    ('decimal128', '-0E+600', '\x180000001364000000000000000000000000000000f0b400', '{"d": {"$numberDecimal": "-0E+600"}}'),
    ('decimal128', '0E+6111', '\x180000001364000000000000000000000000000000fe5f00', '{"d": {"$numberDecimal": "0E+6111"}}'),
    ('decimal128', '-0E+6111', '\x180000001364000000000000000000000000000000fedf00', '{"d": {"$numberDecimal": "-0E+6111"}}'),
    ('decimal128', '0E-6176', '\x180000001364000000000000000000000000000000000000', '{"d": {"$numberDecimal": "0E-6176"}}'),
    ('decimal128', '1', '\x180000001364000100000000000000000000000000403000', '{"d": {"$numberDecimal": "1"}}'),
    ('decimal128', '-1', '\x18000000136400010000000000000000000000000040b000', '{"d": {"$numberDecimal": "-1"}}'),
    ('decimal128', '1.0', '\x180000001364000a000000000000000000000000003e3000', '{"d": {"$numberDecimal": "1.0"}}'),
    ('decimal128', '1.00', '\x1800000013640064000000000000000000000000003c3000', '{"d": {"$numberDecimal": "1.00"}}'),
    ('decimal128', '2', '\x180000001364000200000000000000000000000000403000', '{"d": {"$numberDecimal": "2"}}'),
    ('decimal128', '0.1', '\x1800000013640001000000000000000000000000003e3000', '{"d": {"$numberDecimal": "0.1"}}'),
    ('decimal128', '0.001234', '\x18000000136400d204000000000000000000000000343000', '{"d": {"$numberDecimal": "0.001234"}}'),
    ('decimal128', '123456789012', '\x18000000136400141a99be1c000000000000000000403000', '{"d": {"$numberDecimal": "123456789012"}}'),
    ('decimal128', '1234567890123456789012345678901234', '\x18000000136400f2af967ed05c82de3297ff6fde3c403000', '{"d": {"$numberDecimal": "1234567890123456789012345678901234"}}'),
    ('decimal128', '0.1234567890123456789012345678901234', '\x18000000136400f2af967ed05c82de3297ff6fde3cfc2f00', '{"d": {"$numberDecimal": "0.1234567890123456789012345678901234"}}'),
    ('decimal128', '1.234567890123456789012345678901234', '\x18000000136400f2af967ed05c82de3297ff6fde3cfe2f00', '{"d": {"$numberDecimal": "1.234567890123456789012345678901234"}}'),
    ('decimal128', '123400000', '\x1800000013640040ef5a0700000000000000000000403000', '{"d": {"$numberDecimal": "123400000"}}'),
    ('decimal128', '1E+3', '\x180000001364000100000000000000000000000000463000', '{"d": {"$numberDecimal": "1E+3"}}'),
    ('decimal128', '1.2E+4', '\x180000001364000c00000000000000000000000000463000', '{"d": {"$numberDecimal": "1.2E+4"}}'),
    ('decimal128', '1.05E+5', '\x180000001364006900000000000000000000000000463000', '{"d": {"$numberDecimal": "1.05E+5"}}'),
    ('decimal128', '1E-7', '\x180000001364000100000000000000000000000000323000', '{"d": {"$numberDecimal": "1E-7"}}'),
    ('decimal128', '0.000001', '\x180000001364000100000000000000000000000000343000', '{"d": {"$numberDecimal": "0.000001"}}'),
    ('decimal128', '0.0000012345', '\x1800000013640039300000000000000000000000002c3000', '{"d": {"$numberDecimal": "0.0000012345"}}'),
    ('decimal128', '1.2345E-8', '\x180000001364003930000000000000000000000000283000', '{"d": {"$numberDecimal": "1.2345E-8"}}'),
    ('decimal128', '1E+6111', '\x180000001364000100000000000000000000000000fe5f00', '{"d": {"$numberDecimal": "1E+6111"}}'),
    ('decimal128', '9.999999999999999999999999999999999E+6144', '\x18000000136400ffffffff638e8d37c087adbe09edff5f00', '{"d": {"$numberDecimal": "9.999999999999999999999999999999999E+6144"}}'),
    ('decimal128', '-9.999999999999999999999999999999999E+6144', '\x18000000136400ffffffff638e8d37c087adbe09edffdf00', '{"d": {"$numberDecimal": "-9.999999999999999999999999999999999E+6144"}}'),
    ('decimal128', '1.000000000000000000000000000000000E+6144', '\x18000000136400000000000a5bc138938d44c64d31fe5f00', '{"d": {"$numberDecimal": "1.000000000000000000000000000000000E+6144"}}'),
    ('decimal128', '1E-6176', '\x180000001364000100000000000000000000000000000000', '{"d": {"$numberDecimal": "1E-6176"}}'),
    ('decimal128', '-1E-6176', '\x180000001364000100000000000000000000000000008000', '{"d": {"$numberDecimal": "-1E-6176"}}'),
    ('decimal128', '1.000000000000000000000000000000000E-6143', '\x18000000136400000000000a5bc138938d44c64d31000000', '{"d": {"$numberDecimal": "1.000000000000000000000000000000000E-6143"}}'),
    ('decimal128', '9999999999999999999999999999999999', '\x18000000136400ffffffff638e8d37c087adbe09ed413000', '{"d": {"$numberDecimal": "9999999999999999999999999999999999"}}'),
    ('decimal128', '-99999999999999.99999999999999999999', '\x18000000136400ffffffff638e8d37c087adbe09ed19b000', '{"d": {"$numberDecimal": "-99999999999999.99999999999999999999"}}'),
    ('decimal128', '18446744073709551615', '\x18000000136400ffffffffffffffff000000000000403000', '{"d": {"$numberDecimal": "18446744073709551615"}}'),
    ('decimal128', '18446744073709551616', '\x180000001364000000000000000000010000000000403000', '{"d": {"$numberDecimal": "18446744073709551616"}}'),
    ('decimal128', '5192296858534827628530496329220095', '\x18000000136400ffffffffffffffffffffffffffff403000', '{"d": {"$numberDecimal": "5192296858534827628530496329220095"}}'),
    ('dbref', 'collection and id', '\x2e0000000364627265660022000000022472656600020000006300072469640056e1fc72e0c917e9c47141610000', '{"dbref": {"$ref": "c", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}}'),
    ('dbref', 'with a database', '\x39000000036462726566002d000000022472656600020000006300072469640056e1fc72e0c917e9c471416102246462000200000064000000', '{"dbref": {"$ref": "c", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}, "$db": "d"}}'),
    ('dbref', 'with more fields', '\x46000000036462726566003a000000022472656600020000006300072469640056e1fc72e0c917e9c4714161022464620002000000640002666f6f0004000000626172000000', '{"dbref": {"$ref": "c", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}, "$db": "d", "foo": "bar"}}'),
    ('dbref', 'types that no DBRef has', '\x26000000036462726566001a000000102472656600010000000a246964000824646200010000', '{"dbref": {"$ref": {"$numberInt": "1"}, "$id": null, "$db": true}}'),
    ('top', 'empty', '\x0500000000', '{}'),
    ('top', 'empty name', '\x0d000000020002000000780000', '{"": "x"}'),
    ('top', 'names with dollars and dots', '\x1e000000102461000100000010612e62000200000010242e000300000000', '{"$a": {"$numberInt": "1"}, "a.b": {"$numberInt": "2"}, "$.": {"$numberInt": "3"}}'),
    ('top', 'spelling a wrapper', '\x1c00000002246f696400020000007800102464617465000300000000', '{"$oid": "x", "$date": {"$numberInt": "3"}}'),
    ('top', 'a name that is not ASCII', '\x100000000ac3a9e29886f09f98800000', '{"é☆😀": null}'),
    ('top', 'all types', '\x9a010000075f69640056e1fc72e0c917e9c47141610e53796d626f6c000700000073796d626f6c0002537472696e670007000000737472696e670010496e743332002a00000012496e743634002a0000000000000001446f75626c6500000000000000f0bf0542696e61727900100000000373ffd26444b34c6990e8e7d1dfc035d4055573657200050000008001020304050d436f6465000e00000066756e6374696f6e2829207b7d000f53636f706564001b0000000e00000066756e6374696f6e2829207b7d00050000000003446f63756d656e74001200000002666f6f00040000006261720000044172726179001a000000103000010000001031000200000010320003000000001154696d657374616d7000010000002a0000000b5265676578007061747465726e00000944617465000000000000000000085472756500010846616c736500000c506f696e7465720002000000630056e1fc72e0c917e9c4714161ff4d696e007f4d6178000a4e756c6c0006556e646566696e65640013446563696d616c000f000000000000000000000000003e3000', '{"_id": {"$oid": "56e1fc72e0c917e9c4714161"}, "Symbol": {"$symbol": "symbol"}, "String": "string", "Int32": {"$numberInt": "42"}, "Int64": {"$numberLong": "42"}, "Double": {"$numberDouble": "-1.0"}, "Binary": {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "03"}}, "User": {"$binary": {"base64": "AQIDBAU=", "subType": "80"}}, "Code": {"$code": "function() {}"}, "Scoped": {"$code": "function() {}", "$scope": {}}, "Document": {"foo": "bar"}, "Array": [{"$numberInt": "1"}, {"$numberInt": "2"}, {"$numberInt": "3"}], "Timestamp": {"$timestamp": {"t": 42, "i": 1}}, "Regex": {"$regularExpression": {"pattern": "pattern", "options": ""}}, "Date": {"$date": {"$numberLong": "0"}}, "True": true, "False": false, "Pointer": {"$dbPointer": {"$ref": "c", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}}, "Min": {"$minKey": 1}, "Max": {"$maxKey": 1}, "Null": null, "Undefined": {"$undefined": true}, "Decimal": {"$numberDecimal": "1.5"}}');

INSERT INTO invalid VALUES
    ('double', 'cut', '\x0c0000000164000000000000'),
    ('string', 'length -1', '\x0c000000026100ffffffff00'),
    ('string', 'length 0', '\x0c0000000261000000000000'),
    ('string', 'longer than its document', '\x10000000026100050000006200620000'),
    ('string', 'much longer', '\x0e000000026100ffffff7f620000'),
    ('string', 'no terminating zero', '\x10000000026100040000006162636400'),
    ('string', 'not UTF-8', '\x0e00000002610002000000e90000'),
    ('string', 'half a character', '\x0e00000002610002000000c30000'),
    ('string', 'a surrogate', '\x1000000002610004000000eda0800000'),
    ('string', 'an overlong character', '\x0f00000002610003000000c0af0000'),
    ('string', 'an overlong NUL', '\x0f00000002610003000000c0800000'),
    ('string', 'over U+10FFFF', '\x1100000002610005000000f49080800000'),
    ('code', 'length -1', '\x0c0000000d6100ffffffff00'),
    ('code', 'length 0', '\x0c0000000d61000000000000'),
    ('code', 'longer than its document', '\x100000000d6100050000006200620000'),
    ('code', 'much longer', '\x0e0000000d6100ffffff7f620000'),
    ('code', 'no terminating zero', '\x100000000d6100040000006162636400'),
    ('code', 'not UTF-8', '\x0e0000000d610002000000e90000'),
    ('code', 'half a character', '\x0e0000000d610002000000c30000'),
    ('code', 'a surrogate', '\x100000000d610004000000eda0800000'),
    ('code', 'an overlong character', '\x0f0000000d610003000000c0af0000'),
    ('code', 'an overlong NUL', '\x0f0000000d610003000000c0800000'),
    ('code', 'over U+10FFFF', '\x110000000d610005000000f49080800000'),
    ('symbol', 'length -1', '\x0c0000000e6100ffffffff00'),
    ('symbol', 'length 0', '\x0c0000000e61000000000000'),
    ('symbol', 'longer than its document', '\x100000000e6100050000006200620000'),
    ('symbol', 'much longer', '\x0e0000000e6100ffffff7f620000'),
    ('symbol', 'no terminating zero', '\x100000000e6100040000006162636400'),
    ('symbol', 'not UTF-8', '\x0e0000000e610002000000e90000'),
    ('symbol', 'half a character', '\x0e0000000e610002000000c30000'),
    ('symbol', 'a surrogate', '\x100000000e610004000000eda0800000'),
    ('symbol', 'an overlong character', '\x0f0000000e610003000000c0af0000'),
    ('symbol', 'an overlong NUL', '\x0f0000000e610003000000c0800000'),
    ('symbol', 'over U+10FFFF', '\x110000000e610005000000f49080800000'),
    ('document', 'too long: takes the end of the outer one', '\x10000000036600090000000a62000000'),
    ('document', 'longer than what is there', '\x0d000000036600640000000000'),
    ('document', 'shorter than its members', '\x16000000036600050000000261000200000062000000'),
    ('document', 'a bad string in it', '\x150000000366000d00000002620000000000000000'),
    ('document', 'a name that is not UTF-8', '\x080000000aff0000'),
    ('array', 'longer than what is there', '\x0d0000000461000d0000000000'),
    ('array', 'a bad string in it', '\x150000000461000d00000002300000000000000000'),
    ('array', 'cut', '\x0b00000004610005000000'),
    ('binary', 'length -1', '\x0d000000057800ffffffff0000'),
    ('binary', 'longer than its document', '\x100000000578001d0000000061626300'),
    ('binary', '02, inner length too long', '\x13000000057800060000000203000000ffff00'),
    ('binary', '02, too short', '\x13000000057800060000000201000000ffff00'),
    ('binary', '02, -1', '\x130000000578000600000002ffffffffffff00'),
    ('binary', '02, without inner length', '\x0e00000005780001000000020100'),
    ('objectid', 'cut', '\x1300000007610056e1fc72e0c917e9c4714100'),
    ('boolean', 'value 2', '\x090000000862000200'),
    ('boolean', 'value 255', '\x09000000086200ff00'),
    ('date', 'cut', '\x0f0000000961000000000000000000'),
    ('regex', 'a NUL in the pattern', '\x0e0000000b610061006200630000'),
    ('regex', 'no end of the options', '\x0b0000000b610061006900'),
    ('regex', 'a NUL in the options', '\x0f0000000b610061620069006d0000'),
    ('regex', 'not UTF-8', '\x0b0000000b6100ff000000'),
    ('dbpointer', 'length -1', '\x1a0000000c6100ffffffff620056e1fc72e0c917e9c471416100'),
    ('dbpointer', 'length 0', '\x190000000c6100000000000056e1fc72e0c917e9c471416100'),
    ('dbpointer', 'no terminating zero', '\x1a0000000c610002000000626256e1fc72e0c917e9c471416100'),
    ('dbpointer', 'an ObjectId that is cut', '\x190000000c610002000000620056e1fc72e0c917e9c4714100'),
    ('dbpointer', 'not UTF-8', '\x1a0000000c610002000000e90056e1fc72e0c917e9c471416100'),
    ('code with scope', 'length -1', '\x210000000f6100ffffffff0500000061626364000c000000107800010000000000'),
    ('code with scope', 'length 0', '\x210000000f6100000000000500000061626364000c000000107800010000000000'),
    ('code with scope', 'shorter than its code', '\x210000000f61000a0000000500000061626364000c000000107800010000000000'),
    ('code with scope', 'one too short', '\x210000000f6100180000000500000061626364000c000000107800010000000000'),
    ('code with scope', 'one too long', '\x210000000f61001a0000000500000061626364000c000000107800010000000000'),
    ('code with scope', 'much longer', '\x210000000f6100ffffff7f0500000061626364000c000000107800010000000000'),
    ('code with scope', 'code of length 0', '\x160000000f61000e0000000000000000050000000000'),
    ('code with scope', 'code longer than all', '\x170000000f61000f000000ff0000007800050000000000'),
    ('code with scope', 'the scope is no document', '\x170000000f61000f000000020000007800040000000000'),
    ('code with scope', 'not UTF-8', '\x170000000f61000f00000002000000ff00050000000000'),
    ('int32', 'cut', '\x0b00000010690000000000'),
    ('int64', 'cut', '\x0f0000001261000000000000000000'),
    ('timestamp', 'cut', '\x0f0000001161000000000000000000'),
    ('decimal128', 'cut', '\x1700000013640000000000000000000000000000000000'),
    ('top', 'nothing', '\x'),
    ('top', 'only a length', '\x04000000'),
    ('top', 'length 4', '\x0400000000'),
    ('top', 'length 0', '\x0000000000'),
    ('top', 'length -1', '\xffffffff00'),
    ('top', 'one byte behind', '\x050000000000'),
    ('top', 'no terminating zero', '\x0500000001'),
    ('top', 'longer than what is there', '\x130000000a610000'),
    ('top', 'shorter than what is there', '\x070000000a610000'),
    ('top', 'cut in a name', '\x07000000026100'),
    ('top', 'members behind the end', '\x09000000000a610000'),
    ('top', 'type 14', '\x0800000014610000'),
    ('top', 'type 15', '\x0800000015610000'),
    ('top', 'type 7e', '\x080000007e610000'),
    ('top', 'type 80', '\x0800000080610000'),
    ('top', 'type fe', '\x08000000fe610000');

-- Valid: how many of each class, and those that differ (none).
SELECT class, count(*) FROM valid GROUP BY class ORDER BY class COLLATE "C";
SELECT class, name, plinth.bson_to_extjson(document) AS written, canonical FROM valid WHERE plinth.bson_to_extjson(document) <> canonical;
SELECT class, name, plinth.extjson_to_bson(canonical) AS read, document FROM valid WHERE plinth.extjson_to_bson(canonical) <> document;
SELECT class, name FROM valid WHERE plinth.extjson_to_bson(plinth.bson_to_extjson(document, relaxed => true)) <> document
    ORDER BY class COLLATE "C", name COLLATE "C";
-- The settings of the session say nothing about it.
SET DateStyle = 'German, DMY';
SET extra_float_digits = -15;
SET TimeZone = 'Asia/Kathmandu';
SELECT count(*) AS differ FROM valid WHERE plinth.bson_to_extjson(document) <> canonical OR plinth.extjson_to_bson(canonical) <> document;
SELECT plinth.extjson_to_bson('{"a": {"$date": "2024-02-03T01:02:03.004Z"}}') = plinth.extjson_to_bson('{"a": {"$date": {"$numberLong": "1706922123004"}}}') AS day_and_month;
RESET DateStyle;
RESET extra_float_digits;
RESET TimeZone;

-- Relaxed, for people.
SELECT plinth.bson_to_extjson(document, relaxed => true) FROM valid WHERE class IN ('double', 'date') ORDER BY class COLLATE "C", name COLLATE "C";
SELECT plinth.bson_to_extjson(document, relaxed => true) FROM valid WHERE name = 'all types';

-- Invalid: refused, and where.
SELECT class, name, outcome(format('SELECT plinth.bson_to_extjson(%L::bytea)', document)) AS refused FROM invalid;
SELECT count(*) AS taken FROM invalid WHERE outcome(format('SELECT plinth.bson_to_extjson(%L::bytea)', document)) !~ '^22P03 ';
SELECT count(*) AS taken FROM invalid WHERE outcome(format('SELECT plinth.from_bson(%L::bytea)', document)) !~ '^22P03 ';

-- What can be read but is not written so.
SELECT t, outcome(format('SELECT plinth.bson_to_extjson(plinth.extjson_to_bson(%L))', t)) AS canonical FROM (VALUES
    ('{"a": 1, "b": -2147483648, "c": 2147483648, "d": -9223372036854775808, "e": 9223372036854775808, "f": 1.0, "g": 1e3, "h": -0, "i": -0.0}'),
    ('{"a": {"$date": "1970-01-01T00:00:00Z"}, "b": {"$date": "2012-12-24T12:15:30.501Z"}, "c": {"$date": "2012-12-24T13:15:30.501+01:00"}, "d": {"$date": "1969-12-31T23:59:59.9999-0000"}}'),
    ('{"a": {"$uuid": "73ffd264-44b3-4c69-90e8-e7d1dfc035d4"}, "b": {"$uuid": "73FFD264-44B3-4C69-90E8-E7D1DFC035D4"}}'),
    ('{"a": {"$binary": {"subType": "0", "base64": "AQ=="}}, "b": {"$scope": {}, "$code": "c"}, "c": {"$timestamp": {"i": 1, "t": 2}}}'),
    ('{"a": {"$regularExpression": {"options": "xi", "pattern": "p"}}, "b": {"$numberDouble": "1E+3"}, "c": {"$numberDouble": "1"}}'),
    ('{"a": {"$numberDecimal": "+1"}, "b": {"$numberDecimal": "inf"}, "c": {"$numberDecimal": "-iNfInItY"}, "d": {"$numberDecimal": "nan"}, "e": {"$numberDecimal": "1e5"}, "f": {"$numberDecimal": "00012"}, "g": {"$numberDecimal": "10E-6177"}}'),
    ('{"a": {"$numberDecimal": "1.000000000000000000000000000000000E+6112"}, "b": {"$numberDecimal": "0E+7000"}, "c": {"$numberDecimal": "0E-7000"}}'),
    ('{"\u00e9\uD83D\uDE00": "\u00E9\ud83d\ude00", "\u0001": "\u0001\u0000\u0001"}'),
    ('{"$type": {"$oid": "56e1fc72e0c917e9c4714161"}, "a": {"$scope": 1}, "b": {"$type": {"$minKey": 1}}}')) AS v (t);

-- JSON that is no Extended JSON.
SELECT t AS refused, outcome(format('SELECT plinth.extjson_to_bson(%L)', t)) FROM (VALUES
    (''), ('{'), ('[]'), ('1'), ('"x"'), ('null'), ('{"a": 1} x'), ('{"a": 1}{}'), ('{a: 1}'), ('{"a": 01}'), ('{"a": NaN}'), ('{"a": ''b''}'), ('{"a": 1,}'),
    ('{"a": "\ud800"}'), ('{"a": "\u12"}'), ('{"a": 1e400}'), ('{"a\u0000b": 1}'), ('{"x": {"a\u0000b": 1}}'), ('{"x": [{"y": {"$oid": 1}}]}'),
    ('{"a": {"$oid": "56e1fc72e0c917e9c471416"}}'), ('{"a": {"$oid": "56e1fc72e0c917e9c47141612"}}'), ('{"a": {"$oid": "56e1fc72e0c917e9c471416g"}}'), ('{"a": {"$oid": "56e1fc72e0c917e9c4714161", "x": 1}}'),
    ('{"a": {"$symbol": 1}}'), ('{"a": {"$symbol": "a", "x": 1}}'),
    ('{"a": {"$numberInt": 1}}'), ('{"a": {"$numberInt": ""}}'), ('{"a": {"$numberInt": "1.0"}}'), ('{"a": {"$numberInt": "2147483648"}}'), ('{"a": {"$numberInt": " 1"}}'), ('{"a": {"$numberInt": "1\u0000"}}'), ('{"a": {"$numberInt": "1", "x": 1}}'),
    ('{"a": {"$numberLong": 1}}'), ('{"a": {"$numberLong": "9223372036854775808"}}'), ('{"a": {"$numberLong": "0x1"}}'), ('{"a": {"$numberLong": "1", "x": 1}}'),
    ('{"a": {"$numberDouble": 1.0}}'), ('{"a": {"$numberDouble": ""}}'), ('{"a": {"$numberDouble": "inf"}}'), ('{"a": {"$numberDouble": "1e400"}}'), ('{"a": {"$numberDouble": "0x1p3"}}'), ('{"a": {"$numberDouble": "1.0 "}}'), ('{"a": {"$numberDouble": "1", "x": 1}}'),
    ('{"a": {"$numberDecimal": 1}}'), ('{"a": {"$numberDecimal": ""}}'), ('{"a": {"$numberDecimal": "."}}'), ('{"a": {"$numberDecimal": "..1"}}'), ('{"a": {"$numberDecimal": "1e"}}'), ('{"a": {"$numberDecimal": "E1"}}'), ('{"a": {"$numberDecimal": "1x"}}'), ('{"a": {"$numberDecimal": " 1"}}'),
    ('{"a": {"$numberDecimal": "--1"}}'), ('{"a": {"$numberDecimal": "1.2.3"}}'), ('{"a": {"$numberDecimal": "1E6145"}}'), ('{"a": {"$numberDecimal": "1E-6177"}}'), ('{"a": {"$numberDecimal": "12345678901234567890123456789012345"}}'), ('{"a": {"$numberDecimal": "1", "x": 1}}'),
    ('{"a": {"$binary": "AQ=="}}'), ('{"a": {"$binary": "AQ==", "$type": "00"}}'), ('{"a": {"$binary": {"base64": 0, "subType": "00"}}}'), ('{"a": {"$binary": {"base64": "", "subType": 0}}}'), ('{"a": {"$binary": {"base64": ""}}}'), ('{"a": {"$binary": {"subType": "00"}}}'),
    ('{"a": {"$binary": {"base64": "", "subType": "00", "x": 1}}}'), ('{"a": {"$binary": {"base64": "A", "subType": "00"}}}'), ('{"a": {"$binary": {"base64": "A*==", "subType": "00"}}}'), ('{"a": {"$binary": {"base64": "", "subType": "000"}}}'), ('{"a": {"$binary": {"base64": "", "subType": "g"}}}'), ('{"a": {"$binary": {"base64": "", "subType": ""}}}'),
    ('{"a": {"$uuid": 1}}'), ('{"a": {"$uuid": "73ffd264-44b3-4c69-90e8-e7d1dfc035d"}}'), ('{"a": {"$uuid": "73ffd264-44b3-4c69-90e8-e7d1dfc035d4a"}}'), ('{"a": {"$uuid": "73ffd26444b3-4c69-90e8-e7d1d-fc035d4"}}'), ('{"a": {"$uuid": "73ffd26444b34c6990e8e7d1dfc035d4"}}'),
    ('{"a": {"$code": 1}}'), ('{"a": {"$code": 1, "$scope": {}}}'), ('{"a": {"$code": "c", "x": 1}}'), ('{"a": {"$code": "c", "$scope": 1}}'), ('{"a": {"$code": "c", "$scope": {}, "x": 1}}'),
    ('{"a": {"$timestamp": 1}}'), ('{"a": {"$timestamp": {"t": "1", "i": 1}}}'), ('{"a": {"$timestamp": {"t": 1, "i": "1"}}}'), ('{"a": {"$timestamp": {"t": 1}}}'), ('{"a": {"$timestamp": {"i": 1}}}'), ('{"a": {"$timestamp": {"t": 1, "i": 1, "x": 1}}}'), ('{"a": {"$timestamp": {"t": 1, "i": 1}, "x": 1}}'),
    ('{"a": {"$timestamp": {"t": -1, "i": 1}}}'), ('{"a": {"$timestamp": {"t": 4294967296, "i": 1}}}'), ('{"a": {"$timestamp": {"t": 1.0, "i": 1}}}'),
    ('{"a": {"$regularExpression": "p"}}'), ('{"a": {"$regularExpression": {"pattern": 1, "options": ""}}}'), ('{"a": {"$regularExpression": {"pattern": "p", "options": 1}}}'), ('{"a": {"$regularExpression": {"pattern": "p"}}}'), ('{"a": {"$regularExpression": {"options": ""}}}'),
    ('{"a": {"$regularExpression": {"pattern": "p", "options": "", "x": 1}}}'), ('{"a": {"$regularExpression": {"pattern": "a\u0000b", "options": ""}}}'), ('{"a": {"$regularExpression": {"pattern": "b", "options": "i\u0000"}}}'), ('{"a": {"$regularExpression": {"pattern": "b", "options": "g"}}}'),
    ('{"a": {"$dbPointer": {"$ref": "b"}}}'), ('{"a": {"$dbPointer": {"$ref": 1, "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}}}'), ('{"a": {"$dbPointer": {"$ref": "b", "$id": "56e1fc72e0c917e9c4714161"}}}'), ('{"a": {"$dbPointer": {"$ref": "b", "$id": {"$oid": "x"}}}}'), ('{"a": {"$dbPointer": {"$ref": "b", "$id": {"$oid": "56e1fc72e0c917e9c4714161"}}, "x": 1}}'),
    ('{"a": {"$date": 5}}'), ('{"a": {"$date": "yesterday"}}'), ('{"a": {"$date": "2012-12-24"}}'), ('{"a": {"$date": "2012-12-24T12:15:30"}}'), ('{"a": {"$date": "2012-13-24T12:15:30Z"}}'), ('{"a": {"$date": "2012-12-24T12:15:30.Z"}}'), ('{"a": {"$date": {"$numberLong": 5}}}'), ('{"a": {"$date": {"$numberInt": "5"}}}'), ('{"a": {"$date": {"$numberLong": "5", "x": 1}}}'), ('{"a": {"$date": "1970-01-01T00:00:00Z", "x": 1}}'),
    ('{"a": {"$minKey": true}}'), ('{"a": {"$minKey": 2}}'), ('{"a": {"$minKey": 1, "x": 1}}'), ('{"a": {"$maxKey": "1"}}'), ('{"a": {"$maxKey": 1, "x": 1}}'), ('{"a": {"$undefined": false}}'), ('{"a": {"$undefined": true, "x": 1}}')) AS v (t);

-- Levels: as many as MongoDB stores, in documents, arrays and scopes; no more, and no more of mere brackets.
CREATE FUNCTION nested(levels int, open text, inner_value text, shut text) RETURNS text LANGUAGE sql AS
    $$ SELECT '{"a": ' || repeat(open, levels - 1) || inner_value || repeat(shut, levels - 1) || '}' $$;
SELECT kind, levels, outcome(format('SELECT plinth.bson_to_extjson(plinth.extjson_to_bson(%1$L)) = %1$L', nested(levels, o, i, s))) AS same
    FROM (VALUES ('documents', '{"a": ', '{"$minKey": 1}', '}'), ('arrays', '[', '{"$date": {"$numberLong": "1"}}', ']'), ('scopes', '{"$code": "", "$scope": {"a": ', 'null', '}}')) AS v (kind, o, i, s), unnest('{100,101}'::int[]) AS levels;
SELECT outcome(format('SELECT plinth.extjson_to_bson(%L)', repeat('[', 1000000)));
SELECT outcome(format('SELECT plinth.extjson_to_bson(%L)', repeat('{"a":', 1000000)));
SELECT outcome(format('SELECT plinth.extjson_to_bson(%L)', '{"a": "' || repeat('x', 16777216) || '"}'));
SELECT length(plinth.extjson_to_bson('{"a": "' || repeat('x', 16777203) || '"}'));

-- Whatever is cut or changed is refused or read, and never crashes the backend; what is read goes there and back.
DO $$
DECLARE
    whole bytea := (SELECT document FROM valid WHERE name = 'all types');
    text text := (SELECT canonical FROM valid WHERE name = 'all types');
    changed bytea;
    again text;
    sound int := 0;
    read int := 0;
BEGIN
    FOR i IN 0 .. length(whole) - 1 LOOP
        FOR value IN 0 .. 255 BY 17 LOOP
            BEGIN
                changed := set_byte(whole, i, value);
                again := plinth.bson_to_extjson(changed);
                sound := sound + 1;
                ASSERT plinth.bson_to_extjson(plinth.extjson_to_bson(again)) = again, again;
            EXCEPTION WHEN data_exception THEN NULL;
            END;
        END LOOP;
    END LOOP;
    FOR i IN 1 .. length(text) LOOP
        FOREACH again IN ARRAY '{"",x,\",1,\\,\{,]}'::text[] LOOP
            BEGIN
                PERFORM plinth.bson_to_extjson(plinth.extjson_to_bson(overlay(text PLACING again FROM i FOR 1)));
                read := read + 1;
            EXCEPTION WHEN data_exception THEN NULL;
            END;
        END LOOP;
    END LOOP;
    ASSERT sound > 100 AND read > 100, sound || ' ' || read;
END $$;

-- Bytes that Extended JSON has no words for come back as what they mean (see docs/types.md).
SELECT name, plinth.bson_to_extjson(document) AS written, plinth.extjson_to_bson(plinth.bson_to_extjson(document)) = document AS same FROM (VALUES
    ('a NaN with a payload', '\x10000000016400120000000000f87f00'::bytea),
    ('a Decimal128 NaN with a payload', '\x180000001364001200000000000000000000000000007c00'),
    ('a Decimal128 that signals', '\x180000001364000000000000000000000000000000007e00'),
    ('a Decimal128 beyond 34 digits', '\x18000000136400ffffffffffffffffffffffffffff106c00'),
    ('names of array elements', '\x1100000004610009000000087800010000'),
    ('options that are not in order', '\x0d0000000b610070006d690000'),
    ('a document that spells a wrapper', '\x1c00000003610014000000022473796d626f6c000200000078000000')) AS v (name, document);

SET client_min_messages = warning;
DROP SCHEMA mongo_extjson CASCADE;
