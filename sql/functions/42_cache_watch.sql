-- cache: tables that invalidate.

CREATE OR REPLACE FUNCTION plinth._cache_watched() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_cache_watched';
COMMENT ON FUNCTION plinth._cache_watched() IS
'Invalidates what a watch says of the changed row.
A trigger that cache_watch creates; its argument is the watch.';

CREATE OR REPLACE TRIGGER cache_watches_touched AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.cache_watches
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._cache_touched();
ALTER TABLE plinth.cache_watches ENABLE ALWAYS TRIGGER cache_watches_touched;

CREATE OR REPLACE FUNCTION plinth.cache_watch(cache text, relation regclass, key_expression text DEFAULT NULL,
        tag_expression text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_watch';
COMMENT ON FUNCTION plinth.cache_watch(text, regclass, text, text) IS
'Makes each change of a table invalidate entries of a cache, in the same transaction.
relation: a table or partitioned table of the caller''s. key_expression, tag_expression: over the row''s columns, IMMUTABLE and of functions written in C; the key or tag to invalidate, of the old row and of the new one, nothing for NULL; without either all of the cache. TRUNCATE invalidates all.
In a cache that is per user a key is invalidated for every user, with all keys that begin with it.
Errors: 42704 and 42501 as cache_alter, 42501 for a table that is not the caller''s, 42809 for what is no table, 0A000 for a temporary one, 42601, 42703, 42P17 and 0A000 for an expression that cannot be used, 22023 for both expressions.';

CREATE OR REPLACE FUNCTION plinth.cache_unwatch(cache text, relation regclass) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_unwatch';
COMMENT ON FUNCTION plinth.cache_unwatch(text, regclass) IS
'Ends all watches of a cache on a table; returns how many there were.
Errors: 42704 and 42501 as cache_alter.';

REVOKE ALL ON FUNCTION plinth._cache_watched(), plinth.cache_watch(text, regclass, text, text),
    plinth.cache_unwatch(text, regclass) FROM PUBLIC;
-- On purpose to PUBLIC: whoever restores a table creates its triggers, and these do nothing but for a watch of that
-- very table; the others ask who calls.
GRANT EXECUTE ON FUNCTION plinth._cache_watched(), plinth.cache_watch(text, regclass, text, text),
    plinth.cache_unwatch(text, regclass) TO PUBLIC;
