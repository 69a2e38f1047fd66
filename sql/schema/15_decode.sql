-- decode: what became of this database's replication slot.  Never dumped.

CREATE TABLE plinth.decode_state (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    state           text NOT NULL CHECK (state IN ('none', 'creating', 'ready', 'lost', 'recreate')),
    slot_name       name NOT NULL,
    slot_generation bigint NOT NULL,             -- follows the clock, never used twice
    created_at      timestamptz,                 -- when the slot became ready
    lost_at         timestamptz,
    lost_reason     text
);
ALTER TABLE plinth.decode_state OWNER TO plinth_owner;
REVOKE ALL ON plinth.decode_state FROM PUBLIC;
COMMENT ON TABLE plinth.decode_state IS
'What became of this database''s replication slot: see docs/decode.md. At most one row.';
