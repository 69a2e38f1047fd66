-- The digital twin of seed 003: users, models, sessions with their turns, and the
-- knowledge base.  The seed has no MongoDB; its conversations with turns are the
-- documents that its clients read, and sync.sql makes them.
--
-- psql -f schema.sql, as a superuser, in a database that has the extension.

CREATE ROLE digitwin NOLOGIN;
CREATE SCHEMA digitwin AUTHORIZATION digitwin;
GRANT USAGE ON SCHEMA plinth TO digitwin;
SET ROLE digitwin;

CREATE TABLE digitwin.users (
    id                 uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    email              text NOT NULL UNIQUE,
    name               text NOT NULL,
    personality_traits text[] NOT NULL DEFAULT '{}',
    subscription_tier  text NOT NULL DEFAULT 'free' CHECK (subscription_tier IN ('free', 'pro', 'enterprise')),
    settings           jsonb NOT NULL DEFAULT '{}',
    created_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz
);
CREATE INDEX ON digitwin.users (deleted_at);

CREATE TABLE digitwin.voice_models (
    id            uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id       uuid NOT NULL REFERENCES digitwin.users ON DELETE CASCADE,
    provider      text NOT NULL CHECK (provider IN ('xtts-v2', 'google-cloud-tts', 'openai-tts')),
    model_path    text NOT NULL,
    quality_score double precision NOT NULL CHECK (quality_score BETWEEN 0 AND 1),
    is_active     boolean NOT NULL DEFAULT false
);
CREATE INDEX ON digitwin.voice_models (user_id, is_active);

CREATE TABLE digitwin.face_models (
    id            uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id       uuid NOT NULL REFERENCES digitwin.users ON DELETE CASCADE,
    model_path    text NOT NULL,
    resolution    jsonb NOT NULL,
    quality_score double precision NOT NULL CHECK (quality_score BETWEEN 0 AND 1),
    is_active     boolean NOT NULL DEFAULT false
);
CREATE INDEX ON digitwin.face_models (user_id, is_active);

CREATE TABLE digitwin.conversation_sessions (
    id           uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id      uuid NOT NULL REFERENCES digitwin.users ON DELETE CASCADE,
    state        text NOT NULL DEFAULT 'idle' CHECK (state IN ('idle', 'listening', 'processing', 'speaking', 'interrupted', 'error')),
    llm_provider text NOT NULL,
    tts_provider text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz
);
CREATE INDEX ON digitwin.conversation_sessions (user_id, started_at);

CREATE TABLE digitwin.conversation_turns (
    id              uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    session_id      uuid NOT NULL REFERENCES digitwin.conversation_sessions ON DELETE CASCADE,
    user_transcript text NOT NULL,
    llm_response    text,
    asr_latency_ms  integer NOT NULL,
    rag_latency_ms  integer NOT NULL,
    llm_latency_ms  integer NOT NULL,
    tts_latency_ms  integer NOT NULL,
    asr_cost        numeric(10,6) NOT NULL,
    llm_cost        numeric(10,6) NOT NULL,
    tts_cost        numeric(10,6) NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON digitwin.conversation_turns (session_id, created_at);

CREATE TABLE digitwin.knowledge_documents (
    id           uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id      uuid NOT NULL REFERENCES digitwin.users ON DELETE CASCADE,
    filename     text NOT NULL,
    content_type text NOT NULL,
    text_content text,
    chunk_count  integer NOT NULL DEFAULT 0,
    status       text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    vector_ids   text[] NOT NULL DEFAULT '{}',
    uploaded_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz
);
CREATE INDEX ON digitwin.knowledge_documents (user_id, uploaded_at);
CREATE INDEX ON digitwin.knowledge_documents (status);

-- Turns and users tell in their old versions whose conversation they are of.
ALTER TABLE digitwin.conversation_turns REPLICA IDENTITY FULL;
ALTER TABLE digitwin.conversation_sessions REPLICA IDENTITY FULL;

-- A turn as it stands in a conversation: names as clients know them.
CREATE TYPE digitwin.turn AS (
    "userTranscript" text, "llmResponse" text, "latencyMs" integer, cost numeric(10,6), "createdAt" timestamptz);
RESET ROLE;
