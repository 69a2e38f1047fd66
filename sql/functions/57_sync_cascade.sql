-- sync: cascades by rule.

CREATE OR REPLACE FUNCTION plinth.sync_cascade_rule(
        name text, relation regclass, key_column name, action text DEFAULT 'delete', assignments jsonb DEFAULT '{}')
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_cascade_rule';
COMMENT ON FUNCTION plinth.sync_cascade_rule(text, regclass, name, text, jsonb) IS
'Says what sync_cascade(name, key) does to the rows of a table whose column holds the key.
name: of the cascade, such as ''user''; all its tables have one owner. relation, key_column: where the key stands. action: ''delete'', ''anonymise'' or ''keep'' (counted, left alone).
assignments: for anonymise, what columns become, such as {"user_id": null, "username": "gone"}. A rule for the same table and column replaces the one before.
Errors: 42501 unless the table is the caller''s and the cascade''s tables have the same owner, 42809 for what is no table, 42703 for columns that it does not have, 42883 for one without equality, 22023 for other wrong arguments, 23502 for NULL in a column that takes none.';

CREATE OR REPLACE FUNCTION plinth.sync_cascade_drop(name text, relation regclass DEFAULT NULL) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_cascade_drop';
COMMENT ON FUNCTION plinth.sync_cascade_drop(text, regclass) IS
'Forgets the rules of a cascade, or those for one table.
name: of the cascade. relation: only of this one. Returns how many there were. Errors: 42704 when there is none, 42501 for those who are not members of its owner.';

CREATE OR REPLACE FUNCTION plinth.sync_cascade(name text, key text)
    RETURNS TABLE (relation regclass, action text, by_rule boolean, row_count bigint, mappings text[], collections text[])
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 20 AS 'MODULE_PATHNAME', 'plinth_sync_cascade';
COMMENT ON FUNCTION plinth.sync_cascade(text, text) IS
'Deletes, or makes anonymous, every row that names a key, by the cascade''s rules, and returns what it did.
name: of the cascade. key: the value, as text. Tables that refer to others come before those. Runs as the tables'' owner, as foreign keys do, in the caller''s transaction.
Returns a row a rule, and one a table that foreign keys and triggers changed besides (by_rule false; needs track_counts), with action deleted, anonymised, kept or updated, how many rows, and those mappings and collections that the caller may see whose documents follow: they have when plinth.sync_wait says so after the commit.
Errors: 42704 without rules of that name, 42501 for those who are not members of the tables'' owner, or where a table has another owner now, the key type''s own for what is no value of it.';

REVOKE ALL ON FUNCTION plinth.sync_cascade_rule(text, regclass, name, text, jsonb),
    plinth.sync_cascade_drop(text, regclass), plinth.sync_cascade(text, text) FROM PUBLIC;
-- On purpose to PUBLIC: any role may own tables, and each function asks who calls.
GRANT EXECUTE ON FUNCTION plinth.sync_cascade_rule(text, regclass, name, text, jsonb),
    plinth.sync_cascade_drop(text, regclass), plinth.sync_cascade(text, text) TO PUBLIC;
