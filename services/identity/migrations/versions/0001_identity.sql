-- What identity knows and no event may hold. These are truth, not read models: they can't be built from the log.

-- The key that seals what identifies a user, itself sealed by the installation's secret key. Destroying the row is
-- how a person is erased from the log.
create table {schema}.sealing_keys (
    user_id    text primary key,
    sealed_key text not null
);

-- The password in force. accepted_position is that of the InvitationAccepted which set it, so that of two claims the
-- later one holds, whichever is heard of first.
create table {schema}.credentials (
    user_id           text primary key,
    password_hash     text not null,
    accepted_position bigint not null
);

-- Passwords that wait for their invitation to be accepted.
create table {schema}.pending_credentials (
    claim_id      text primary key,
    user_id       text not null,
    password_hash text not null,
    created_at    timestamptz not null
);

create table {schema}.session_activity (
    session_id   text primary key,
    last_seen_at timestamptz not null
);

grant select, insert, delete on {schema}.sealing_keys to {role};
grant select, insert, update, delete on {schema}.credentials to {role};
grant select, insert, delete on {schema}.pending_credentials to {role};
grant select, insert, update, delete on {schema}.session_activity to {role};
