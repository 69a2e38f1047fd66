-- cache: what people call.  Each function asks who may use the cache that it names.

-- Triggers, ENABLE ALWAYS: a change made by hand or by a restore counts as much as one by the functions.

CREATE OR REPLACE FUNCTION plinth._cache_touched() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_cache_touched';
COMMENT ON FUNCTION plinth._cache_touched() IS
'Tells every backend that a cache''s definition changed, and forgets what the cache held.
A trigger on plinth.caches, for each statement and for each row.';

CREATE OR REPLACE TRIGGER caches_touched AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.caches
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._cache_touched();
CREATE OR REPLACE TRIGGER caches_row_touched AFTER INSERT OR UPDATE OR DELETE ON plinth.caches
    FOR EACH ROW EXECUTE FUNCTION plinth._cache_touched();
ALTER TABLE plinth.caches
    ENABLE ALWAYS TRIGGER caches_touched,
    ENABLE ALWAYS TRIGGER caches_row_touched;

-- Definitions.

CREATE OR REPLACE FUNCTION plinth.cache_create(
        name text, ttl interval DEFAULT NULL, max_bytes bigint DEFAULT 16777216, per_user boolean DEFAULT true,
        durable boolean DEFAULT false, overflow boolean DEFAULT false, jitter real DEFAULT 0,
        stale_ttl interval DEFAULT '0', max_value_bytes integer DEFAULT NULL, roles name[] DEFAULT '{}',
        warm text DEFAULT NULL)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_create';
COMMENT ON FUNCTION plinth.cache_create(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text) IS
'Creates a cache, which belongs to the caller.
name: at most 63 bytes. ttl: how long a value is fresh; NULL: until it is invalidated or evicted. max_bytes: of memory, and of the table of a durable cache.
per_user: whether each user has entries of their own, which nobody else can read. durable: entries stand in a logged table too; overflow: in an unlogged one, which outlives eviction but no crash.
jitter: by which part of it, at random, a ttl is shortened, 0 to 1. stale_ttl: how long after its ttl cache_fetch gives a value out while one caller computes it anew.
max_value_bytes: the largest value with its key, by default 1 MB or max_bytes. roles: who may use it beside the owner, ''public'' for everybody. warm: a query for rows (key, value) that fill the cache when the server starts, run as the owner; not for a cache that is per user.
Errors: 42501 without CREATE on the database or membership in plinth_admin, 42710 for a name in use, 42704 for an unknown role, 22023 and 22004 for wrong arguments.';

CREATE OR REPLACE FUNCTION plinth.cache_alter(
        name text, ttl interval DEFAULT NULL, max_bytes bigint DEFAULT NULL, per_user boolean DEFAULT NULL,
        durable boolean DEFAULT NULL, overflow boolean DEFAULT NULL, jitter real DEFAULT NULL,
        stale_ttl interval DEFAULT NULL, max_value_bytes integer DEFAULT NULL, roles name[] DEFAULT NULL,
        warm text DEFAULT NULL, enabled boolean DEFAULT NULL)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_alter';
COMMENT ON FUNCTION plinth.cache_alter(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text, boolean) IS
'Changes a cache; memory forgets what it held, its table does not.
Arguments as cache_create has them; NULL leaves as it is, a ttl of 0 and an empty warm take away. per_user, durable and overflow stay as they were created. enabled: false makes each read a miss, and keeps nothing.
Errors: 42704 for an unknown cache or role, 42501 for others than its owner and plinth_admin, 22023 for wrong arguments, 23514 for what does not go together, 0A000 for what cannot be changed.';

