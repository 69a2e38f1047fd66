-- The AI chat of seed 004, its SQL as it stands there.  The seed has no MongoDB;
-- a chat with its messages is the document that its clients read.
--
-- psql -f schema.sql, as a superuser, in a database that has the extension.

CREATE ROLE aichat NOLOGIN;
CREATE SCHEMA aichat AUTHORIZATION aichat;
GRANT USAGE ON SCHEMA plinth TO aichat;
SET ROLE aichat;

CREATE TABLE aichat.users (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    username      varchar(255) UNIQUE NOT NULL,
    email         varchar(255) UNIQUE NOT NULL,
    password_hash varchar(255) NOT NULL,
    is_active     boolean DEFAULT true,
    is_verified   boolean DEFAULT false,
    created_at    timestamp DEFAULT CURRENT_TIMESTAMP,
    updated_at    timestamp DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE aichat.chats (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid REFERENCES aichat.users (id) ON DELETE CASCADE,
    title      varchar(255),
    created_at timestamp DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX ON aichat.chats (user_id);

CREATE TABLE aichat.messages (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    chat_id    uuid REFERENCES aichat.chats (id) ON DELETE CASCADE,
    role       varchar(50) NOT NULL, -- 'user' or 'assistant'
    content    text NOT NULL,
    created_at timestamp DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX ON aichat.messages (chat_id, created_at);

CREATE TABLE aichat.files (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid REFERENCES aichat.users (id) ON DELETE CASCADE,
    filename   varchar(255) NOT NULL,
    file_path  varchar(500) NOT NULL,
    file_size  bigint NOT NULL,
    mime_type  varchar(100),
    created_at timestamp DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX ON aichat.files (user_id);

-- A message that goes or moves tells which chat it was in.
ALTER TABLE aichat.messages REPLICA IDENTITY FULL;
ALTER TABLE aichat.chats REPLICA IDENTITY FULL;

CREATE TYPE aichat.chat_message AS (id text, role text, content text, "createdAt" timestamp);
RESET ROLE;
