-- sync: files in chunks, as GridFS has them (docs/files.md).

CREATE TABLE plinth.file_buckets (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 100),
    owner        regrole NOT NULL,
    per_user     boolean NOT NULL DEFAULT false, -- each user of the request context has names of their own
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE plinth.file_buckets IS 'Buckets of files, and the roles that own them.';

CREATE TABLE plinth.file_grants (
    bucket_id    bigint NOT NULL REFERENCES plinth.file_buckets ON DELETE CASCADE,
    role         regrole NOT NULL,
    owner        regrole NOT NULL,               -- of the bucket
    may_write    boolean NOT NULL,
    PRIMARY KEY (bucket_id, role)
);
COMMENT ON TABLE plinth.file_grants IS 'Which other roles may read a bucket''s files, or write them.';

-- Columns of tables whose values are files of a bucket of their own.
CREATE TABLE plinth.file_columns (
    bucket_id    bigint PRIMARY KEY REFERENCES plinth.file_buckets ON DELETE CASCADE,
    relation     regclass NOT NULL,
    column_name  name NOT NULL,
    key_columns  name[] NOT NULL,
    content_type text
);
COMMENT ON TABLE plinth.file_columns IS 'Columns of type bytea that are copied as files: sync_file.';
CREATE INDEX file_columns_relation_idx ON plinth.file_columns (relation);

-- A row is a version of a file: it never changes but for how it goes.
CREATE TABLE plinth.files (
    id           text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-f]{24}$'),
    bucket_id    bigint NOT NULL REFERENCES plinth.file_buckets ON DELETE CASCADE,
    length       bigint NOT NULL CHECK (length >= 0),
    chunk_size   integer NOT NULL DEFAULT 261120 CHECK (chunk_size > 0),
    uploaded_at  timestamptz(3) NOT NULL,        -- later than the version before it, in whole milliseconds
    filename     text NOT NULL CHECK (filename <> '' AND octet_length(filename) <= 1000),
    user_id      uuid,                           -- whose name it is, in a bucket per user
    gridfs_name  text NOT NULL GENERATED ALWAYS AS
                     (CASE WHEN user_id IS NULL THEN filename ELSE user_id::text || '/' || filename END) STORED,
    content_type text NOT NULL CHECK (content_type <> '' AND octet_length(content_type) <= 255),
    metadata     jsonb NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
    replaced_at  timestamptz,                    -- there is a newer version
    replaced_by  text COLLATE "C",
    hidden_at    timestamptz,                    -- its document is to go
    vanished_at  timestamptz                     -- MongoDB has it no more, and will not have it again
);
COMMENT ON TABLE plinth.files IS 'Versions of files; their bytes are in plinth.file_chunks.';
CREATE UNIQUE INDEX files_identity_idx ON plinth.files (bucket_id, id);
CREATE UNIQUE INDEX files_current_idx ON plinth.files (bucket_id, user_id, filename) NULLS NOT DISTINCT
    WHERE replaced_at IS NULL AND hidden_at IS NULL;
CREATE INDEX files_name_idx ON plinth.files (bucket_id, filename, uploaded_at);
CREATE INDEX files_replaced_idx ON plinth.files (bucket_id, replaced_at) WHERE replaced_at IS NOT NULL AND hidden_at IS NULL;
CREATE INDEX files_hidden_idx ON plinth.files (bucket_id, hidden_at) WHERE hidden_at IS NOT NULL;
-- The old tuple tells the bucket too.
ALTER TABLE plinth.files REPLICA IDENTITY USING INDEX files_identity_idx;

-- Written once, whole, and never changed.
CREATE TABLE plinth.file_chunks (
    id           text COLLATE "C" PRIMARY KEY,
    bucket_id    bigint NOT NULL,
    files_id     text COLLATE "C" NOT NULL,
    n            integer NOT NULL CHECK (n >= 0),
    data         bytea NOT NULL CHECK (octet_length(data) BETWEEN 1 AND 261120),
    UNIQUE (files_id, n)
);
COMMENT ON TABLE plinth.file_chunks IS 'The bytes of files, 261,120 at a time.';
CREATE UNIQUE INDEX file_chunks_identity_idx ON plinth.file_chunks (bucket_id, id);
ALTER TABLE plinth.file_chunks REPLICA IDENTITY USING INDEX file_chunks_identity_idx;
-- Files are mostly compressed by themselves.
ALTER TABLE plinth.file_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

-- Versions that are not whole yet; nobody sees them.
CREATE TABLE plinth.file_uploads (
    id           text COLLATE "C" PRIMARY KEY,
    bucket_id    bigint NOT NULL REFERENCES plinth.file_buckets ON DELETE CASCADE,
    user_id      uuid,
    filename     text NOT NULL,
    content_type text NOT NULL,
    metadata     jsonb NOT NULL,
    chunks       integer NOT NULL DEFAULT 0,     -- that are whole
    tail         bytea NOT NULL DEFAULT '',      -- what is left over, less than one
    touched_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE plinth.file_uploads IS 'Files that are being written piece by piece.';
CREATE INDEX file_uploads_bucket_idx ON plinth.file_uploads (bucket_id, touched_at);
ALTER TABLE plinth.file_uploads ALTER COLUMN tail SET STORAGE EXTERNAL;

SELECT pg_catalog.pg_extension_config_dump('plinth.file_buckets', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.file_buckets_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.file_grants', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.file_columns', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.files', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.file_chunks', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.file_uploads', '');

ALTER TABLE plinth.file_buckets OWNER TO plinth_owner;
ALTER TABLE plinth.file_buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.file_grants OWNER TO plinth_owner;
ALTER TABLE plinth.file_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.file_columns OWNER TO plinth_owner;
ALTER TABLE plinth.file_columns ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.files OWNER TO plinth_owner;
ALTER TABLE plinth.files ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.file_chunks OWNER TO plinth_owner;
ALTER TABLE plinth.file_chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.file_uploads OWNER TO plinth_owner;
ALTER TABLE plinth.file_uploads ENABLE ROW LEVEL SECURITY;

REVOKE ALL ON plinth.file_buckets, plinth.file_grants, plinth.file_columns, plinth.files, plinth.file_chunks, plinth.file_uploads FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a bucket, and the policies say which.
GRANT SELECT ON plinth.file_buckets, plinth.file_grants, plinth.files TO PUBLIC;
