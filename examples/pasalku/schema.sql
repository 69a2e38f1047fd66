-- The legal assistant of seed 000: both of its PostgreSQL databases as one, and
-- what it kept in MongoDB as tables that sync.sql copies there.
--
-- psql -f schema.sql, as a superuser, in a database that has the extension.

CREATE ROLE pasalku NOLOGIN;
CREATE SCHEMA pasalku AUTHORIZATION pasalku;
GRANT USAGE ON SCHEMA plinth TO pasalku;
SET ROLE pasalku;

CREATE TYPE pasalku.user_role AS ENUM ('masyarakat_umum', 'profesional_hukum', 'admin');
CREATE TYPE pasalku.tier AS ENUM ('free', 'premium', 'enterprise');
CREATE TYPE pasalku.verdict AS ENUM ('pending', 'approved', 'rejected');

-- Instance 1: users and what they pay.  The key is Clerk's.
CREATE TABLE pasalku.users (
    id                  text PRIMARY KEY,
    email               text NOT NULL UNIQUE,
    role                pasalku.user_role NOT NULL DEFAULT 'masyarakat_umum',
    subscription_tier   pasalku.tier NOT NULL DEFAULT 'free',
    stripe_customer_id  text UNIQUE,
    verification_status pasalku.verdict,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pasalku.verification_requests (
    id          uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id     text NOT NULL REFERENCES pasalku.users ON DELETE CASCADE,
    status      pasalku.verdict NOT NULL DEFAULT 'pending',
    reviewed_by text REFERENCES pasalku.users ON DELETE SET NULL,
    reviewed_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.verification_requests (user_id);
CREATE INDEX ON pasalku.verification_requests (reviewed_by);

CREATE TABLE pasalku.subscriptions (
    id                     uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id                text NOT NULL REFERENCES pasalku.users ON DELETE CASCADE,
    stripe_subscription_id text UNIQUE,
    tier                   pasalku.tier NOT NULL,
    status                 text NOT NULL,
    current_period_end     timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.subscriptions (user_id);

-- Instance 2: sessions and documents.  A transcript has MongoDB's own kind of
-- key, which the session refers to.
CREATE TABLE pasalku.chat_transcripts (
    id         text PRIMARY KEY DEFAULT plinth.objectid(),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pasalku.chat_sessions (
    id                    uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id               text NOT NULL REFERENCES pasalku.users ON DELETE CASCADE,
    mongodb_transcript_id text NOT NULL UNIQUE REFERENCES pasalku.chat_transcripts ON DELETE CASCADE,
    title                 text NOT NULL,
    pin_hash              text,
    ai_model              text NOT NULL,
    rating                smallint CHECK (rating BETWEEN 1 AND 5),
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.chat_sessions (user_id);

CREATE TABLE pasalku.chat_messages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES pasalku.chat_sessions ON DELETE CASCADE,
    role       text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content    text NOT NULL,
    citations  jsonb NOT NULL DEFAULT '[]',
    confidence double precision,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.chat_messages (session_id, id);

CREATE TABLE pasalku.session_analytics (
    id                   uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    session_id           uuid NOT NULL UNIQUE REFERENCES pasalku.chat_sessions ON DELETE CASCADE,
    total_messages       integer NOT NULL DEFAULT 0,
    total_tokens         bigint NOT NULL DEFAULT 0,
    avg_confidence_score numeric(5,4),
    updated_at           timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pasalku.ai_query_logs (
    id                uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id           text REFERENCES pasalku.users ON DELETE SET NULL,
    session_id        uuid REFERENCES pasalku.chat_sessions ON DELETE SET NULL,
    query_type        text NOT NULL,
    ai_provider       text NOT NULL,
    prompt_tokens     integer NOT NULL,
    completion_tokens integer NOT NULL,
    total_tokens      integer GENERATED ALWAYS AS (prompt_tokens + completion_tokens) STORED,
    response_time_ms  integer NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.ai_query_logs (user_id);
CREATE INDEX ON pasalku.ai_query_logs (session_id);

CREATE TABLE pasalku.document_metadata (
    id                  uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id             text NOT NULL REFERENCES pasalku.users ON DELETE CASCADE,
    session_id          uuid REFERENCES pasalku.chat_sessions ON DELETE SET NULL,
    mongodb_document_id text,
    file_name           text NOT NULL,
    processing_status   text NOT NULL DEFAULT 'queued',
    ai_summary          text,
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.document_metadata (user_id);
CREATE INDEX ON pasalku.document_metadata (session_id);

-- What was in MongoDB alone.
CREATE TABLE pasalku.document_analyses (
    id          text PRIMARY KEY DEFAULT plinth.objectid(),
    document_id uuid NOT NULL REFERENCES pasalku.document_metadata ON DELETE CASCADE,
    language    text NOT NULL DEFAULT 'id',
    summary     text NOT NULL,
    clauses     jsonb NOT NULL DEFAULT '[]',
    risk_score  numeric(4,3),
    analyzed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.document_analyses (document_id);

CREATE TABLE pasalku.verification_documents (
    id         text PRIMARY KEY DEFAULT plinth.objectid(),
    request_id uuid NOT NULL REFERENCES pasalku.verification_requests ON DELETE CASCADE,
    file_name  text NOT NULL,
    mime_type  text NOT NULL,
    content    bytea NOT NULL CHECK (octet_length(content) < 15 * 1024 * 1024),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.verification_documents (request_id);

CREATE TABLE pasalku.ai_response_cache (
    id         text PRIMARY KEY, -- a hash of the query
    query      text NOT NULL,
    response   text NOT NULL,
    provider   text NOT NULL,
    hit_count  integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

CREATE TABLE pasalku.knowledge_graph_cache (
    id         text PRIMARY KEY,
    query      text NOT NULL,
    result     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

CREATE TABLE pasalku.user_activity_logs (
    id         text PRIMARY KEY DEFAULT plinth.objectid(),
    user_id    text NOT NULL,
    action     text NOT NULL,
    resource   text,
    ip_address inet,
    metadata   jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pasalku.dual_ai_comparisons (
    id                text PRIMARY KEY DEFAULT plinth.objectid(),
    session_id        uuid REFERENCES pasalku.chat_sessions ON DELETE CASCADE,
    query             text NOT NULL,
    ark_response      text NOT NULL,
    groq_response     text NOT NULL,
    similarity        double precision NOT NULL,
    selected_provider text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pasalku.dual_ai_comparisons (session_id);

CREATE TABLE pasalku.feature_flag_cache (
    id         text PRIMARY KEY, -- the flag's name
    enabled    boolean NOT NULL,
    rules      jsonb NOT NULL DEFAULT '{}',
    provider   text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Uploaded documents as files, of which MongoDB gets a GridFS bucket.
SELECT plinth.file_bucket_create('pasalku_documents');

-- The rows that a transcript is made of tell in their old versions which one.
ALTER TABLE pasalku.chat_sessions REPLICA IDENTITY FULL;
ALTER TABLE pasalku.chat_messages REPLICA IDENTITY FULL;
ALTER TABLE pasalku.session_analytics REPLICA IDENTITY FULL;

-- A message as it stands in a transcript.
CREATE TYPE pasalku.transcript_message AS (role text, content text, citations jsonb, confidence double precision, created_at timestamptz);
RESET ROLE;
