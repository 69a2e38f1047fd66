-- mongo: the foreign-data wrapper, under which servers and user mappings say
-- where a MongoDB is and how to get in.

CREATE FUNCTION plinth.mongodb_fdw_validator(options text[], catalog oid) RETURNS void
    AS 'MODULE_PATHNAME', 'plinth_mongo_validator'
    LANGUAGE C STRICT;

CREATE FOREIGN DATA WRAPPER mongodb_fdw NO HANDLER VALIDATOR plinth.mongodb_fdw_validator;