CREATE OR REPLACE FUNCTION plinth.cache_drop(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_drop';
COMMENT ON FUNCTION plinth.cache_drop(text) IS
'Drops a cache with its entries and watches.
Errors: 42704 for an unknown cache, 42501 for others than its owner and plinth_admin.';

-- Reading.

CREATE OR REPLACE FUNCTION plinth.cache_get(cache text, key text) RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_get';
COMMENT ON FUNCTION plinth.cache_get(text, text) IS
'Returns the fresh value of a key, which is the caller''s own in a cache that is per user.
key: at most 1024 bytes. NULL when there is none, and for a key that is known to be absent: cache_lookup tells them apart.
Errors: 42704 for an unknown cache, 42501 without the right to use it, PT401 when it is per user and nobody is signed in, 22004 and 54000 for a key that is NULL or too long, 42804 for a value that is not jsonb.';

CREATE OR REPLACE FUNCTION plinth.cache_get_text(cache text, key text) RETURNS text
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_get_text';
COMMENT ON FUNCTION plinth.cache_get_text(text, text) IS
'Returns the fresh text of a key.
Arguments and errors as of cache_get.';

CREATE OR REPLACE FUNCTION plinth.cache_get_bytea(cache text, key text) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_get_bytea';
COMMENT ON FUNCTION plinth.cache_get_bytea(text, text) IS
'Returns the fresh bytes of a key.
Arguments and errors as of cache_get.';

CREATE OR REPLACE FUNCTION plinth.cache_get_many(cache text, keys text[], OUT key text, OUT value jsonb) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'plinth_cache_get_many';
COMMENT ON FUNCTION plinth.cache_get_many(text, text[]) IS
'Returns the fresh values of several keys, one row for each key that has one.
A key that is known to be absent has a row with NULL. Errors as of cache_get.';

CREATE OR REPLACE FUNCTION plinth.cache_lookup(cache text, key text, OUT found boolean, OUT stale boolean, OUT kind text,
        OUT value jsonb, OUT value_text text, OUT value_bytes bytea, OUT expires_at timestamptz, OUT hits bigint,
        OUT last_access timestamptz) RETURNS record
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_lookup';
COMMENT ON FUNCTION plinth.cache_lookup(text, text) IS
'Returns all that is known of a key: its value, of whatever type, and its use.
found: false for a miss. stale: its ttl has passed, but not the cache''s stale_ttl. kind: ''null'' for a key that is known to be absent, ''jsonb'', ''text'' or ''bytea''; the value is in the column of its type.
expires_at: NULL for never. hits and last_access: since it came to this server''s memory; NULL when it is in the table only. Errors as of cache_get.';

-- Writing.

CREATE OR REPLACE FUNCTION plinth.cache_set(cache text, key text, value jsonb, ttl interval DEFAULT NULL,
        tags text[] DEFAULT NULL, ticket bigint DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_set';
COMMENT ON FUNCTION plinth.cache_set(text, text, jsonb, interval, text[], bigint) IS
'Sets the value of a key; others see it when the transaction commits.
value: NULL says that the key is known to be absent. ttl: how long it is fresh, by default as long as the cache says. tags: at most 16, by which it can be invalidated.
ticket: of cache_ticket, taken before the value was computed; without one the value is taken to be computed by this very statement.
Returns false for a value that is not kept: the cache is disabled, the ticket is no good any more, or the server is a standby.
Errors: as of cache_get; 54000 for a value that is too large or too many tags, 22023 for a ttl that is not above 0, 25006 in a read-only transaction for a cache that is durable or has overflow.';

CREATE OR REPLACE FUNCTION plinth.cache_set_text(cache text, key text, value text, ttl interval DEFAULT NULL,
        tags text[] DEFAULT NULL, ticket bigint DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_set_text';
COMMENT ON FUNCTION plinth.cache_set_text(text, text, text, interval, text[], bigint) IS
'Sets the text of a key.
Arguments, result and errors as of cache_set.';

CREATE OR REPLACE FUNCTION plinth.cache_set_bytea(cache text, key text, value bytea, ttl interval DEFAULT NULL,
        tags text[] DEFAULT NULL, ticket bigint DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_set_bytea';
COMMENT ON FUNCTION plinth.cache_set_bytea(text, text, bytea, interval, text[], bigint) IS
'Sets the bytes of a key.
Arguments, result and errors as of cache_set.';

CREATE OR REPLACE FUNCTION plinth.cache_ticket(cache text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_ticket';
COMMENT ON FUNCTION plinth.cache_ticket(text) IS
'Returns a ticket for a value that later statements compute, or the one that calls it, for cache_set.
A value whose ticket is older than an invalidation of its key or tags is not kept. 0, with which nothing is kept, under REPEATABLE READ and above, on a standby, and where an invalidation of the cache may have ended since a statement began that is still running, or a cursor was opened.
Errors: 42704 for an unknown cache, 42501 without the right to use it.';

CREATE OR REPLACE FUNCTION plinth.cache_touch(cache text, key text, ttl interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_touch';
COMMENT ON FUNCTION plinth.cache_touch(text, text, interval) IS
'Gives a key a new time to live from now on, at once; false when there is no such entry.
ttl: by default as long as the cache says. Errors: as of cache_set.';

CREATE OR REPLACE FUNCTION plinth.cache_fetch(cache text, key text, query text, args text[] DEFAULT NULL,
        ttl interval DEFAULT NULL, tags text[] DEFAULT NULL, wait_timeout interval DEFAULT '5 s',
        cache_null boolean DEFAULT false) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_fetch';
COMMENT ON FUNCTION plinth.cache_fetch(text, text, text, text[], interval, text[], interval, boolean) IS
'Returns the value of a key, or computes it by a query and keeps it; one caller computes while others wait.
query: returns one column and at most one row, which becomes jsonb; it runs as the caller, under a snapshot of its own. args: its parameters $1, $2, ... as texts of their types.
ttl, tags: as of cache_set. wait_timeout: how long to wait for another who computes the value; then the caller computes for itself. cache_null: whether a query without a row, or with NULL, makes the key known to be absent.
While a value is stale one caller computes it, and others get the stale one. Errors of the query are the caller''s and are not kept; a value that is too large is returned and not kept.
Errors: as of cache_get; 55006 for a query that fetches its own key, 21000 for several rows, 42601 for other than one column, 42P02 for missing args.';

-- Invalidating.

CREATE OR REPLACE FUNCTION plinth.cache_delete(cache text, key text, user_id uuid DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_delete';
COMMENT ON FUNCTION plinth.cache_delete(text, text, uuid) IS
'Invalidates a key: for this transaction at once, for others when it commits.
user_id: whose entry, for the cache''s owner and plinth_admin; NULL for the caller''s own.
Errors: as of cache_get; 42501 for another''s entry, 25006 on a standby, and in a read-only transaction for a cache that is durable or has overflow.';

CREATE OR REPLACE FUNCTION plinth.cache_delete_prefix(cache text, prefix text, user_id uuid DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_delete_prefix';
COMMENT ON FUNCTION plinth.cache_delete_prefix(text, text, uuid) IS
'Invalidates all keys that begin with a prefix.
prefix: at most 1024 bytes, taken as it is. user_id and errors as of cache_delete.';

CREATE OR REPLACE FUNCTION plinth.cache_invalidate_tag(cache text, tag text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_invalidate_tag';
COMMENT ON FUNCTION plinth.cache_invalidate_tag(text, text) IS
'Invalidates all entries that were set with a tag, whoever''s they are.
In a cache that is per user only for its owner and plinth_admin. Errors as of cache_delete.';

CREATE OR REPLACE FUNCTION plinth.cache_clear(cache text, user_id uuid DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_clear';
COMMENT ON FUNCTION plinth.cache_clear(text, uuid) IS
'Invalidates all entries; in a cache that is per user, for others than its owner and plinth_admin, only the caller''s own.
user_id: whose, for those two. Errors as of cache_delete.';

-- Rights.

REVOKE ALL ON FUNCTION plinth._cache_touched(),
    plinth.cache_create(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text),
    plinth.cache_alter(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text, boolean),
    plinth.cache_drop(text), plinth.cache_get(text, text), plinth.cache_get_text(text, text),
    plinth.cache_get_bytea(text, text), plinth.cache_get_many(text, text[]), plinth.cache_lookup(text, text),
    plinth.cache_set(text, text, jsonb, interval, text[], bigint),
    plinth.cache_set_text(text, text, text, interval, text[], bigint),
    plinth.cache_set_bytea(text, text, bytea, interval, text[], bigint), plinth.cache_ticket(text),
    plinth.cache_fetch(text, text, text, text[], interval, text[], interval, boolean),
    plinth.cache_touch(text, text, interval), plinth.cache_delete(text, text, uuid),
    plinth.cache_delete_prefix(text, text, uuid), plinth.cache_invalidate_tag(text, text),
    plinth.cache_clear(text, uuid) FROM PUBLIC;
-- On purpose to PUBLIC: any role may be named by a cache's owner, and each function asks who calls.
GRANT EXECUTE ON FUNCTION
    plinth.cache_create(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text),
    plinth.cache_alter(text, interval, bigint, boolean, boolean, boolean, real, interval, integer, name[], text, boolean),
    plinth.cache_drop(text), plinth.cache_get(text, text), plinth.cache_get_text(text, text),
    plinth.cache_get_bytea(text, text), plinth.cache_get_many(text, text[]), plinth.cache_lookup(text, text),
    plinth.cache_set(text, text, jsonb, interval, text[], bigint),
    plinth.cache_set_text(text, text, text, interval, text[], bigint),
    plinth.cache_set_bytea(text, text, bytea, interval, text[], bigint), plinth.cache_ticket(text),
    plinth.cache_fetch(text, text, text, text[], interval, text[], interval, boolean),
    plinth.cache_touch(text, text, interval), plinth.cache_delete(text, text, uuid),
    plinth.cache_delete_prefix(text, text, uuid), plinth.cache_invalidate_tag(text, text),
    plinth.cache_clear(text, uuid) TO PUBLIC;
