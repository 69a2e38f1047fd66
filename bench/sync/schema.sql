-- What the benchmark of sync writes: a forum's replies, as wide as real ones.
CREATE EXTENSION plinth;
CREATE SCHEMA bench;

CREATE TABLE bench.replies (
    id          bigint PRIMARY KEY,
    thread_id   bigint NOT NULL,
    author_id   uuid NOT NULL,
    body        text NOT NULL,
    tags        text[] NOT NULL,
    score       double precision NOT NULL,
    likes       integer NOT NULL DEFAULT 0,
    hidden      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL,
    edited_at   timestamptz
);

CREATE FUNCTION bench.fill(from_id bigint, to_id bigint) RETURNS SETOF bench.replies LANGUAGE sql STABLE AS $$
    SELECT id, id / 20, md5(id::text)::uuid, left(repeat(md5((id / 2)::text) || ' ', 9), 120 + id::int % 160),
           ARRAY['tag' || id % 7, 'tag' || id % 11], id * 0.25, 0, false,
           '2026-01-01 00:00Z'::timestamptz + id * interval '1 second', NULL::timestamptz
      FROM generate_series(from_id, to_id) AS id
$$;

-- A table that hardly ever changes: with it synced, decoder and lane are there.
CREATE TABLE bench.quiet (id integer PRIMARY KEY);

-- What making a mapping takes by itself.
CREATE TABLE bench.empty (id integer PRIMARY KEY);

-- Every row once, in transactions of so many.
CREATE PROCEDURE bench.touch_all(count bigint, at_once integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR at IN 1..count BY at_once LOOP
        UPDATE bench.replies SET likes = likes + 1 WHERE id BETWEEN at AND at + at_once - 1;
        COMMIT;
    END LOOP;
END $$;

-- The other way to tell what changed: an outbox that a trigger fills.
CREATE TABLE bench.outbox (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    op        text NOT NULL,
    key       bigint NOT NULL,
    document  jsonb
);
CREATE FUNCTION bench.to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO bench.outbox (op, key) VALUES (TG_OP, OLD.id);
    ELSE
        INSERT INTO bench.outbox (op, key, document) VALUES (TG_OP, NEW.id, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
