-- ---------------------------------------------------------------------------
-- cache: an account of the shared memory
-- ---------------------------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth._cache_check(
	OUT blocks bigint, OUT used bigint, OUT entries bigint, OUT in_flux bigint)
	RETURNS record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'plinth_cache_check';
COMMENT ON FUNCTION plinth._cache_check() IS
'Accounts for the caches'' shared memory.
Returns how many blocks of 256 bytes there are, how many are in use by how many entries (of all databases), and how many slots are between an invalidation''s begin and its end; for tests and for diagnosis.
Errors: XX001 where something does not add up.';
REVOKE ALL ON FUNCTION plinth._cache_check() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._cache_check() TO plinth_admin;
