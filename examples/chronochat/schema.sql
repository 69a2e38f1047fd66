-- ChronoChat, seed 002: its PostgreSQL tables, and conversations and messages,
-- which it kept in MongoDB, as tables that sync.sql copies there.
--
-- psql -f schema.sql, as a superuser, in a database that has the extension.

CREATE ROLE chronochat NOLOGIN;
CREATE SCHEMA chronochat AUTHORIZATION chronochat;
GRANT USAGE ON SCHEMA plinth TO chronochat;
SET ROLE chronochat;

CREATE TABLE chronochat.users (
    id                uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    clerk_user_id     text NOT NULL UNIQUE,
    email             text NOT NULL,
    username          text,
    first_name        text,
    last_name         text,
    profile_image_url text,
    subscription_tier text NOT NULL DEFAULT 'free' CHECK (subscription_tier IN ('free', 'pro', 'enterprise')),
    is_active         boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    last_login_at     timestamptz,
    metadata          jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON chronochat.users (email);

CREATE TABLE chronochat.user_usage_stats (
    id                  uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    clerk_user_id       text NOT NULL REFERENCES chronochat.users (clerk_user_id) ON DELETE CASCADE,
    total_messages      integer NOT NULL DEFAULT 0,
    total_conversations integer NOT NULL DEFAULT 0,
    total_tokens_used   bigint NOT NULL DEFAULT 0,
    monthly_messages    integer NOT NULL DEFAULT 0,
    monthly_tokens      bigint NOT NULL DEFAULT 0,
    month_year          text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON chronochat.user_usage_stats (clerk_user_id);

CREATE TABLE chronochat.user_sessions (
    id               uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    clerk_user_id    text NOT NULL REFERENCES chronochat.users (clerk_user_id) ON DELETE CASCADE,
    session_id       text NOT NULL UNIQUE,
    ip_address       text,
    user_agent       text,
    device_type      text,
    started_at       timestamptz NOT NULL DEFAULT now(),
    last_activity_at timestamptz,
    ended_at         timestamptz,
    metadata         jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON chronochat.user_sessions (clerk_user_id);

CREATE TABLE chronochat.api_logs (
    id               uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    clerk_user_id    text,
    endpoint         text NOT NULL,
    method           text NOT NULL,
    status_code      integer NOT NULL,
    response_time_ms double precision,
    ip_address       text,
    user_agent       text,
    error_message    text,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON chronochat.api_logs (clerk_user_id);
CREATE INDEX ON chronochat.api_logs (endpoint);
CREATE INDEX ON chronochat.api_logs (created_at);

CREATE TABLE chronochat.user_preferences (
    id                    uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    clerk_user_id         text NOT NULL UNIQUE REFERENCES chronochat.users (clerk_user_id) ON DELETE CASCADE,
    preferred_ai_provider text NOT NULL DEFAULT 'gemini' CHECK (preferred_ai_provider IN ('gemini', 'openai')),
    preferred_model       text,
    temperature           double precision NOT NULL DEFAULT 0.7,
    chat_theme            text NOT NULL DEFAULT 'light',
    language              text NOT NULL DEFAULT 'en',
    email_notifications   boolean NOT NULL DEFAULT true,
    preferences           jsonb NOT NULL DEFAULT '{}',
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);

-- What was in MongoDB: ObjectIds as keys, and conversation_id beside it, which
-- the application asks for.
CREATE TABLE chronochat.conversations (
    id              text PRIMARY KEY DEFAULT plinth.objectid(),
    conversation_id uuid NOT NULL UNIQUE DEFAULT plinth.uuid_v7(),
    user_id         text NOT NULL REFERENCES chronochat.users (clerk_user_id) ON DELETE CASCADE,
    title           text NOT NULL,
    summary         text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    metadata        jsonb NOT NULL DEFAULT '{}',
    tags            text[] NOT NULL DEFAULT '{}',
    is_archived     boolean NOT NULL DEFAULT false
);
CREATE INDEX ON chronochat.conversations (user_id);

CREATE TABLE chronochat.messages (
    id              text PRIMARY KEY DEFAULT plinth.objectid(),
    conversation_id uuid NOT NULL REFERENCES chronochat.conversations (conversation_id) ON DELETE CASCADE,
    role            text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content         text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    model           text,
    provider        text,
    tokens          integer NOT NULL DEFAULT 0,
    metadata        jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON chronochat.messages (conversation_id, created_at);

-- A message that goes or moves tells which conversation counted it.
ALTER TABLE chronochat.messages REPLICA IDENTITY FULL;
RESET ROLE;
